#include "harness/throughput_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/cli/tiny_model.h"
#include "harness/test_support.h"

namespace assay::harness {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class ThroughputRun : public testing::Test {
 protected:
  ThroughputRun() : engine_(load()) {}

  engine::Engine load() {
    make_tiny_model(folder_.path() / "model");
    auto engine = engine::Engine::load(folder_.path() / "model", {.n_threads = 1});
    CHECK(engine.has_value());
    return *std::move(engine);
  }

  TemporaryFolder folder_;
  engine::Engine engine_;
};

TEST_F(ThroughputRun, EveryTokenIsCountedOnce) {
  const ThroughputSettings settings = {
      .depths = {0, 20}, .batches = {1, 3}, .n_decode = 4, .prefill = {5}, .repetitions = 3};
  std::vector<int> done;
  const auto result =
      run_throughput(engine_, settings, 1, {.on_progress = [&](int n_done, int n_total) {
                       EXPECT_EQ(n_total, 3 * (4 + 1)) << "repetitions · (decode and prefill rows)";
                       done.push_back(n_done);
                     }});
  ASSERT_TRUE(result) << result.error().message;
  ASSERT_TRUE(*result);
  EXPECT_EQ(done.size(), 15u);
  EXPECT_EQ(done.back(), 15);
  ASSERT_EQ((*result)->decode.size(), 4u);
  const Json json = to_json(**result);
  for (const Json& row : json["decode"]) {
    const int batch = row["batch"];
    EXPECT_EQ(row["reason"], "");
    EXPECT_EQ(row["n_tokens"], 3 * batch * 4);
    EXPECT_EQ(row["itl_ms"]["n"], 3 * batch * (4 - 1));
    EXPECT_EQ(row["itl_ms"]["n_steps"], 3 * (4 - 1));
    ASSERT_EQ(row["intervals_us"].size(), 3u);
    for (const Json& intervals : row["intervals_us"]) EXPECT_EQ(intervals.size(), 3u);
    EXPECT_GT(row["tokens_per_s"]["lo"].get<double>(), 0);
    EXPECT_LE(row["tokens_per_s"]["lo"], row["tokens_per_s"]["median"]);
  }
  ASSERT_EQ(json["prefill"].size(), 1u);
  EXPECT_EQ(json["prefill"][0]["ttft_ms"]["n"], 3);
  EXPECT_EQ(json["engine"]["n_threads"], 1);
  EXPECT_EQ(json["engine"]["backend"], "cpu");
  EXPECT_NE(json["engine"]["kernel"], "");
}

TEST_F(ThroughputRun, WhatTheModelCannotHoldHasAReasonAndTheRestIsMeasured) {
  const ThroughputSettings settings = {.depths = {508, 509, 16384},  // it has 512 positions
                                       .batches = {1},
                                       .n_decode = 4,
                                       .prefill = {511, 512},
                                       .repetitions = 1};
  const auto result = run_throughput(engine_, settings, 1);
  ASSERT_TRUE(result) << result.error().message;
  const ThroughputResult& r = **result;
  EXPECT_EQ(r.decode[0].reason, "");
  EXPECT_EQ(r.decode[0].repetitions.size(), 1u);
  for (const std::size_t i : {1u, 2u}) {
    EXPECT_THAT(r.decode[i].reason, AllOf(HasSubstr("do not fit"), HasSubstr("512 positions")));
    EXPECT_TRUE(r.decode[i].repetitions.empty());
  }
  EXPECT_EQ(r.prefill[0].ttft_s.size(), 1u);
  EXPECT_THAT(r.prefill[1].reason, HasSubstr("512 positions"));
  EXPECT_TRUE(r.prefill[1].ttft_s.empty());
}

TEST(ThroughputRows, TheDeepestContextsAreLeftOutWhereTheCachesAreSmall) {
  const ThroughputSettings settings = {.depths = {4096, 0, 16384},
                                       .batches = {4, 1},
                                       .n_decode = 128,
                                       .prefill = {512, 16384},
                                       .repetitions = 1};
  const auto reasons = [&](int room) {
    std::vector<std::string> out;
    const ThroughputResult r = rows_to_clock(settings, 32768, {room, room, 256});
    for (const DecodeRow& row : r.decode) out.push_back(row.reason);
    for (const PrefillRow& row : r.prefill) out.push_back(row.reason);
    return out;
  };
  // Contexts of 256 + 4096 + 16384 tokens, and four sequences of 16512, in pages of 256: 16640.
  EXPECT_THAT(reasons(20736 + 4 * 16640), testing::Each(""));
  EXPECT_THAT(reasons(20736 + 4 * 16640 - 1),
              ElementsAre("", "", "", "", HasSubstr("needs 87296 tokens of cache"), "", "", ""));
  // Without the deepest context: four sequences of 4224 tokens (4352), or one prompt of 16384.
  const int two = 256 + 4096;
  EXPECT_THAT(reasons(two + 4 * 4352), ElementsAre("", "", "", "", HasSubstr("room for 21760"),
                                                   HasSubstr("needs 37376"), "", ""));
  EXPECT_THAT(reasons(two + 4352),
              ElementsAre(HasSubstr("needs 21760"), "", "", "", HasSubstr("needs 87296"),
                          HasSubstr("needs 37376"), "", HasSubstr("needs 20736 tokens of cache")));
  EXPECT_THAT(reasons(256 + 256),
              ElementsAre(HasSubstr("needs"), HasSubstr("needs 8704"), HasSubstr("needs 1280"), "",
                          HasSubstr("needs"), HasSubstr("needs"), HasSubstr("needs 768"),
                          HasSubstr("needs 16640")));
}

TEST(ThroughputRows, ADepthBeyondThePositionsTakesNoRoomFromOthers) {
  const ThroughputSettings settings = {
      .depths = {0, 5000}, .batches = {1}, .n_decode = 128, .prefill = {}, .repetitions = 1};
  const ThroughputResult r = rows_to_clock(settings, 4096, {512, 512, 256});
  EXPECT_EQ(r.decode[0].reason, "");
  EXPECT_THAT(r.decode[1].reason, HasSubstr("4096 positions"));
}

TEST_F(ThroughputRun, StopsBetweenStepsAndThenKeepsNothing) {
  std::stop_source source;
  int n = 0;
  const auto result = run_throughput(
      engine_, {.depths = {0}, .batches = {1}, .n_decode = 2, .prefill = {}, .repetitions = 1000},
      1,
      {.on_progress =
           [&](int n_done, int) {
             n = n_done;
             if (n_done == 2) source.request_stop();
           },
       .stop = source.get_token()});
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_FALSE(*result);
  EXPECT_EQ(n, 2);
}

TEST_F(ThroughputRun, TwoEnginesTakeTurnsWithEqualWork) {
  const ThroughputSettings settings = {
      .depths = {0, 8}, .batches = {1}, .n_decode = 3, .prefill = {}, .repetitions = 4};
  int n_total = 0;
  const engine::Engine other = *engine_.share(1);
  const auto pair = run_throughput_in_turns(
      engine_, other, settings, 1, {.on_progress = [&](int, int total) { n_total = total; }});
  ASSERT_TRUE(pair) << pair.error().message;
  EXPECT_EQ(n_total, 2 * 2 * 4);
  for (const ThroughputResult* side : {&(*pair)->base, &(*pair)->candidate}) {
    ASSERT_EQ(side->decode.size(), 2u);
    for (const DecodeRow& row : side->decode) EXPECT_EQ(row.repetitions.size(), 4u);
  }
}

}  // namespace
}  // namespace assay::harness
