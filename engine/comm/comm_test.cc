// Sums over ranks on the CPU: in order of rank, the same bits everywhere, and one work at a time.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>

#include "base/check.h"
#include "engine/comm/rank_group.h"

namespace assay::engine {
namespace {

RankGroup group_of(int n) {
  auto comms = new_thread_comms(n);
  CHECK(comms.has_value());
  return RankGroup(*std::move(comms));
}

TEST(ThreadComm, EveryRankHasTheSumInOrderOfRank) {
  for (const int n_ranks : {1, 2, 3, 5}) {
    RankGroup group = group_of(n_ranks);
    ASSERT_EQ(group.size(), n_ranks);
    // 1, 2^-24, 2^-24 …: floats added in order stay 1, in any other order some do not.
    for (const std::size_t n : {std::size_t{1}, std::size_t{2}, std::size_t{1001}}) {
      std::vector<std::vector<float>> values(static_cast<std::size_t>(n_ranks));
      group.run([&](Comm& comm) {
        EXPECT_EQ(comm.size(), n_ranks);
        auto& own = values[static_cast<std::size_t>(comm.rank())];
        for (std::size_t i = 0; i < n; ++i)
          own.push_back(i % 2 == 0 ? static_cast<float>(i + static_cast<std::size_t>(comm.rank()))
                        : comm.rank() == 0 ? 1.0f
                                           : 0x1p-24f);
        comm.reserve(n);
        comm.meet();
        comm.sum(own.data(), n, nullptr);
      });
      for (const auto& of_rank : values)
        for (std::size_t i = 0; i < n; ++i)
          ASSERT_EQ(of_rank[i],
                    i % 2 == 0
                        ? static_cast<float>(i * static_cast<std::size_t>(n_ranks) +
                                             static_cast<std::size_t>(n_ranks * (n_ranks - 1) / 2))
                        : 1.0f)
              << i << " of " << n << ", " << n_ranks << " ranks";
    }
  }
}

// Parts of different widths, of several rows that lie anywhere.
TEST(ThreadComm, RankZeroHasTheRowsOfAllSideBySide) {
  for (const int n_ranks : {1, 2, 3, 5}) {
    RankGroup group = group_of(n_ranks);
    std::vector<int> cuts = {0};
    for (int r = 0; r < n_ranks; ++r) cuts.push_back(cuts.back() + 3 + r % 2);
    const auto width = static_cast<std::size_t>(cuts.back());
    for (const std::size_t n_rows : {std::size_t{1}, std::size_t{4}}) {
      std::vector<float> whole(n_rows * width, -1);
      group.run([&](Comm& comm) {
        std::vector<float> part;
        std::vector<const float*> rows;
        for (std::size_t i = 0; i < n_rows; ++i)
          for (int at = cuts[static_cast<std::size_t>(comm.rank())];
               at < cuts[static_cast<std::size_t>(comm.rank()) + 1]; ++at)
            part.push_back(static_cast<float>(i * width) + static_cast<float>(at));
        for (std::size_t i = 0; i < n_rows; ++i) rows.push_back(&part[i * part.size() / n_rows]);
        comm.gather(rows, cuts, comm.rank() == 0 ? whole.data() : nullptr, nullptr);
        std::ranges::fill(part, -2.0f);  // it has been taken
      });
      for (std::size_t i = 0; i < whole.size(); ++i)
        ASSERT_EQ(whole[i], static_cast<float>(i)) << n_ranks << " ranks, " << n_rows << " rows";
    }
  }
}

// Again and again: no rank's answer is another question's.
TEST(ThreadComm, RanksAgreeWhereAllSayYes) {
  for (const int n_ranks : {1, 2, 5}) {
    RankGroup group = group_of(n_ranks);
    std::atomic<int> n_wrong{0};
    group.run([&](Comm& comm) {
      for (int i = 0; i < 300; ++i) {
        const int who_says_no = i % (n_ranks + 1);  // n_ranks: nobody
        if (comm.agree(comm.rank() != who_says_no) != (who_says_no == n_ranks)) ++n_wrong;
      }
    });
    EXPECT_EQ(n_wrong, 0) << n_ranks << " ranks";
  }
}

TEST(RankGroup, WorksOneCallersWorkAtATime) {
  RankGroup group = group_of(2);
  std::atomic<int> n_inside{0}, n_mixed{0}, n_done{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        std::atomic<int> own{0};
        group.run([&](Comm& comm) {
          if (n_inside.fetch_add(1) >= comm.size()) ++n_mixed;
          comm.meet();
          ++own;
          comm.meet();
          if (own != comm.size()) ++n_mixed;
          --n_inside;
        });
        ++n_done;
      }
    });
  for (std::thread& t : callers) t.join();
  EXPECT_EQ(n_mixed, 0);
  EXPECT_EQ(n_done, 200);
}

TEST(RankGroup, ARankKeepsItsThread) {
  RankGroup group = group_of(3);
  std::vector<std::thread::id> first(3), again(3);
  group.run(
      [&](Comm& c) { first[static_cast<std::size_t>(c.rank())] = std::this_thread::get_id(); });
  group.run(
      [&](Comm& c) { again[static_cast<std::size_t>(c.rank())] = std::this_thread::get_id(); });
  EXPECT_EQ(first, again);
  EXPECT_NE(first[0], first[1]);
  EXPECT_NE(first[1], first[2]);
}

}  // namespace
}  // namespace assay::engine
