// A fixed set of threads that run one indexed loop at a time. Which thread runs which index is not
// fixed, so a body's result must not depend on it: our kernels give one output element to one
// index.
#pragma once

#include <functional>
#include <memory>

namespace assay {

class ThreadPool {
 public:
  // The calling thread takes part, so n_threads = 1 starts none. 0 means every core this process
  // may use.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const { return n_threads_; }

  // Calls body(i) for every i in [0, n), and returns when all are done. One loop at a time: a
  // loop of the same pool inside body, or from another thread meanwhile, is a CHECK failure (with
  // one thread or one index it would work, and must not be relied on).
  template <class Body>
  void parallel_for(int n, const Body& body) {
    if (n <= 0) return;
    if (n_threads_ == 1 || n == 1) {
      for (int i = 0; i < n; ++i) body(i);
      return;
    }
    run(
        n, [](const void* f, int i) { (*static_cast<const Body*>(f))(i); }, &body);
  }

 private:
  struct State;
  void run(int n, void (*call)(const void*, int), const void* body);

  int n_threads_;
  std::unique_ptr<State> state_;
};

int n_usable_cores();

}  // namespace assay
