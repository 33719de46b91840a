#include "engine/backend/memory_plan.h"

#include <gmock/gmock.h>

namespace assay::engine {
namespace {

constexpr std::size_t kGiB = std::size_t{1} << 30;

// A context of 1000 tokens is 1024, and 64 KiB a token: 64 MiB.
MemoryPlan asked(int n_executors) {
  return {.limits = {.n_rows = 576, .n_sequences = 64, .n_positions = 1000},
          .weight_bytes = 3 * kGiB,
          .scratch_bytes = kGiB / 4,
          .n_executors = n_executors};
}
constexpr std::size_t kTokenBytes = 65536;

Result<MemoryPlan> fitted(int n_executors, std::size_t free) {
  return fit(asked(n_executors), 16, kTokenBytes, 256, {"GPU X", free, 80 * kGiB});
}

TEST(MemoryPlan, ALargeDeviceGivesEveryEngineAllPlannedContexts) {
  const auto plan = fitted(2, 40 * kGiB);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->limits.cache_tokens, 16 * 1024);
  EXPECT_EQ(plan->cache_bytes, kGiB);
  EXPECT_EQ(plan->text(),
            "weights 3.0 GiB, and each of 2 engines: scratch 256.0 MiB, caches 1.0 GiB (16384 "
            "tokens)");
}

TEST(MemoryPlan, WeightsThatLeaveLessThanATenthAreTooLargeForALargerLayout) {
  EXPECT_TRUE(leave_a_tenth(90 * kGiB, 100 * kGiB));
  EXPECT_FALSE(leave_a_tenth(90 * kGiB + 1, 100 * kGiB));
}

TEST(MemoryPlan, OnASmallerOneCachesLeaveHalfOfWhatIsFree) {
  const auto plan = fitted(1, kGiB);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->limits.cache_tokens, 4096) << "512 MiB less 256 MiB of scratch";
  EXPECT_EQ(plan->text(), "weights 3.0 GiB, scratch 256.0 MiB, caches 256.0 MiB (4096 tokens)");
}

TEST(MemoryPlan, ButEveryEngineHasRoomForAContext) {
  const auto plan = fitted(2, kGiB);  // 256 + 2 * (64 + 256 + 64) MiB is all of it
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->limits.cache_tokens, 1024);
}

TEST(MemoryPlan, GraphsOfEveryEngineHaveTheirMemory) {
  MemoryPlan plan = asked(2);
  plan.limits.graph_bytes = kGiB / 8;
  const auto with = [&](std::size_t free) {
    return fit(plan, 16, kTokenBytes, 256, {"GPU X", free, 80 * kGiB});
  };
  EXPECT_FALSE(with(kGiB + kGiB / 8 - 1)) << "twice 64 MiB more than by default";
  const auto fits = with(kGiB + kGiB / 8);
  ASSERT_TRUE(fits) << fits.error().message;
  EXPECT_EQ(fits->executor_bytes(), kGiB / 8 + fits->scratch_bytes + fits->cache_bytes);
}

TEST(MemoryPlan, WhatDoesNotFitSaysWhatIsThereAndWhatToDo) {
  const auto plan = fitted(2, kGiB - 1);
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().message,
            "the memory of GPU X does not suffice: beside the weights (3.0 GiB, which are there) 2 "
            "engines need 256.0 MiB of scratch and 64.0 MiB of cache (one context of 1000 tokens) "
            "each, with a margin for the driver 1.0 GiB together, but 1024.0 MiB of 80.0 GiB are "
            "free: ask for a shorter --context, fewer --threads, a smaller --prefill-chunk or more "
            "GPUs (--tp), or use a larger or an emptier GPU");
}

// What moe_cuda and project_cuda check: n_tokens · top_k < 65536, and n_tokens < 65536.
TEST(MemoryPlan, AChunkOfMoreRowsThanAGridHoldsNamesTheLargest) {
  EXPECT_TRUE(check_chunk(512, 64, 8));
  EXPECT_TRUE(check_chunk(8127, 64, 8)) << "8 * (8127 + 64) is 65528";
  const auto of_experts = check_chunk(8128, 64, 8);
  ASSERT_FALSE(of_experts);
  EXPECT_EQ(of_experts.error().message,
            "prompts are to be read 8128 tokens at a time, backend cuda takes at most 8127 of a "
            "model with 8 experts a token: ask for --prefill-chunk 8127 or less");
  EXPECT_TRUE(check_chunk(65471, 64, 1));
  const auto dense = check_chunk(65472, 64, 1);
  ASSERT_FALSE(dense);
  EXPECT_THAT(dense.error().message, testing::HasSubstr("at most 65471: ask"));
}

