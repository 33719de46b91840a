#include "harness/throughput.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/schema_check.h"
#include "harness/suite.h"
#include "harness/test_support.h"
#include "harness/throughput_table.h"

namespace assay::harness {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

const Json kSuite = {
    {"format", 1},
    {"name", "speed"},
    {"version", 2},
    {"title", "Speed"},
    {"measure", "throughput"},
    {"depths", {0, 64}},
    {"batches", {1, 2}},
    {"n_decode", 8},
    {"prefill", {16}},
    {"repetitions", 3},
    {"profiles", {{"quick", {{"depths", {0}}, {"repetitions", 1}}}, {"full", Json::object()}}}};

std::string error_with(std::string_view pointer, const Json& value) {
  Json json = kSuite;
  json[Json::json_pointer(std::string(pointer))] = value;
  const auto suite = parse_throughput_suite(json.dump(), "suite.json");
  return suite ? "no error" : suite.error().message;
}

TEST(ThroughputSuite, AProfileChangesWhatItNamesAndKeepsTheRest) {
  const auto suite = parse_throughput_suite(kSuite.dump(), "suite.json");
  ASSERT_TRUE(suite) << suite.error().message;
  EXPECT_EQ(suite->head.name, "speed");
  EXPECT_EQ(suite->head.version, 2);
  ASSERT_EQ(suite->profiles.size(), 2u);
  const ThroughputSettings& quick = suite->profiles.at(Profile::kQuick);
  EXPECT_THAT(quick.depths, ElementsAre(0));
  EXPECT_THAT(quick.batches, ElementsAre(1, 2));
  EXPECT_EQ(quick.n_decode, 8);
  EXPECT_EQ(quick.repetitions, 1);
  EXPECT_THAT(suite->profiles.at(Profile::kFull).depths, ElementsAre(0, 64));
}

TEST(ThroughputSuite, EveryMistakeIsNamedWithWhatWasExpected) {
  EXPECT_THAT(error_with("/batchs", 1),
              AllOf(HasSubstr("suite.json: unknown key 'batchs'"), HasSubstr("'batches'")));
  EXPECT_THAT(error_with("/profiles/quick/n_decod", 4),
              AllOf(HasSubstr("suite.json: profiles.quick: unknown key 'n_decod'"),
                    HasSubstr("'n_decode'")));
  EXPECT_THAT(error_with("/depths", {0, -1}),
              AllOf(HasSubstr("'depths'"), HasSubstr("from 0 to"), HasSubstr("[0,-1]")));
  EXPECT_THAT(error_with("/depths", {0, 2.5}), HasSubstr("[0,2.5]"));
  EXPECT_THAT(error_with("/batches", {0}), AllOf(HasSubstr("'batches'"), HasSubstr("from 1 to")));
  EXPECT_THAT(error_with("/batches", {2, 2}), HasSubstr("lists 2 twice"));
  EXPECT_THAT(error_with("/prefill", 512), AllOf(HasSubstr("'prefill'"), HasSubstr("got 512")));
  EXPECT_THAT(error_with("/n_decode", 1), AllOf(HasSubstr("from 2 to"), HasSubstr("got 1")));
  EXPECT_THAT(error_with("/repetitions", 0), HasSubstr("'repetitions'"));
  EXPECT_THAT(error_with("/profiles/quick/repetitions", "9"),
              AllOf(HasSubstr("profiles.quick"), HasSubstr("\"9\"")));
  EXPECT_THAT(error_with("/profiles", {{"quikc", Json::object()}}),
              AllOf(HasSubstr("'quikc'"), HasSubstr("'quick'")));
  EXPECT_THAT(error_with("/profiles", Json::object()), HasSubstr("'profiles' must be an object"));
  EXPECT_THAT(error_with("/measure", "troughput"), HasSubstr("got \"troughput\""));
  EXPECT_THAT(error_with("/name", "Speed!"), HasSubstr("got 'Speed!'"));
  EXPECT_THAT(error_with("/profiles/quick/batches", Json::array()),
              AllOf(HasSubstr("profiles.quick"), HasSubstr("both or neither")));
  Json missing = kSuite;
  missing.erase("n_decode");
  EXPECT_THAT(parse_throughput_suite(missing.dump(), "suite.json").error().message,
              HasSubstr("missing key 'n_decode'"));
}

TEST(ThroughputSuite, WithNothingToMeasureIsRefused) {
  Json json = kSuite;
  json["depths"] = json["batches"] = json["prefill"] = Json::array();
  EXPECT_THAT(parse_throughput_suite(json.dump(), "suite.json").error().message,
              HasSubstr("nothing to measure"));
  json["prefill"] = {16};
  json["profiles"] = {{"full", Json::object()}};
  EXPECT_TRUE(parse_throughput_suite(json.dump(), "suite.json")) << "prefill alone is a suite";
}

TEST(Percentiles, AreValuesThatOccurred) {
  const Percentiles p = percentiles(std::vector<double>{5, 1, 4, 2, 3});
  EXPECT_EQ(p.n, 5);
  EXPECT_EQ(p.p50, 3);
  EXPECT_EQ(p.p90, 5) << "the 4.5th of five is the fifth";
  EXPECT_EQ(p.p99, 5);
  EXPECT_EQ(p.max, 5);
  EXPECT_EQ(percentiles({}).n, 0);
}

// Three tokens of each of two sequences: two intervals of 10 and 30 ms, then of 20 and 20.
DecodeRow small_row() {
  return {.depth = 64,
          .batch = 2,
          .n_decode = 3,
          .reason = "",
          .repetitions = {{{0.010, 0.030}}, {{0.020, 0.020}}}};
}

TEST(Throughput, TokensPerSecondCountTheTokensWhoseTimeWasTaken) {
  const DecodeRow row = small_row();
  EXPECT_DOUBLE_EQ(decode_per_s(row, row.repetitions[0]), 100) << "2 · 2 tokens in 40 ms";
}

TEST(Throughput, InterTokenLatencyHasAnIntervalOfEverySequence) {
  const Percentiles p = inter_token_latency(small_row());
  EXPECT_EQ(p.n, 8) << "batch · (n_decode − 1) · repetitions";
  EXPECT_EQ(p.p50, 0.020);
  EXPECT_EQ(p.p90, 0.030);
  EXPECT_EQ(p.max, 0.030);
}

ThroughputResult small_result() {
  ThroughputResult r;
  r.engine = {{"model", "m1"},        {"tokenizer", "t1"},   {"backend", "cpu"},
              {"kernel", "avx2"},     {"n_threads", 2},      {"attention", "sparse"},
              {"prefill_chunk", 512}, {"active_bytes", 1000}};
  r.settings = {{64, 9999}, {2}, 3, {16}, 2};
  r.decode = {
      small_row(),
      {.depth = 9999, .batch = 2, .n_decode = 3, .reason = "does not fit", .repetitions = {}}};
  r.prefill = {{.n_prompt = 16, .reason = "", .ttft_s = {0.5, 0.25}}};
  return r;
}

TEST(Throughput, TheRecordKeepsEveryRepetitionAndSaysHowSureItIs) {
  const Json json = to_json(small_result());
  const Json& row = json["decode"][0];
  EXPECT_EQ(row["n_tokens"], 12) << "3 tokens of 2 sequences, twice";
  EXPECT_EQ(row["intervals_us"], Json({{10000.0, 30000.0}, {20000.0, 20000.0}}));
  EXPECT_EQ(row["tokens_per_s"]["n"], 2);
  EXPECT_NEAR(row["tokens_per_s"]["median"].get<double>(), 100, 1e-9);
  EXPECT_EQ(row["tokens_per_s"]["coverage"], 0.5) << "of the range of two values";
  EXPECT_EQ(row["itl_ms"]["n"], 8);
  EXPECT_EQ(row["itl_ms"]["n_steps"], 4) << "sequences of a batch share a step";
  EXPECT_EQ(json["prefill"][0]["ttft_ms"]["p50"], 250);
  EXPECT_EQ(json["prefill"][0]["ttft_ms"]["max"], 500);
  EXPECT_EQ(json["prefill"][0]["tokens_per_s"]["values"], Json({32.0, 64.0}));
  EXPECT_EQ(json["prefill"][0]["tokens_per_s"]["median"], 48);
  EXPECT_NEAR(json["prefill"][0]["tokens_per_s"]["mad"].get<double>(), 1.4826 * 16, 1e-9);
}

TEST(Throughput, ARowThatWasNotMeasuredHasAReasonAndNoFigure) {
  const Json row = to_json(small_result())["decode"][1];
  EXPECT_EQ(row["reason"], "does not fit");
  EXPECT_TRUE(row["tokens_per_s"].is_null());
  EXPECT_TRUE(row["itl_ms"].is_null());
  EXPECT_EQ(row["n_tokens"], 0);
}

TEST(Throughput, TheRecordFitsTheSchema) {
  Json schema = *read_json(fs::path(ASSAY_SOURCE_DIR) / "reports/run.schema.json");
  const Json all = {{"measurements", schema["properties"]["measurements"]}};
  schema["properties"] = all;
  for (const char* key : {"required", "if"}) schema.erase(key);
  const Measurement measured = {.suite = {"speed", "Speed", "", "throughput", 2, "abc"},
                                .reason = "",
                                .result = to_json(small_result(), useful_rate({})),
                                .wall_s = 1.5};
  Measurement not_run = measured;
  not_run.reason = "needs a model";
  const Json run = {{"measurements", Json::array({to_json(measured), to_json(not_run)})}};
  EXPECT_THAT(SchemaCheck(schema).problems(run), IsEmpty());
}

TEST(Throughput, TheTableShowsSpreadAndReason) {
  const std::string text = render_throughput(to_json(small_result()), false);
  EXPECT_THAT(text, AllOf(HasSubstr("cpu avx2, 2 threads, sparse attention"),
                          HasSubstr("[100, 100]"), HasSubstr("not measured: does not fit"),
                          Not(HasSubstr("9,999")), HasSubstr("TTFT"),
                          HasSubstr("[ ] holds the median with 50.0 %"), Not(HasSubstr("useful"))));
}

TEST(Throughput, OneRepetitionHasNoSpread) {
  ThroughputResult one = small_result();
  for (DecodeRow& row : one.decode)
    if (!row.repetitions.empty()) row.repetitions.resize(1);
  for (PrefillRow& row : one.prefill)
    if (!row.ttft_s.empty()) row.ttft_s.resize(1);
  const Json json = to_json(one);
  EXPECT_TRUE(json["decode"][0]["tokens_per_s"]["mad"].is_null());
  EXPECT_THAT(render_throughput(json, false),
              AllOf(HasSubstr("1 repetition of each row, which has no spread"), Not(HasSubstr("±")),
                    Not(HasSubstr("[100, 100]"))));
}

Sample reply(int n_tokens, double decode_s, Termination termination) {
  Sample s = made_sample("a", "a", "en", Correctness::kWrong);
  s.ids.assign(static_cast<std::size_t>(n_tokens), 7);
  s.decode_s = decode_s;
  s.outcome.termination = termination;
  return s;
}

TEST(UsefulRate, CountsTokensOfRepliesThatEndedInAnAnswerRightOrWrong) {
  const UsefulRate u = useful_rate(std::vector<Sample>{
      reply(11, 1, Termination::kClosed), reply(31, 3, Termination::kNoClose),
      reply(0, 0, Termination::kError), reply(8, 1, Termination::kTruncatedAnswer)});
  EXPECT_EQ(u.n_replies, 3) << "what was never asked is no reply";
  EXPECT_EQ(u.n_answered, 1);
  EXPECT_EQ(u.n_tokens, 50);
  EXPECT_EQ(u.n_useful_tokens, 11);
  EXPECT_DOUBLE_EQ(*u.share, 0.22);
  EXPECT_DOUBLE_EQ(u.decode_s, 5);
  EXPECT_DOUBLE_EQ(*u.tokens_per_s, 47 / 5.0)
      << "the first token of each is not in its decode time";
  EXPECT_DOUBLE_EQ(*u.useful_tokens_per_s, 2);
  EXPECT_THAT(render_throughput(to_json(small_result(), u), false),
              AllOf(HasSubstr("22.0 % of 50 tokens"), HasSubstr("1 of 3 replies"),
                    HasSubstr("one reply's own rate, of which several may run at once: "
                              "2.00 useful tokens/s of 9.40")));
}

TEST(UsefulRate, WithoutATokenIsNotZeroButUnknown) {
  const UsefulRate u = useful_rate({});
  EXPECT_FALSE(u.share);
  EXPECT_FALSE(u.useful_tokens_per_s);
  EXPECT_TRUE(to_json(u)["share"].is_null());
}

}  // namespace
}  // namespace assay::harness
