#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
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

// A worker takes part in a loop only if it joins while the loop is open, and the caller closes the
// loop when no index is left: on a busy machine nobody waits for a worker that the system has not
// let run yet. The word is generation << 32 | workers joined << 1 | open.
constexpr std::uint64_t kOpen = 1, kJoined = 2, kJoinedMask = 0xFFFFFFFE, kGeneration = 1ull << 32;
constexpr int n_joined(std::uint64_t word) {
  return static_cast<int>((word & kJoinedMask) / kJoined);
}

}  // namespace

int n_usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

struct ThreadPool::State {
  explicit State(int threads) : n_threads(threads) {}
  const int n_threads;

  // One loop, in one cache line, so that a worker that sees it open has all of it: written before
  // it opens, read by workers that joined it.
  alignas(64) std::atomic<std::uint64_t> loop{0};  // generation | joined | open
  void (*call)(const void*, int) = nullptr;
  const void* body = nullptr;
  int n = 0;
  alignas(64) std::atomic<int> next{0};              // of the indices that are not set aside
  alignas(64) std::atomic<std::uint64_t> n_done{0};  // workers that joined and are done
  alignas(64) std::atomic<bool> busy{false};
  std::atomic<bool> stop{false};
  std::atomic<int> n_sleeping{0};
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::thread> workers;

  // Index 0 is the caller's first, index k that of the k-th worker to join (if none comes, the
  // caller's last); the others go to whoever asks. So a loop of one index to a thread, the common
  // one in decode, shares no counter.
  void run_from(int first) {
    if (first < n) call(body, first);
    if (n <= n_threads) return;
    for (int i = next.fetch_add(1, std::memory_order_relaxed); i < n;
         i = next.fetch_add(1, std::memory_order_relaxed))
      call(body, i);
  }

  // Joins the loop that `word` shows, or a later one; `word` then shows that, with this worker.
  bool join(std::uint64_t& word) {
    while ((word & kOpen) != 0)
      if (loop.compare_exchange_weak(word, word + kJoined, std::memory_order_acq_rel,
                                     std::memory_order_acquire)) {
        word += kJoined;
        return true;
      }
    return false;
  }

  void work() {
    std::uint64_t seen = 0;
    const auto is_new = [&](std::uint64_t word) { return word / kGeneration != seen; };
    while (true) {
      std::uint64_t word = loop.load(std::memory_order_acquire);
      for (int spins = 0; !is_new(word) && spins < kSpins; ++spins) {
        relax();
        word = loop.load(std::memory_order_acquire);
      }
      if (!is_new(word)) {
        std::unique_lock lock(mutex);
        n_sleeping.fetch_add(1, std::memory_order_seq_cst);
        wake.wait(lock, [&] { return is_new(word = loop.load(std::memory_order_seq_cst)); });
        n_sleeping.fetch_sub(1, std::memory_order_relaxed);
      }
      const bool joined = join(word);
      seen = word / kGeneration;
      if (!joined) {
        // Asked after join, which may have moved on to the word by which the destructor stops.
        if (stop.load(std::memory_order_acquire)) return;
        continue;
      }
      run_from(n_joined(word));
      n_done.fetch_add(1, std::memory_order_acq_rel);
    }
  }
};

ThreadPool::ThreadPool(int n_threads)
    : n_threads_(n_threads > 0 ? n_threads : n_usable_cores()),
      state_(std::make_unique<State>(n_threads_)) {
  for (int i = 1; i < n_threads_; ++i) state_->workers.emplace_back([this] { state_->work(); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stop.store(true);
    state_->loop.fetch_add(kGeneration, std::memory_order_seq_cst);
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
  s.next.store(n_threads_, std::memory_order_relaxed);
  s.n_done.store(0, std::memory_order_relaxed);
  const std::uint64_t generation = s.loop.load(std::memory_order_relaxed) / kGeneration + 1;
  s.loop.store(generation * kGeneration | kOpen, std::memory_order_seq_cst);
  if (s.n_sleeping.load(std::memory_order_seq_cst) > 0) {
    std::lock_guard lock(s.mutex);
    s.wake.notify_all();
  }
  s.run_from(0);
  const int joined = n_joined(s.loop.fetch_and(~kOpen, std::memory_order_acq_rel));
  for (int i = joined + 1; i < std::min(n, n_threads_); ++i) call(body, i);
  for (int spins = 0;
       s.n_done.load(std::memory_order_acquire) != static_cast<std::uint64_t>(joined); ++spins) {
    relax();
    // On a shared or oversubscribed machine the worker may need this very core.
    if (spins >= kSpins) std::this_thread::yield();
  }
  s.busy.store(false, std::memory_order_release);
}

}  // namespace assay
