// Sums over the ranks of GPUs, in one launch and of gathered parts: in order of rank, the same bits
// everywhere, launched and recorded.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <memory>

#include "engine/comm/rank_group.h"

namespace assay::engine {
namespace {

using kernels::CudaStreamOwner;
using kernels::DeviceArray;
using kernels::RecordedGraph;

class NcclCommTwoGpus : public testing::Test {
 protected:
  void SetUp() override {
    auto comms = new_nccl_comms(2);
    if (!comms)
      GTEST_SKIP() << comms.error().message << ". This test shows nothing here.";
    else
      group_ = std::make_unique<RankGroup>(*std::move(comms));
  }
  std::unique_ptr<RankGroup> group_;
};

// Nothing of a rank may end before its peer's: no ASSERT between their meetings.
void expect_equal(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_EQ(got[i], want[i]) << i << " of " << got.size();
}

// Nothing that is added twice or not at all, and no other rank's, has these bits.
std::vector<float> values_of(int rank, std::size_t n, int round) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i)
    values[i] = std::sin(static_cast<float>(i % 9973) + 0.37f * static_cast<float>(round)) *
                (rank == 0 ? 1.0f : 1e-3f);
  return values;
}

TEST_F(NcclCommTwoGpus, EveryRankHasTheSumInOrderOfRank) {
  // Pairs and what is none, rows of GLM-5.2, the most that go in one launch, and more.
  const std::vector<std::size_t> sizes = {1,     2,     510,   512,   514,       6144,
                                          12289, 18432, 98304, 98306, 512 * 6144};
  group_->run([&](Comm& comm) {
    std::printf("rank %d: %s\n", comm.rank(), std::string(comm.how_it_sums()).c_str());
    comm.reserve(sizes.back());
    comm.meet();
    const CudaStreamOwner stream;
    for (int round = 0; round < 9; ++round)
      for (const std::size_t n : sizes) {
        const DeviceArray<float> values(values_of(comm.rank(), n, round));
        comm.meet();  // nothing is allocated while a sum waits for its peer
        comm.sum(values.data(), n, stream.get());
        kernels::synchronise(stream.get());
        std::vector<float> want = values_of(0, n, round);
        const std::vector<float> other = values_of(1, n, round);
        for (std::size_t i = 0; i < n; ++i) want[i] += other[i];
        expect_equal(values.host(), want);
      }
  });
}

// Sums that follow each other at once, recorded, one into another's values; ranks that are late.
TEST_F(NcclCommTwoGpus, RecordedSumsFollowEachOther) {
  constexpr std::size_t kN = 6144;
  constexpr int kSums = 20, kReplays = 50;
  group_->run([&](Comm& comm) {
    comm.reserve(kN);
    const CudaStreamOwner stream;
    std::vector<float> first(kN);
    for (std::size_t i = 0; i < kN; ++i)
      first[i] = static_cast<float>(static_cast<int>(i) % 7 - 3 + comm.rank());
    const DeviceArray<float> values(first);
    const DeviceArray<float> start(first);
    comm.meet();
    RecordedGraph::begin(stream.get());
    kernels::copy_on_device(values.data(), start.data(), kN * sizeof(float), stream.get());
    for (int i = 0; i < kSums; ++i) comm.sum(values.data(), kN, stream.get());
    const auto graph = RecordedGraph::end(stream.get());
    EXPECT_TRUE(graph.has_value());
    if (!comm.agree(graph.has_value())) return;
    for (int i = 0; i < kReplays; ++i) {
      if (i % 10 == comm.rank()) kernels::synchronise(stream.get());
      graph->launch(stream.get());
    }
    kernels::synchronise(stream.get());
    std::vector<float> want(kN);
    for (std::size_t i = 0; i < kN; ++i)
      want[i] = std::ldexp(static_cast<float>(2 * (static_cast<int>(i) % 7 - 3) + 1), kSums - 1);
    expect_equal(values.host(), want);
  });
}

}  // namespace
}  // namespace assay::engine
