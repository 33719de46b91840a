// Whether to go on, asked between steps of texts, and within work that takes long: what is in
// memory then is given up, what is on disk is whole.
#pragma once

#include <atomic>
#include <functional>
#include <utility>

#include "base/result.h"
#include "base/thread_pool.h"

namespace assay::engine {

class Stop {
 public:
  // `is_asked` is called from any thread.
  explicit Stop(std::function<bool()> is_asked) : is_asked_(std::move(is_asked)) {}

  bool is_asked() {
    if (is_stopped_) return true;
    if (is_asked_ && is_asked_()) is_stopped_ = true;
    return is_stopped_;
  }
  // An error once a stop is asked for, which ends the work like any other …
  Result<void> check() {
    if (is_asked()) return fail("interrupted");
    return {};
  }
  bool is_stopped() const { return is_stopped_; }  // … and this tells it from others

 private:
  std::function<bool()> is_asked_;
  std::atomic<bool> is_stopped_ = false;
};

inline bool is_stopped(Stop* stop) { return stop != nullptr && stop->is_asked(); }
inline Result<void> go_on(Stop* stop) { return stop == nullptr ? Result<void>() : stop->check(); }

// body(i) for every i in [0, n); once a stop is asked for the rest is skipped, which is an error.
template <class Body>
Result<void> parallel_for(ThreadPool& pool, Stop* stop, int n, const Body& body) {
  pool.parallel_for(n, [&](int i) {
    if (!is_stopped(stop)) body(i);
  });
  return go_on(stop);
}

}  // namespace assay::engine
