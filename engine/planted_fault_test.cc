// Each planted fault does what it says, where it says, and nothing before.
#include "engine/planted_fault.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/check.h"
#include "base/rng.h"
#include "engine/engine.h"
#include "engine/oracle_parity.h"

namespace assay::engine {
namespace {

using Kind = PlantedFault::Kind;

Engine load(const PlantedFault& fault, int prefill_chunk = 64) {
  auto engine = Engine::load(micro_glm_dir(), {.n_threads = 1,
                                               .attention = Attention::kDense,
                                               .check_finite = false,
                                               .prefill_chunk = prefill_chunk,
                                               .planted_fault = fault});
  CHECK(engine.has_value()) << engine.error().message;
  return *std::move(engine);
}

std::vector<int> some_text(int n) {
  auto ids = oracle("logits.json.gz")["records"][13]["ids"].get<std::vector<int>>();
  CHECK(static_cast<int>(ids.size()) >= n) << ids.size();
  ids.resize(static_cast<std::size_t>(n));
  return ids;
}

// Reads `prompt`, then feeds what follows token by token: the logits after each token from the
// prompt's last on.
std::vector<std::vector<float>> logits_of(Engine& engine, std::span<const int> ids, int prompt) {
  Sequence s = engine.new_sequence();
  Sequence* batch[] = {&s};
  std::vector<std::vector<float>> out;
  const auto keep = [&] {
    while (s.n_pending() > 0) engine.step(batch);
    out.emplace_back(s.logits().begin(), s.logits().end());
  };
  s.feed(ids.first(static_cast<std::size_t>(prompt)));
  keep();
  for (const int& id : ids.subspan(static_cast<std::size_t>(prompt))) {
    s.feed(std::span(&id, 1));
    keep();
  }
  return out;
}

TEST(PlantedFault, ALostRowChangesNothingUntilItIsLost) {
  const auto ids = some_text(140);
  Engine healthy = load({});
  const auto expected = logits_of(healthy, ids, 60);
  Engine once = load({.kind = Kind::kLostRowOnce, .from = 128});
  const auto lost = logits_of(once, ids, 60);
  ASSERT_EQ(lost.size(), expected.size());
  for (std::size_t i = 0; i < lost.size(); ++i) {
    const std::size_t position = 59 + i;
    EXPECT_EQ(lost[i] == expected[i], position < 128) << position;
  }
}

// One row low from the first loss on: the same logits as a text without the token that was lost.
TEST(PlantedFault, ALostRowIsThatOfTheTokenBefore) {
  const auto ids = some_text(140);
  Engine once = load({.kind = Kind::kLostRowOnce, .from = 128});
  const auto lost = logits_of(once, ids, 60);
  std::vector<int> without = ids;
  without.erase(without.begin() + 127);
  Engine healthy = load({});
  EXPECT_EQ(lost.back(), logits_of(healthy, without, 60).back());

  // At every step: all after the first loss but the newest are gone.
  Engine every = load({.kind = Kind::kLostRowEveryStep, .from = 128});
  std::vector<int> left(ids.begin(), ids.begin() + 127);
  left.push_back(ids.back());
  EXPECT_EQ(logits_of(every, ids, 60).back(), logits_of(healthy, left, 60).back());
}

TEST(PlantedFault, AForkKeepsItsOwnLosses) {
  const auto ids = some_text(140);
  Engine every = load({.kind = Kind::kLostRowEveryStep, .from = 128});
  const auto alone = logits_of(every, ids, 60);
  Sequence s = every.new_sequence();
  Sequence* batch[] = {&s};
  s.feed(std::span(ids).first(60));
  while (s.n_pending() > 0) every.step(batch);
  for (std::size_t i = 60; i < 133; ++i) {
    s.feed(std::span(ids).subspan(i, 1));
    every.step(batch);
  }
  Sequence fork = s.fork();
  EXPECT_EQ(fork.n_tokens(), 133);
  Sequence* forked[] = {&fork};
  for (std::size_t i = 133; i < ids.size(); ++i) {
    fork.feed(std::span(ids).subspan(i, 1));
    every.step(forked);
  }
  EXPECT_TRUE(std::equal(fork.logits().begin(), fork.logits().end(), alone.back().begin()));
}

TEST(PlantedFault, ANanLogitEndsTheReplyWhereItStands) {
  Engine engine = load({.kind = Kind::kNanLogit, .from = 20});
  const auto ids = some_text(16);
  const auto completion = generate(engine, {.prompt = ids, .max_tokens = 40, .stop_ids = {0}});
  ASSERT_TRUE(completion.has_value()) << completion.error().message;
  EXPECT_EQ(completion->finish, FinishReason::kNonFinite);
  // Positions 15 to 19 still gave a token each.
  EXPECT_EQ(completion->tokens.size(), 5u);
}

GenerateRequest sampled(double temperature) {
  return {.prompt = some_text(24),
          .sampling = {.temperature = temperature},
          .seed = 3,
          .stream = 5,
          .max_tokens = 60,
          .stop_ids = {0}};
}

TEST(PlantedFault, GreedyDrawsIgnoreTheTemperature) {
  Engine engine = load({.kind = Kind::kGreedyDraws}), healthy = load({});
  EXPECT_EQ(generate(engine, sampled(2))->ids(), generate(healthy, sampled(0))->ids());
  EXPECT_EQ(generate(healthy, sampled(2))->draws.n_drawn, 60);
  EXPECT_EQ(generate(engine, sampled(2))->draws.n_drawn, 60) << "the check counts what was meant";
}

TEST(PlantedFault, BiasedAndStuckDrawsChangeTheUniformNumberOnly) {
  const std::vector<float> logits(64, 0.0f);  // 64 equal tokens: id = floor(64 u)
  const SamplingParams params{.temperature = 1};
  for (std::uint64_t i = 0; i < 20; ++i) {
    const SampleKey key{.seed = 9, .stream = 4, .position = i};
    const double u = uniform_at(9, 4, i);
    const auto id = [&](const PlantedFault& fault) {
      return sample_with_fault(fault, logits, {.params = params, .key = key}).id;
    };
    EXPECT_EQ(id({}), static_cast<int>(64 * u));
    EXPECT_EQ(id({.kind = Kind::kBiasedDraws, .strength = 1}), static_cast<int>(64 * u * u));
    EXPECT_EQ(id({.kind = Kind::kStuckDraws}), static_cast<int>(64 * uniform_at(9, 4, 0)));
  }
}

TEST(PlantedFault, AnEngineSaysWhatIsPlantedInItAndSoDoItsShares) {
  EXPECT_FALSE(load({}).info().to_json().contains("planted_fault"));
  const Engine engine = load({.kind = Kind::kBiasedDraws, .strength = 0.5});
  EXPECT_EQ(engine.share(1)->info().to_json()["planted_fault"], "biased_draws 0.5");
  EXPECT_EQ(engine.info().to_json()["sampling"], "host");
}

}  // namespace
}  // namespace assay::engine
