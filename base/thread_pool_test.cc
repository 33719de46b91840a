#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

namespace assay {
namespace {

TEST(ThreadPool, RunsEveryIndexExactlyOnce) {
  for (const int n_threads : {1, 2, 3, 4, 8}) {
    ThreadPool pool(n_threads);
    EXPECT_EQ(pool.n_threads(), n_threads);
    for (const int n : {0, 1, 2, 3, 7, 64, 1000, 4097}) {
      std::vector<std::atomic<int>> count(n);
      pool.parallel_for(n, [&](int i) { count[i].fetch_add(1); });
      for (int i = 0; i < n; ++i)
        ASSERT_EQ(count[i].load(), 1) << "index " << i << " of " << n << ", " << n_threads;
    }
  }
}

TEST(ThreadPool, WorkIsDoneAndVisibleWhenTheLoopReturns) {
  ThreadPool pool(4);
  std::vector<long> plain(512);  // not atomic: returning must order these writes
  for (int round = 1; round <= 200; ++round) {
    pool.parallel_for(512, [&](int i) { plain[i] += i; });
    ASSERT_EQ(std::accumulate(plain.begin(), plain.end(), 0L), 511L * 512 / 2 * round);
  }
}

TEST(ThreadPool, TenThousandSmallLoopsFinish) {
  ThreadPool pool(2);
  std::atomic<long> total{0};
  for (int round = 0; round < 10'000; ++round)
    pool.parallel_for(3, [&](int i) { total.fetch_add(i, std::memory_order_relaxed); });
  EXPECT_EQ(total.load(), 30'000);
}

TEST(ThreadPool, MoreThreadsThanCoresStillFinish) {
  ThreadPool pool(n_usable_cores() + 2);
  std::atomic<long> total{0};
  for (int round = 0; round < 500; ++round)
    pool.parallel_for(5, [&](int i) { total.fetch_add(i, std::memory_order_relaxed); });
  EXPECT_EQ(total.load(), 5'000);
}

TEST(ThreadPool, WakesAfterItsWorkersFellAsleep) {
  ThreadPool pool(3);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // far beyond the spinning time
    std::atomic<int> total{0};
    pool.parallel_for(100, [&](int) { total.fetch_add(1); });
    ASSERT_EQ(total.load(), 100);
  }
}

TEST(ThreadPool, ThreadsReallyRunTogether) {
  // Each of two bodies waits for the other: one thread alone would never finish.
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  pool.parallel_for(2, [&](int) {
    arrived.fetch_add(1);
    while (arrived.load() < 2) std::this_thread::yield();
  });
  EXPECT_EQ(arrived.load(), 2);
}

TEST(ThreadPool, AnotherPoolMayRunInsideALoop) {
  ThreadPool outer(2);
  std::atomic<int> total{0};
  outer.parallel_for(4, [&](int) {
    ThreadPool inner(2);
    inner.parallel_for(10, [&](int) { total.fetch_add(1); });
  });
  EXPECT_EQ(total.load(), 40);
}

TEST(ThreadPoolDeathTest, ALoopInsideALoopOfTheSamePoolIsOurBug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        ThreadPool pool(2);
        pool.parallel_for(2, [&](int) { pool.parallel_for(2, [](int) {}); });
      },
      "one loop at a time");
}

// A worker that was about to join the last loop must still see that the pool stops.
TEST(ThreadPool, EndsWhileItsWorkersAreJoining) {
  std::atomic<long> total{0};
  for (int round = 0; round < 20'000; ++round) {
    ThreadPool pool(3);
    pool.parallel_for(2, [&](int i) { total.fetch_add(i, std::memory_order_relaxed); });
  }
  EXPECT_EQ(total.load(), 20'000);
}

TEST(ThreadPool, ZeroThreadsMeansEveryUsableCore) {
  EXPECT_GE(n_usable_cores(), 1);
  EXPECT_EQ(ThreadPool(0).n_threads(), n_usable_cores());
}

}  // namespace
}  // namespace assay
