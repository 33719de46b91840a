#include "harness/runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "harness/provenance.h"
#include "harness/schema_check.h"
#include "harness/steps.h"
#include "harness/test_support.h"
#include "harness/verdict.h"

namespace assay::harness {
namespace {

using testing::HasSubstr;

Json head_of(const Plan& plan, const Target& target) {
  return {{"options", Json::object()},
          {"plan", plan.to_json()},
          {"identity", target.identity()},
          {"provenance", make_provenance("assay run sums", target.describe())}};
}

// Runs (or continues) and returns the complete run.json.
Json run_once(const fs::path& out, FakeTarget& target, bool resume = false) {
  const Plan plan = small_plan();
  auto record = resume ? RunRecord::resume(out, head_of(plan, target))
                       : RunRecord::create(out, head_of(plan, target));
  if (!record) throw std::runtime_error(record.error().message);
  const auto result = run_plan(plan, target, *record);
  if (!result) throw std::runtime_error(result.error().message);
  Json metrics = Json::array();
  for (const Group& g : summarise(result->samples)) metrics.push_back(to_json(g));
  return *record->finish(result->samples, to_json(judge(plan, result->samples)), metrics,
                         {{"wall_s", result->wall_s}, {"n_tokens", result->n_tokens}});
}

Json without_timings(Json run) {
  run.erase("timings");
  run.erase("provenance");
  return run;
}

TEST(Runner, ATargetThatCannotBeginIsAnErrorAndNoSample) {
  const TemporaryFolder folder;
  const Plan plan = small_plan();
  FakeTarget target(good_answer);
  target.out_of_order = "no memory is free";
  auto record = RunRecord::create(folder.path() / "run", head_of(plan, target));
  ASSERT_TRUE(record);
  const auto result = run_plan(plan, target, *record);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message, "no memory is free");
  EXPECT_TRUE(RunRecord::resume(folder.path() / "run", head_of(plan, target))->earlier().empty());
  const auto asked = ask(plan, plan.items, target);
  ASSERT_FALSE(asked);
  EXPECT_EQ(asked.error().message, "no memory is free");
}

TEST(Runner, EveryItemBecomesASampleInPlanOrder) {
  const TemporaryFolder folder;
  const Plan plan = small_plan();
  FakeTarget target(good_answer, 7);
  auto record = RunRecord::create(folder.path() / "run", head_of(plan, target));
  ASSERT_TRUE(record);
  const auto result = run_plan(plan, target, *record);
  ASSERT_TRUE(result) << result.error().message;
  ASSERT_EQ(result->samples.size(), plan.items.size());
  for (std::size_t i = 0; i < plan.items.size(); ++i)
    EXPECT_EQ(result->samples[i].key(), plan.key_of(plan.items[i]));
  const Sample& first = result->samples[0];
  EXPECT_EQ(first.question, "2たす3は？");
  EXPECT_EQ(first.thinking, "let me see");
  EXPECT_EQ(first.prompt_ids.back(), FakeTarget::kOpen);
  EXPECT_EQ(first.outcome.correctness, Correctness::kCorrect);
  EXPECT_EQ(result->samples.back().outcome.correctness, Correctness::kWrong);  // 6 × 7 = 43
}

TEST(Runner, AskedWithoutARecordItemsGiveTheSamplesOfARun) {
  const TemporaryFolder folder;
  const Plan plan = small_plan();
  FakeTarget target(good_answer, 7);
  auto record = RunRecord::create(folder.path() / "run", head_of(plan, target));
  ASSERT_TRUE(record);
  const auto run = run_plan(plan, target, *record);
  ASSERT_TRUE(run);
  const std::vector<PlanItem> chosen = {plan.items[2], plan.items[0]};
  const auto asked = ask(plan, chosen, target);
  ASSERT_TRUE(asked && *asked);
  ASSERT_EQ((*asked)->size(), 2u);
  EXPECT_EQ((**asked)[0].prompt, run->samples[2].prompt_ids);
  EXPECT_EQ(hash_of({(**asked)[0].sample, (**asked)[1].sample}),
            hash_of({run->samples[2], run->samples[0]}));
}

TEST(Runner, TheRecordDoesNotDependOnTheOrderOfReplies) {
  const TemporaryFolder folder;
  FakeTarget in_order(good_answer);
  const Json expected = without_timings(run_once(folder.path() / "0", in_order));
  for (unsigned seed = 1; seed <= 5; ++seed) {
    FakeTarget shuffled(good_answer, seed);
    EXPECT_EQ(without_timings(run_once(folder.path() / std::to_string(seed), shuffled)), expected);
  }
}

TEST(Runner, AFailedCaseIsRecordedNotDropped) {
  const TemporaryFolder folder;
  FakeTarget target([](const std::string& prompt, const Request& request) -> Result<Reply> {
    if (prompt == "What is 2 + 3?") return fail("the worker fell over");
    return good_answer(prompt, request);
  });
  const Json run = run_once(folder.path() / "run", target);
  EXPECT_EQ(run["samples"]["n"], 14);
  EXPECT_EQ(run["verdict"]["state"], "invalid");
  EXPECT_THAT(run["verdict"]["problems"][0].get<std::string>(), HasSubstr("the worker fell over"));
}

TEST(Runner, APromptBeyondTheContextIsRecordedAsAnError) {
  const TemporaryFolder folder;
  FakeTarget target(good_answer);
  target.context = 20;  // the long Chinese and English prompts do not fit
  const Json run = run_once(folder.path() / "run", target);
  EXPECT_EQ(run["samples"]["n"], 14);
  EXPECT_EQ(run["verdict"]["exit_code"], 3);
  EXPECT_THAT(run["verdict"]["problems"][0].get<std::string>(),
              HasSubstr("the model's context 20"));
}

// Cuts samples.jsonl at every line, and inside every line, as kill -9 would.
TEST(Runner, AResumedRunEqualsAnUninterruptedOneAtEveryCut) {
  const TemporaryFolder folder;
  FakeTarget whole(good_answer, 3);
  const Json expected = without_timings(run_once(folder.path() / "whole", whole));
  const std::string text = *read_file(folder.path() / "whole/samples.jsonl");
  std::vector<std::size_t> cuts = {0};
  for (std::size_t at = 0; (at = text.find('\n', at)) != std::string::npos; ++at) {
    cuts.push_back(at + 1);                           // after the line
    cuts.push_back(at % 2 == 0 ? at : at - at % 97);  // all but its line break, or somewhere inside
  }
  int n_cut = 0;
  for (const std::size_t cut : cuts) {
    const fs::path out = folder.path() / ("cut" + std::to_string(n_cut++));
    {
      FakeTarget first(good_answer);
      first.stop_after = 0;
      const Plan plan = small_plan();
      ASSERT_TRUE(RunRecord::create(out, head_of(plan, first)));
    }
    std::ofstream(out / "samples.jsonl", std::ios::binary) << text.substr(0, cut);
    FakeTarget rest(good_answer, 11);
    const Json run = run_once(out, rest, true);
    EXPECT_EQ(without_timings(run), expected) << cut;
    const auto n_kept = std::count(text.begin(), text.begin() + static_cast<long>(cut), '\n');
    EXPECT_EQ(rest.n_asked, 14 - n_kept) << cut;  // nothing is asked twice
  }
}

TEST(Runner, AnInterruptionKeepsWhatWasFinishedAndResumes) {
  const TemporaryFolder folder;
  const fs::path out = folder.path() / "run";
  const Plan plan = small_plan();
  FakeTarget slow([](const std::string& prompt, const Request& request) {
    ::usleep(60'000);
    return good_answer(prompt, request);
  });
  {
    auto record = RunRecord::create(out, head_of(plan, slow));
    ASSERT_TRUE(record);
    int n_polls = 0;
    const auto result =
        run_plan(plan, slow, *record, {[](const Progress&) {}, [&] { return ++n_polls >= 2; }});
    ASSERT_TRUE(result);
    EXPECT_TRUE(result->interrupted);
    EXPECT_LT(result->samples.size(), plan.items.size());
    EXPECT_GT(result->samples.size(), 0u);
  }
  EXPECT_EQ((*read_run_json(out))["status"], "running");
  FakeTarget rest(good_answer), whole(good_answer);
  EXPECT_EQ(without_timings(run_once(out, rest, true)),
            without_timings(run_once(folder.path() / "whole", whole)));
}

TEST(Runner, SeedAndStreamReachTheTarget) {
  const TemporaryFolder folder;
  std::set<std::uint64_t> streams;
  FakeTarget target([&](const std::string& prompt, const Request& request) {
    streams.insert(request.stream);
    EXPECT_EQ(request.max_thinking_tokens, request.max_tokens == 768 ? 640 : 0);
    return good_answer(prompt, request);
  });
  run_once(folder.path() / "run", target);
  EXPECT_EQ(streams.size(), 14u);  // one stream per sample
}

TEST(Runner, TheRecordFollowsItsSchema) {
  const TemporaryFolder folder;
  FakeTarget target(good_answer);
  const Json run = run_once(folder.path() / "run", target);
  const auto schema = read_json(fs::path(ASSAY_SOURCE_DIR) / "reports/run.schema.json");
  ASSERT_TRUE(schema) << schema.error().message;
  SchemaCheck check(*schema);
  EXPECT_THAT(check.problems(run), testing::IsEmpty());
  EXPECT_THAT(check.problems(*read_run_json(folder.path() / "run")), testing::IsEmpty());

  Json broken = run;  // the checker can fail
  broken["verdict"]["state"] = "fine";
  broken["metrics"][0].erase("n");
  broken["plan"]["surprise"] = 1;
  EXPECT_EQ(check.problems(broken).size(), 3u);
}

// One suite of its own, answered by a rule.
Result<RunResult> run_suite(const std::string& json, const std::string& csv, FakeTarget& target,
                            const fs::path& out) {
  ASSAY_TRY(auto suite, parse_suite(json, "suite.json", csv, "cases.csv"));
  PlanOptions options;
  options.profile = Profile::kFull;
  ASSAY_TRY(const Plan plan, make_plan({std::move(suite)}, options));
  ASSAY_TRY(auto record, RunRecord::create(out, head_of(plan, target)));
  return run_plan(plan, target, record);
}

TEST(Runner, AnArmsSystemMessageForcedCloseAndPrefillReachTheTarget) {
  const TemporaryFolder folder;
  const std::string json =
      R"({"format": 1, "name": "t", "version": 1, "title": "T", "languages": ["en"],
      "cases": "cases.csv", "scoring": "none", "sampling": {"temperature": 0}, "keep_steps": true,
      "arms": [{"name": "tight", "enable_thinking": true, "max_tokens": 90, "max_thinking_tokens": 24,
                "force_close": true, "system": "SYS ", "repeats": 2}],
      "gates": [{"name": "answered", "metric": "answered", "min": 1}], "profiles": ["full"]})";
  const std::string csv =
      "id,cluster,language,kind,profile,prompt,messages,answer,steps,note,prefill\n"
      "a,a,en,k,full,Why?,,,,,Wait. Wait.\n";
  std::vector<Request> seen;
  FakeTarget target([&](const std::string&, const Request& request) -> Result<Reply> {
    seen.push_back(request);
    Reply reply{.ids = FakeTarget::thought("hm", "Because."), .finish = "stop"};
    reply.forced_close = true;
    reply.steps.assign(reply.ids.size(), {-1, 0.5F, 0.25F});
    return reply;
  });
  const auto result = run_suite(json, csv, target, folder.path() / "run");
  ASSERT_TRUE(result) << result.error().message;
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_TRUE(seen[0].force_close);
  EXPECT_NE(seen[0].stream, seen[1].stream) << "every repeat has draws of its own";
  std::vector<int> prompt = FakeTarget::bytes("SYS Why?");
  prompt.push_back(FakeTarget::kOpen);
  for (const int id : FakeTarget::bytes("Wait. Wait.")) prompt.push_back(id);
  EXPECT_EQ(seen[0].prompt, prompt);
  EXPECT_EQ(result->samples[1].key(), "t/tight/a#2");
  EXPECT_TRUE(result->samples[0].forced_close);
  EXPECT_EQ(class_of(result->samples[0].outcome), "answered");
  const auto bytes = read_file(folder.path() / "run" / "steps.bin");
  ASSERT_TRUE(bytes);
  const auto steps = decode_steps(*bytes, "steps.bin");
  ASSERT_TRUE(steps) << steps.error().message;
  EXPECT_EQ(steps->by_key.at("t/tight/a#1").size(), result->samples[0].ids.size());
  const auto again =
      RunRecord::resume(folder.path() / "run", *read_json(folder.path() / "run" / "run.json"));
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->earlier()[0].steps.size(), result->samples[0].ids.size()) << "read back";
}

}  // namespace
}  // namespace assay::harness
