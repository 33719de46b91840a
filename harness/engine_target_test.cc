// The embedded engine as a target: what requests share changes nothing in what they are answered.
#include "harness/engine_target.h"

#include <gtest/gtest.h>

#include <map>

#include "base/check.h"
#include "base/file.h"
#include "harness/engine_target_testing.h"

namespace assay::harness {
namespace {

EngineTarget micro_glm(int n_workers) {
  auto engine =
      engine::Engine::load(fs::path(ASSAY_SOURCE_DIR) / "golden/micro-glm/model", {.n_threads = 1});
  CHECK(engine.has_value()) << engine.error().message;
  return EngineTarget(*std::move(engine), n_workers);
}

std::vector<int> prompt(const EngineTarget& target, const std::string& question) {
  return prompt_about(target, 0, 60, question);
}

TEST(EngineTarget, RequestsThatShareALongBeginningAreAnsweredAsIfAlone) {
  EngineTarget target = micro_glm(2);
  std::vector<Request> requests;
  for (int i = 0; i < 4; ++i) {
    Request r;
    r.prompt = prompt(target, i < 2 ? "What is the secret code for Kesslow?"
                                    : "Find the secret code for Kesslow.");
    r.sampling.temperature = i % 2 == 0 ? 0 : 0.6;
    r.stream = static_cast<std::uint64_t>(i);
    r.max_tokens = 40;
    requests.push_back(std::move(r));
  }
  ASSERT_GT(requests[0].prompt.size(), 600u);
  const auto together = answers(target, requests);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(together[i].ids, answers(target, {requests[i]})[0].ids) << i;
    EXPECT_EQ(together[i].steps.size(), together[i].ids.size());
  }
}

TEST(EngineTarget, APromptThatIsTheBeginningOfTheNextIsAnsweredToo) {
  EngineTarget target = micro_glm(1);
  Request first;
  first.prompt = prompt(target, "What is the secret code for Kesslow?");
  first.max_tokens = 10;
  Request longer = first;
  const auto more = target.encode("The text says");
  ASSERT_TRUE(more);
  longer.prompt.insert(longer.prompt.end(), more->begin(), more->end());
  const auto together = answers(target, {first, longer, first});
  EXPECT_EQ(together[0].ids, answers(target, {first})[0].ids);
  EXPECT_EQ(together[1].ids, answers(target, {longer})[0].ids);
  EXPECT_EQ(together[2].ids, together[0].ids);
}

TEST(EngineTarget, AMissIsAskedAgainInOtherWordsAndAHitIsNot) {
  EngineTarget target = micro_glm(1);
  Request r;
  r.prompt = prompt(target, "What is the secret code for Kesslow?");
  r.reask_prompt = prompt(target, "Find the secret code for Kesslow.");
  r.max_tokens = 40;
  Request again;
  again.prompt = r.reask_prompt;
  again.max_tokens = 40;
  const Reply alone = answers(target, {again})[0];
  std::map<bool, Reply> got;
  for (const bool missed : {false, true}) {
    r.should_reask = [&](const Reply&) { return missed; };
    got[missed] = answers(target, {r})[0];
  }
  EXPECT_TRUE(got[false].reasked.empty());
  ASSERT_EQ(got[true].reasked.size(), 1u);
  EXPECT_EQ(got[true].ids, got[false].ids);
  EXPECT_EQ(got[true].reasked[0].ids, alone.ids);
}

TEST(EngineTarget, PlansNoEngineForAWorkerThatHasNothingToDo) {
  EXPECT_EQ(EngineTarget::n_engines(4), 5) << "its own and one a worker";
  EXPECT_EQ(EngineTarget::n_engines(4, 9), 5);
  EXPECT_EQ(EngineTarget::n_engines(4, 2), 3);
  EXPECT_EQ(EngineTarget::n_engines(4, 0), 2) << "for who clocks it";
  EXPECT_EQ(EngineTarget::n_engines(0, 1), 2) << "however many cores there are";
}

TEST(EngineTarget, AGivenReplyIsThoughtOfAsWhenItWasMade) {
  EngineTarget target = micro_glm(2);
  std::vector<Request> requests(2);
  for (std::size_t i = 0; i < 2; ++i) {
    requests[i].prompt = prompt(target, "What is the secret code for Kesslow?");
    requests[i].sampling.temperature = i == 0 ? 0 : 1.5;
    requests[i].max_tokens = 40;
  }
  const auto made = answers(target, requests);
  std::vector<GivenReply> given = {{requests[0].prompt, made[0].ids},
                                   {requests[1].prompt, made[1].ids},
                                   {requests[0].prompt, {}},
                                   {requests[0].prompt, {1 << 20}}};
  std::vector<Result<std::vector<StepFigures>>> scored(given.size());
  ASSERT_TRUE(
      target.score(given, [&](std::size_t i, auto steps) { scored[i] = std::move(steps); }, {}));
  for (std::size_t i = 0; i < 2; ++i) {
    ASSERT_TRUE(scored[i]) << scored[i].error().message;
    EXPECT_EQ(*scored[i], made[i].steps) << "bit for bit, " << i;
  }
  ASSERT_TRUE(scored[2]);
  EXPECT_TRUE(scored[2]->empty());
  ASSERT_FALSE(scored[3]);
  EXPECT_NE(scored[3].error().message.find("vocabulary"), std::string::npos);
}

}  // namespace
}  // namespace assay::harness
