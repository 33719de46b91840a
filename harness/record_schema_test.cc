// run.json against its schema, and records of older formats: what was written once stays readable.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "harness/compare.h"
#include "harness/complete_run.h"
#include "harness/provenance.h"
#include "harness/record.h"
#include "harness/schema_check.h"
#include "harness/step_counts.h"
#include "harness/test_support.h"

namespace assay::harness {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Json schema() { return *read_json(fs::path(ASSAY_SOURCE_DIR) / "reports/run.schema.json"); }

Json head() {
  return {{"options", Json::object()},
          {"plan", small_plan().to_json()},
          {"identity", {{"model", "m"}}},
          {"provenance", make_provenance("assay run", {{"kind", "fake"}})}};
}

TEST(RecordSchema, ARunThatGoesOnHasNoVerdictYet) {
  const TemporaryFolder folder;
  ASSERT_TRUE(RunRecord::create(folder.path() / "run", head()));
  Json run = *read_run_json(folder.path() / "run");
  EXPECT_EQ(run["status"], "running");
  SchemaCheck check(schema());
  EXPECT_THAT(check.problems(run), IsEmpty());
  run["samples"] = Json::object();
  EXPECT_THAT(check.problems(run), testing::Contains("$.samples: must not be there"));
  run.erase("samples");
  run["status"] = "complete";
  EXPECT_THAT(check.problems(run), ElementsAre("$: misses verdict", "$: misses metrics",
                                               "$: misses samples", "$: misses timings"));
}

TEST(RecordSchema, HowStepsRanMayStandThere) {
  Json run = complete_run(full_samples());
  SchemaCheck check(schema());
  const auto before = check.problems(run);
  run["timings"]["steps"] =
      to_json(engine::StepCounts{.n_direct = 3, .n_recorded = 1, .n_replayed = 40});
  EXPECT_EQ(check.problems(run), before);
  run["timings"]["steps"].erase("replayed");
  EXPECT_THAT(check.problems(run), testing::Contains(HasSubstr("misses replayed")));
}

TEST(RecordSchema, EveryObjectOfTheSchemaSaysWhetherItIsClosed) {
  const std::function<void(const Json&, const std::string&)> visit = [&](const Json& part,
                                                                         const std::string& at) {
    if (part.is_object() && part.contains("type")) {
      const bool is_object = part["type"] == "object" || part["type"] == Json({"object", "null"});
      EXPECT_TRUE(!is_object || part.contains("additionalProperties")) << at;
    }
    if (!part.is_structured()) return;
    for (const auto& [key, value] : part.items()) visit(value, at + "/" + key);
  };
  visit(schema(), "");
}

TEST(SchemaCheck, ReportsWhatTheSchemaDoesNotKnow) {
  SchemaCheck open(Json::parse(R"({"type": "object", "properties": {"a": {"const": 1}}})"));
  EXPECT_THAT(open.problems({{"a", 1}}), ElementsAre(HasSubstr("does not say whether more")));
  SchemaCheck closed(Json::parse(R"({"additionalProperties": false, "properties": {"a": {}}})"));
  EXPECT_THAT(closed.problems({{"b", 1}}), ElementsAre("$: has the unknown key b"));
  SchemaCheck unknown(Json::parse(R"({"additionalProperties": true, "pattern": "x"})"));
  EXPECT_THAT(unknown.problems(Json::object()), ElementsAre(HasSubstr("keyword pattern")));
  SchemaCheck either(Json::parse(R"({"additionalProperties": true,
      "if": {"properties": {"a": {"const": 1}}}, "then": {"required": ["b"]},
      "else": {"properties": {"b": false}}})"));
  EXPECT_THAT(either.problems({{"a", 1}}), ElementsAre("$: misses b"));
  EXPECT_THAT(either.problems({{"a", 2}, {"b", 2}}), ElementsAre("$.b: must not be there"));
  EXPECT_THAT(either.problems({{"a", 2}}), IsEmpty());
}

// A line as format 1 wrote it: no repeat, scoring, recipe, hash, language check or re-ask.
std::string format_1_line(const char* id, const char* answer, const char* correctness) {
  return fmt::format(
             R"({{"answer":"{1}","arm":"direct","cluster":"{0}","error":"","expected":"5",)"
             R"("extraction":{{"begin":0,"end":1,"rule":"last_number","value":"{1}"}},"finish":"stop",)"
             R"("gated":true,"id":"{0}","ids":[53,258],"kind":"add","language":"en",)"
             R"("n_stray_tags":0,"n_thinking_tokens":0,"outcome":{{"class":"{2}","correctness":"{2}",)"
             R"("degeneration":"none","loop_period":0,"loop_start":-1,"termination":"closed"}},)"
             R"("prompt":"2 + 3?","prompt_ids":[50,43,51],"question":"2 + 3?","suite":"sums",)"
             R"("thinking":"","timings":{{"decode_s":0.5,"prefill_s":0.25}}}})",
             id, answer, correctness) +
         "\n";
}

const char* const kFormat1Run = R"({"format": 1, "status": "complete", "options": {},
 "plan": {"profile": "quick", "languages": [], "arms": [], "limit": 0, "seed": 0, "n_items": 2,
  "suites": [{"name": "sums", "version": 1, "title": "Sums", "hash": "abc",
   "arms": [{"name": "direct", "enable_thinking": false, "max_tokens": 96, "max_thinking_tokens": 96}],
   "sampling": {"temperature": 0}}]},
 "identity": {"model": "m1"}, "provenance": {"command": "assay run sums", "started": "then"},
 "verdict": {"state": "pass", "exit_code": 0, "summary": "", "problems": [], "gates": []},
 "metrics": [], "samples": {"file": "samples.jsonl", "n": 2, "hash": "def"},
 "timings": {"wall_s": 1, "n_tokens": 4}})";

