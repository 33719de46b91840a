// Sums over the ranks of GPUs, in one launch and of gathered parts: in order of rank, the same bits
// everywhere, launched and recorded.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
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
    n_ranks_ = std::clamp(kernels::n_cuda_devices(), 2, 8);  // from three on order shows
    auto comms = new_nccl_comms(n_ranks_);
    if (kernels::n_cuda_devices() < 2)
      GTEST_SKIP() << comms.error().message << ". This test shows nothing here.";
    ASSERT_TRUE(comms.has_value()) << comms.error().message;
    group_ = std::make_unique<RankGroup>(*std::move(comms));
  }
  // Where GPUs do not reach each other, or NCCL is another release than the build's, what follows
  // says nothing of sums in one launch.
  void expect_one_launch() {
    bool is_one = true;
    group_->run([&](Comm& comm) {
      if (comm.rank() == 0) is_one = comm.how_it_sums().starts_with("sums in one launch");
    });
    EXPECT_TRUE(is_one) << "parts are gathered here: do the GPUs reach each other's memory "
                           "(nvidia-smi topo -p2p r), is NCCL the release that this was built for?";
  }
  int n_ranks_ = 0;
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
                (rank % 3 == 0   ? 1.0f
                 : rank % 3 == 1 ? -0.999f
                                 : 1e-3f);
  return values;
}
std::vector<float> sum_of_ranks(int n_ranks, std::size_t n, int round) {
  std::vector<float> sum = values_of(0, n, round);
  for (int r = 1; r < n_ranks; ++r) {
    const std::vector<float> other = values_of(r, n, round);
    for (std::size_t i = 0; i < n; ++i) sum[i] += other[i];
  }
  return sum;
}

TEST_F(NcclCommTwoGpus, EveryRankHasTheSumInOrderOfRank) {
  expect_one_launch();
  // Pairs and what is none, rows of GLM-5.2, the most that go in one launch, and more.
  const std::vector<std::size_t> sizes = {1,     2,     510,   512,   514,       6144,
                                          12289, 18432, 98304, 98306, 512 * 6144};
  group_->run([&](Comm& comm) {
    comm.reserve(sizes.back());
    comm.meet();
    const CudaStreamOwner stream;
    for (int round = 0; round < 9; ++round)
      for (const std::size_t n : sizes) {
        const DeviceArray<float> values(values_of(comm.rank(), n, round));
        comm.meet();  // nothing is allocated while a sum waits for its peer
        comm.sum(values.data(), n, stream.get());
        kernels::synchronise(stream.get());
        expect_equal(values.host(), sum_of_ranks(n_ranks_, n, round));
      }
  });
}

// Of different sizes, so that blocks have taken part in different numbers of sums, and gathered
// ones between them, without a stop.
TEST_F(NcclCommTwoGpus, RecordedSumsOfAnySizesFollowEachOther) {
  const std::vector<std::size_t> sizes = {6144, 98304, 2, 98306, 2, 512, 98304, 18432, 7, 6144};
  group_->run([&](Comm& comm) {
    comm.reserve(98306);
    const CudaStreamOwner stream;
    std::vector<DeviceArray<float>> start, values;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      start.emplace_back(values_of(comm.rank(), sizes[i], static_cast<int>(i)));
      values.emplace_back(sizes[i]);
    }
    comm.meet();
    RecordedGraph::begin(stream.get());
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      kernels::copy_on_device(values[i].data(), start[i].data(), sizes[i] * sizeof(float),
                              stream.get());
      comm.sum(values[i].data(), sizes[i], stream.get());
    }
    const auto graph = RecordedGraph::end(stream.get());
    EXPECT_TRUE(graph.has_value());
    if (!comm.agree(graph.has_value())) return;
    for (int i = 0; i < 20; ++i) graph->launch(stream.get());
    kernels::synchronise(stream.get());
    for (std::size_t i = 0; i < sizes.size(); ++i)
      expect_equal(values[i].host(), sum_of_ranks(n_ranks_, sizes[i], static_cast<int>(i)));
  });
}

// One into another's values; ranks that are late.
TEST_F(NcclCommTwoGpus, RecordedSumsFollowEachOther) {
  constexpr std::size_t kN = 6144;
  constexpr int kSums = 6, kReplays = 150;  // integers below 2^24
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
    for (std::size_t i = 0; i < kN; ++i) {
      float v = 0;
      for (int r = 0; r < n_ranks_; ++r) v += static_cast<float>(static_cast<int>(i) % 7 - 3 + r);
      for (int k = 1; k < kSums; ++k) v *= static_cast<float>(n_ranks_);
      want[i] = v;
    }
    expect_equal(values.host(), want);
  });
}

}  // namespace
}  // namespace assay::engine
