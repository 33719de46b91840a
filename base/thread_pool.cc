#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "base/check.h"

namespace assay {
namespace {

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// A decode step is some hundred loops of a few microseconds: a worker that slept after each would
// cost more than the work. It spins this long (some 20 microseconds) for the next loop, then
// sleeps, so an idle engine costs nothing.
constexpr int kSpins = 4000;

}  // namespace

int n_usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

struct ThreadPool::State {
  // One loop: written before `generation` is raised, read by workers after they see it raised.
  void (*call)(const void*, int) = nullptr;
  const void* body = nullptr;
  int n = 0;
  alignas(64) std::atomic<int> next{0};
  alignas(64) std::atomic<int> n_working{0};
  alignas(64) std::atomic<unsigned> generation{0};
  std::atomic<bool> stop{false};
  std::atomic<bool> busy{false};
  std::atomic<int> n_sleeping{0};
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::thread> workers;

  void drain() {
    for (int i = next.fetch_add(1, std::memory_order_relaxed); i < n;
         i = next.fetch_add(1, std::memory_order_relaxed))
      call(body, i);
  }

  void work() {
    unsigned seen = 0;
    while (true) {
      int spins = 0;
      while (generation.load(std::memory_order_acquire) == seen && spins < kSpins) {
        relax();
        ++spins;
      }
      if (generation.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex);
        n_sleeping.fetch_add(1, std::memory_order_seq_cst);
        wake.wait(lock, [&] { return generation.load(std::memory_order_seq_cst) != seen; });
        n_sleeping.fetch_sub(1, std::memory_order_relaxed);
      }
      seen = generation.load(std::memory_order_acquire);
      if (stop.load(std::memory_order_acquire)) return;
      drain();
      n_working.fetch_sub(1, std::memory_order_acq_rel);
    }
  }
};

ThreadPool::ThreadPool(int n_threads)
    : n_threads_(n_threads > 0 ? n_threads : n_usable_cores()), state_(std::make_unique<State>()) {
  for (int i = 1; i < n_threads_; ++i) state_->workers.emplace_back([this] { state_->work(); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stop.store(true);
    state_->generation.fetch_add(1, std::memory_order_seq_cst);
  }
  state_->wake.notify_all();
  for (auto& worker : state_->workers) worker.join();
}

void ThreadPool::run(int n, void (*call)(const void*, int), const void* body) {
  State& s = *state_;
  CHECK(!s.busy.exchange(true, std::memory_order_acquire))
      << "a pool runs one loop at a time: neither inside its own loop nor from two threads";
  s.call = call;
  s.body = body;
  s.n = n;
  s.next.store(0, std::memory_order_relaxed);
  s.n_working.store(n_threads_ - 1, std::memory_order_relaxed);
  s.generation.fetch_add(1, std::memory_order_seq_cst);
  if (s.n_sleeping.load(std::memory_order_seq_cst) > 0) {
    std::lock_guard lock(s.mutex);
    s.wake.notify_all();
  }
  s.drain();
  for (int spins = 0; s.n_working.load(std::memory_order_acquire) != 0; ++spins) {
    relax();
    // On a shared or oversubscribed machine the worker may need this very core.
    if (spins >= kSpins) std::this_thread::yield();
  }
  s.busy.store(false, std::memory_order_release);
}

}  // namespace assay
