// What is sent to a rank in another process arrives as it was.
#include "engine/backend/rank_command.h"

#include <gtest/gtest.h>

#include <tuple>

namespace assay::engine {
namespace {

TEST(RankCommand, EveryFieldSurvivesTheWay) {
  const Command sent = {.kind = Command::Kind::kFork,
                        .group = 1,
                        .id = 2,
                        .of = 3,
                        .n = 4,
                        .needs = {.n_executors = 13, .n_positions = 14},
                        .limits = {.n_rows = 15, .cache_tokens = 16},
                        .backend = "cpu",
                        .source = {"avx2", "/model", "0123", "/cache"},
                        .may_replay = true,
                        .may_record = false,
                        .tokens = {5, 6},
                        .segments = {{7, 8, 9, 10}},
                        .residual = {0.5f, -0.0f},
                        .logit_rows = {11},
                        .sampled_rows = {17, 18},
                        .operations = {{.kind = Operation::Kind::kProject,
                                        .layer = 12,
                                        .norm = Norm::kFinal,
                                        .projection = Projection::kOutput,
                                        .in = Act::kQuery,
                                        .out = Act::kFinal,
                                        .sparse = true,
                                        .of_rows = true}}};
  const auto got = from_bytes<Command>(to_bytes(sent));
  EXPECT_EQ(got.kind, sent.kind);
  EXPECT_EQ(std::tie(got.group, got.id, got.of, got.n),
            std::tie(sent.group, sent.id, sent.of, sent.n));
  EXPECT_EQ(got.needs.n_executors, 13);
  EXPECT_EQ(got.needs.n_positions, 14);
  EXPECT_EQ(got.limits.n_rows, 15);
  EXPECT_EQ(got.limits.cache_tokens, 16);
  EXPECT_EQ(got.backend, "cpu");
  EXPECT_EQ(
      std::tie(got.source.kernel, got.source.dir, got.source.fingerprint, got.source.cache_dir),
      std::tie(sent.source.kernel, sent.source.dir, sent.source.fingerprint,
               sent.source.cache_dir));
  EXPECT_TRUE(got.may_replay);
  EXPECT_FALSE(got.may_record);
  EXPECT_EQ(got.tokens, sent.tokens);
  ASSERT_EQ(got.segments.size(), 1u);
  EXPECT_EQ(got.segments[0].cache, 7);
  EXPECT_EQ(got.segments[0].first_position, 10);
  EXPECT_EQ(got.residual, sent.residual);
  EXPECT_EQ(got.logit_rows, sent.logit_rows);
  EXPECT_EQ(got.sampled_rows, sent.sampled_rows);
  ASSERT_EQ(got.operations.size(), 1u);
  const Operation& o = got.operations[0];
  EXPECT_EQ(o.kind, Operation::Kind::kProject);
  EXPECT_EQ(o.layer, 12);
  EXPECT_EQ(o.norm, Norm::kFinal);
  EXPECT_EQ(o.projection, Projection::kOutput);
  EXPECT_EQ(o.in, Act::kQuery);
  EXPECT_EQ(o.out, Act::kFinal);
  EXPECT_TRUE(o.sparse && o.of_rows);
}

TEST(RankCommand, ARepliesErrorAndValuesSurvive) {
  Reply sent;
  sent.error = "no memory";
  sent.kernel = "avx512";
  sent.n_bytes = std::int64_t{1} << 40;
  sent.samples_on_device = true;
  sent.plan = {.limits = {.cache_tokens = 4}, .weight_bytes = 5, .scratch_bytes = 6};
  sent.roof = {.read_bytes_per_s = 4e12, .half_fma_per_s = 5e14, .token = {.per_key = 12}};
  sent.room = {7, 8, 9};
  sent.steps = {.n_direct = 10, .n_replayed = 11};
  sent.values = {1.0f, 2.0f, 3.0f};
  const auto got = from_bytes<Reply>(to_bytes(sent));
  EXPECT_EQ(got.error, sent.error);
  EXPECT_EQ(got.kernel, sent.kernel);
  EXPECT_EQ(got.n_bytes, sent.n_bytes);
  EXPECT_TRUE(got.samples_on_device);
  EXPECT_EQ(got.plan.limits.cache_tokens, 4);
  EXPECT_EQ(got.plan.weight_bytes, 5u);
  EXPECT_EQ(got.plan.scratch_bytes, 6u);
  EXPECT_EQ(got.roof.read_bytes_per_s, 4e12);
  EXPECT_EQ(got.roof.half_fma_per_s, 5e14);
  EXPECT_EQ(got.roof.token.per_key, 12);
  EXPECT_EQ(got.room.n_free, 8);
  EXPECT_EQ(got.room.grain, 9);
  EXPECT_EQ(got.steps.n_direct, 10);
  EXPECT_EQ(got.steps.n_replayed, 11);
  EXPECT_EQ(got.values, sent.values);
}

TEST(RankCommandDeathTest, BytesThatAreNoCommandsAreOurOwnBug) {
  auto bytes = to_bytes(Command{});
  bytes.pop_back();
  EXPECT_DEATH(from_bytes<Command>(bytes), "");
}

}  // namespace
}  // namespace assay::engine