TEST(MemoryPlan, WhatIsPromisedToOtherModelsIsNotFree) {
  const auto beside = [](std::size_t free, std::size_t promised) {
    return fit(asked(1), 16, kTokenBytes, 256, {"GPU X", free, 80 * kGiB, promised});
  };
  const auto plan = beside(3 * kGiB, 2 * kGiB), alone = fitted(1, kGiB);
  ASSERT_TRUE(plan && alone);
  EXPECT_EQ(plan->limits.cache_tokens, alone->limits.cache_tokens);
  for (const auto& refused : {beside(3 * kGiB, 3 * kGiB - 1), beside(kGiB, 2 * kGiB)}) {
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("planned for engines of other models here"),
              std::string::npos)
        << refused.error().message;
  }
}

TEST(MemoryPlan, WhereRanksGatherTheirSumsIsPlannedOnceForAllEngines) {
  EXPECT_EQ(bytes_of_sums(1, asked(1).limits, 6144), 0u);
  EXPECT_EQ(bytes_of_sums(4, asked(1).limits, 6144), std::size_t{4} * 576 * 6144 * 4);
  MemoryPlan of_rank = asked(2);
  of_rank.sum_bytes = kGiB / 8;
  const auto with = [&](std::size_t free) {
    return fit(of_rank, 16, kTokenBytes, 256, {"GPU X", free, 80 * kGiB});
  };
  EXPECT_TRUE(with(kGiB + kGiB / 8));
  const auto refused = with(kGiB + kGiB / 8 - 1);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("each and 128.0 MiB to gather sums, with"),
            std::string::npos)
      << refused.error().message;
  const auto larger = with(2 * kGiB + kGiB / 8), alone = fitted(2, 2 * kGiB);
  ASSERT_TRUE(larger && alone);
  EXPECT_EQ(larger->limits.cache_tokens, alone->limits.cache_tokens);
}

TEST(MemoryPlan, WeightsLeaveTheDriverItsMargin) {
  const DeviceRoom device{"GPU X", 4 * kGiB, 80 * kGiB, kGiB};
  EXPECT_TRUE(fit_weights(3 * kGiB - kGiB / 4, device));
  const auto refused = fit_weights(3 * kGiB - kGiB / 4 + 1, device);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message,
            "the weights need 2.8 GiB on the GPU, with a margin for the driver 3.0 GiB, but of GPU "
            "X 4.0 GiB of 80.0 GiB are free, 1.0 GiB of them planned for engines of other models "
            "here: use a larger or an emptier one, or more of them (--tp)");
}

TEST(MemoryPlan, WhatAnotherProcessHasTakenSinceIsNamed) {
  EXPECT_EQ(gone(3 * kGiB, {"GPU X", kGiB, 80 * kGiB}).value().message,
            "an engine needs 3.0 GiB of the memory of GPU X, as it was planned, but now 1.0 GiB of "
            "80.0 GiB are free: another process has taken some of it since, or more engines are in "
            "use than were planned. Wait for it or stop it, and begin again; or ask for a shorter "
            "--context, fewer --threads or an emptier GPU");
}

TEST(MemoryPlan, WhatCannotBePinnedIsNamedWithWhatToChange) {
  EXPECT_EQ(no_pinned_memory(std::size_t{16} << 20).value().message,
            "the driver could not pin 16.0 MiB of this machine's memory, which copies to and from "
            "the GPU go through: free host memory, or raise the limit of the container or job "
            "(memory, locked memory: ulimit -l), and begin again");
}

TEST(MemoryPlan, AHostPlansNothing) {
  EXPECT_FALSE(MemoryPlan().is_planned());
  EXPECT_EQ(MemoryPlan().limits.cache_tokens, kUnlimited);
  EXPECT_EQ(CacheRoom().taken_by(1000), 1000);
  EXPECT_EQ((CacheRoom{4096, 4096, 256}).taken_by(257), 512);
}

}  // namespace
}  // namespace assay::engine
