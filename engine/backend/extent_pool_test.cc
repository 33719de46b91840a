#include "engine/backend/extent_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace assay::engine {
namespace {

TEST(ExtentPool, TheFirstHoleThatIsLargeEnoughIsTaken) {
  ExtentPool pool(100);
  EXPECT_EQ(pool.take(30), 0);
  EXPECT_EQ(pool.take(10), 30);
  EXPECT_EQ(pool.take(40), 40);
  pool.give_back(0);
  pool.give_back(40);
  EXPECT_EQ(pool.take(31), 40) << "the hole of 30 is too small";
  EXPECT_EQ(pool.take(30), 0);
  EXPECT_EQ(pool.n_free(), 29);
}

TEST(ExtentPool, HolesThatTouchAreOne) {
  ExtentPool pool(90);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(pool.take(30), 30 * i);
  pool.give_back(0);
  pool.give_back(30);
  EXPECT_EQ(pool.take(60), 0);
  pool.give_back(60);
  pool.give_back(0);
  EXPECT_EQ(pool.take(90), 0) << "and with the end";
}

TEST(ExtentPool, AFullOneGivesNothingUntilSomethingComesBack) {
  ExtentPool pool(64);
  EXPECT_EQ(pool.take(65), std::nullopt);
  EXPECT_EQ(pool.take(64), 0);
  EXPECT_EQ(pool.take(1), std::nullopt);
  EXPECT_EQ(pool.n_free(), 0);
  pool.give_back(0);
  EXPECT_EQ(pool.take(1), 0);
}

TEST(ExtentPool, ScatteredRoomIsOnePieceAfterCompaction) {
  ExtentPool pool(100);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(pool.take(20), 20 * i);
  pool.give_back(0);
  pool.give_back(40);
  EXPECT_EQ(pool.n_free(), 40);
  EXPECT_EQ(pool.take(40), std::nullopt);
  const auto moves = pool.compact();
  ASSERT_EQ(moves.size(), 3u);
  EXPECT_EQ(moves[0].from, 20);
  EXPECT_EQ(moves[0].to, 0);
  EXPECT_EQ(moves[1].from, 60);
  EXPECT_EQ(moves[1].to, 20);
  EXPECT_EQ(moves[2].from, 80);
  EXPECT_EQ(moves[2].to, 40);
  EXPECT_EQ(moves[2].n, 20);
  EXPECT_EQ(pool.take(40), 60);
  EXPECT_TRUE(pool.compact().empty());
}

// Random lives of caches: whatever is taken is nobody else's, what moves keeps its content, and
// room that is free in all can be had.
TEST(ExtentPool, NobodyEverSharesATokenAndAllRoomCanBeHad) {
  constexpr int kTokens = 1000;
  std::mt19937 draw(5);
  ExtentPool pool(kTokens);
  std::vector<int> memory(kTokens, -1);  // whose a token is
  struct Extent {
    int first, n, id;
  };
  std::vector<Extent> alive;
  int n_compactions = 0;
  for (int id = 0; id < 20000; ++id) {
    if (!alive.empty() && draw() % 2 == 0) {
      const std::size_t i = draw() % alive.size();
      pool.give_back(alive[i].first);
      alive.erase(alive.begin() + static_cast<std::ptrdiff_t>(i));
    }
    const int n = 1 + static_cast<int>(draw() % 150);
    const bool fits = n <= pool.n_free();
    auto first = pool.take(n);
    if (!first && fits) {
      ++n_compactions;
      for (const ExtentPool::Move& move : pool.compact()) {
        ASSERT_LT(move.to, move.from);
        std::copy_n(memory.begin() + move.from, move.n, memory.begin() + move.to);  // forwards
        std::find_if(alive.begin(), alive.end(), [&](const Extent& e) {
          return e.first == move.from && memory[static_cast<std::size_t>(move.to)] == e.id;
        })->first = move.to;
      }
      first = pool.take(n);
    }
    ASSERT_EQ(first.has_value(), fits) << n << " of " << pool.n_free();
    if (first) {
      std::fill_n(memory.begin() + *first, n, id);
      alive.push_back({*first, n, id});
    }
    int sum = 0;
    for (const Extent& e : alive) {
      sum += e.n;
      for (int t = e.first; t < e.first + e.n; ++t)
        ASSERT_EQ(memory[static_cast<std::size_t>(t)], e.id);
    }
    ASSERT_EQ(sum + pool.n_free(), kTokens);
  }
  EXPECT_GT(n_compactions, 100);
}

}  // namespace
}  // namespace assay::engine
