// The target on a GPU whose caches are small: groups, prefixes and re-asks wait for room instead of
// failing, and are answered the same. Needs one; says so and skips without.
#include <gtest/gtest.h>

#include "base/file.h"
#include "harness/divergence_run.h"
#include "harness/engine_target.h"
#include "harness/engine_target_testing.h"

namespace assay::harness {
namespace {

Result<EngineTarget> target_of(int context, int n_contexts) {
  ASSAY_TRY(auto engine, engine::Engine::load(fs::path(ASSAY_SOURCE_DIR) / "golden/micro-glm/model",
                                              {.backend = "cuda",
                                               .n_threads = 1,
                                               .context = context,
                                               .n_engines = EngineTarget::n_engines(1),
                                               .n_contexts = n_contexts}));
  return EngineTarget(std::move(engine), 1);
}

TEST(EngineTargetCuda, SmallCachesAnswerAsLargeOnesDo) {
  auto large = target_of(2048, 16);
  if (!large) GTEST_SKIP() << large.error().message << ". This test shows nothing here.";
  auto small = target_of(2048, 1);
  ASSERT_TRUE(small) << small.error().message;
  ASSERT_EQ(small->engine().cache_room().n_tokens, 2048);

  std::vector<Request> requests;
  for (int topic = 0; topic < 6; ++topic)
    for (int i = 0; i < 3; ++i) {
      const int n_sentences = topic == 5 ? 120 : 40 + 8 * topic;  // the last cannot share a prefix
      Request r;
      r.prompt = prompt_about(
          *large, topic, n_sentences,
          i == 0 ? "What is the secret code for Kesslow?" : "Find the secret code for Kesslow.");
      r.sampling.temperature = i == 2 ? 0.8 : 0;
      r.stream = requests.size();
      r.max_tokens = 30;
      if (i == 1) {
        r.reask_prompt =
            prompt_about(*large, topic, n_sentences, "And what is the code for Kesslow?");
        r.should_reask = [](const Reply&) { return true; };
      }
      ASSERT_LT(r.prompt.size(), 1900u);
      requests.push_back(std::move(r));
    }
  const auto expected = answers(*large, requests), got = answers(*small, requests);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    EXPECT_FALSE(expected[i].ids.empty()) << i;
    EXPECT_EQ(got[i].ids, expected[i].ids) << i;
    ASSERT_EQ(got[i].reasked.size(), expected[i].reasked.size()) << i;
    for (std::size_t k = 0; k < got[i].reasked.size(); ++k)
      EXPECT_EQ(got[i].reasked[k].ids, expected[i].reasked[k].ids) << i;
  }
}

TEST(EngineTargetCuda, DecodeAgainstPrefillRefusesWhatCachesCannotHoldTwice) {
  const auto target = target_of(2048, 1);
  if (!target) GTEST_SKIP() << target.error().message << ". This test shows nothing here.";
  const auto diverged = [&](std::size_t n_tokens) {
    const int n = static_cast<int>(n_tokens);
    return diverge_decode(target->engine(),
                          {{.id = "long",
                            .lang = "en",
                            .ids = std::vector<int>(n_tokens, 65),
                            .reply = n - 4,
                            .answer = n - 4,
                            .positions = {}}},
                          1, {});
  };
  const auto fits = diverged(1024), refused = diverged(1025);
  ASSERT_TRUE(fits) << fits.error().message;
  EXPECT_EQ(fits->size(), 4u);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("room for 2048"), std::string::npos)
      << refused.error().message;
}

}  // namespace
}  // namespace assay::harness