TEST(OldRecords, Format1IsReadAndComparedWithItsLike) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "run.json") << kFormat1Run;
  const auto run = read_run_json(folder.path());
  ASSERT_TRUE(run) << run.error().message;
  const auto before = parse_sample_lines(
      format_1_line("a", "5", "correct") + format_1_line("b", "5", "correct"), "before");
  const auto now = parse_sample_lines(
      format_1_line("a", "5", "correct") + format_1_line("b", "6", "wrong"), "now");
  ASSERT_TRUE(before) << before.error().message;
  ASSERT_TRUE(now) << now.error().message;
  const Sample& s = before->samples[1];
  EXPECT_EQ(s.key(), "sums/direct/b");
  EXPECT_EQ(s.scoring, Scoring::kNumber);
  EXPECT_EQ(s.n_prompt_tokens, 3);
  EXPECT_EQ(s.prompt_hash, "");
  EXPECT_TRUE(s.recipe.is_null());
  EXPECT_EQ(not_comparable(*run, *run, before->samples, now->samples), "");
  const Comparison compared = compare(before->samples, now->samples);
  ASSERT_EQ(compared.flips.size(), 1u);
  EXPECT_EQ(compared.flips[0].key, "sums/direct/b");
}

TEST(OldRecords, Format1AgainstARunOfTodayIsNotComparableAndSaysWhy) {
  const Json old = Json::parse(kFormat1Run);
  const Json today = {{"plan", small_plan(Profile::kQuick).to_json()}};
  EXPECT_THAT(not_comparable(old, today, {}, {}), HasSubstr("not asked suite sums alike"));
}

TEST(OldRecords, AFormatThatNobodyWroteIsRefused) {
  const TemporaryFolder folder;
  for (const char* format : {"0", "-1", "99", "\"1\"", "null"}) {
    std::ofstream(folder.path() / "run.json") << R"({"format": )" << format << "}";
    const auto run = read_run_json(folder.path());
    ASSERT_FALSE(run) << format;
    EXPECT_THAT(run.error().message,
                AllOf(HasSubstr("expected a run record of format 1 to"), HasSubstr(format)));
  }
}

// A line of format 2 as it was first written, steps.bin without likely tokens beside it.
TEST(OldRecords, Format2ComesBackAsItWasWritten) {
  const std::string line =
      R"({"answer":"5","arm":"direct","cluster":"c","error":"","expected":"5","extraction":null,)"
      R"("finish":"stop","forced_close":false,"gated":true,"id":"a","ids":[53,258],"kind":"k",)"
      R"("language":"ja","language_check":{"answer":"ja","reasoning_asked":"","right":true,)"
      R"("thinking":""},"n_hesitations":1,"n_prompt_tokens":1024,"n_stray_tags":0,)"
      R"("n_thinking_tokens":0,"outcome":{"class":"wrong","correctness":"wrong",)"
      R"("degeneration":"none","loop_period":0,"loop_start":-1,"termination":"closed"},)"
      R"("prompt":"","prompt_hash":"0123","prompt_ids":[],"question":"q","reached":false,)"
      R"("reask":{"answer":"6","correctness":"wrong","ids":[54]},"recipe":{"n_tokens":1024},)"
      R"("repeat":2,"scoring":"needle","suite":"needle","thinking":"",)"
      R"("timings":{"decode_s":0.5,"prefill_s":0.25}})";
  const auto lines = parse_sample_lines(line + "\n", "samples.jsonl");
  ASSERT_TRUE(lines) << lines.error().message;
  EXPECT_EQ(lines->samples[0].key(), "needle/direct/a#2");
  const Json back = to_json(lines->samples[0]), written = Json::parse(line);
  for (const auto& [key, value] : written.items()) EXPECT_EQ(back[key], value) << key;
}

}  // namespace
}  // namespace assay::harness
