// The engine on a GPU: the same request has the same bits whatever shares its batch, read in whole
// or by chunks, with recorded steps or launch by launch. Needs a GPU; says so and skips without.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <thread>

#include "base/check.h"
#include "engine/engine.h"
#include "engine/oracle_parity.h"

namespace assay::engine {
namespace {

class CudaEngine : public testing::TestWithParam<const char*> {  // of a build of micro-glm
 protected:
  void SetUp() override {
    const auto engine = Engine::load(micro_glm_dir(GetParam()), {.backend = "cuda"});
    if (!engine.has_value() && engine.error().message.find("no CUDA") != std::string::npos)
      GTEST_SKIP() << "no CUDA device here: this test shows nothing; run it on a GPU machine";
    ASSERT_TRUE(engine.has_value()) << engine.error().message;
  }
  static Engine load(EngineOptions options = {}) {
    options.backend = "cuda";
    auto engine = Engine::load(micro_glm_dir(GetParam()), options);
    CHECK(engine.has_value()) << engine.error().message;
    return *std::move(engine);
  }
};

std::vector<int> first_tokens(std::size_t n) {
  auto ids = oracle("logits.json.gz")["records"][13]["ids"].get<std::vector<int>>();
  CHECK(n <= ids.size()) << ids.size();
  ids.resize(n);
  return ids;
}

// Greedy continuations, all in one batch: of each step the bits of every sequence's logits.
std::vector<std::vector<std::uint32_t>> decode(Engine& engine, const std::vector<int>& lengths,
                                               int n_steps) {
  std::vector<Sequence> sequences;
  for (const int length : lengths) {
    sequences.push_back(engine.new_sequence());
    sequences.back().feed(first_tokens(static_cast<std::size_t>(length)));
  }
  std::vector<std::vector<std::uint32_t>> bits(lengths.size());
  for (Sequence& s : sequences)  // read alone, so that all decode together afterwards
    while (s.n_pending() > 0) {
      Sequence* one[] = {&s};
      engine.step(one);
    }
  for (int step = 0; step < n_steps; ++step) {
    std::vector<Sequence*> batch;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const auto logits = sequences[i].logits();
      for (const float v : logits) bits[i].push_back(std::bit_cast<std::uint32_t>(v));
      const int best[] = {
          static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin())};
      sequences[i].feed(best);
      batch.push_back(&sequences[i]);
    }
    engine.step(batch);
  }
  return bits;
}

// Past 256 keys scratch and launches double, past 512 attention is sparse: both while decoding.
const std::vector<int> kLengths = {500, 250, 7};
constexpr int kSteps = 24;

TEST_P(CudaEngine, RecordedStepsHaveTheBitsOfLaunches) {
  Engine recorded = load(), launched = load({.kernel = "stream"});
  EXPECT_NE(recorded.info().kernel.find("graph"), std::string::npos) << recorded.info().kernel;
  EXPECT_NE(launched.info().kernel.find("stream"), std::string::npos) << launched.info().kernel;
  const auto bits = decode(recorded, kLengths, kSteps);
  EXPECT_EQ(decode(launched, kLengths, kSteps), bits);
  EXPECT_EQ(decode(recorded, kLengths, kSteps), bits) << "again, from graphs alone";
}

TEST_P(CudaEngine, ARequestsBitsDoNotDependOnItsBatchOrItsChunks) {
  Engine engine = load(), chunked = load({.prefill_chunk = 64});
  const auto together = decode(engine, kLengths, kSteps);
  for (std::size_t i = 0; i < kLengths.size(); ++i) {
    EXPECT_EQ(decode(engine, {kLengths[i]}, kSteps)[0], together[i]) << kLengths[i];
    EXPECT_EQ(decode(chunked, {kLengths[i]}, kSteps)[0], together[i]) << kLengths[i];
  }
}

TEST_P(CudaEngine, EnginesOnTheSameWeightsWorkSideBySide) {
  Engine engine = load();
  const auto expected = decode(engine, {300}, kSteps);
  std::vector<std::thread> threads;
  std::vector<std::vector<std::vector<std::uint32_t>>> bits(4);
  for (auto& b : bits)
    threads.emplace_back([&] {
      Engine own = engine.share(1);
      b = decode(own, {300}, kSteps);
    });
  for (std::thread& t : threads) t.join();
  for (const auto& b : bits) EXPECT_EQ(b, expected);
}

INSTANTIATE_TEST_SUITE_P(Builds, CudaEngine, testing::Values("model", "vq-1.71"));

}  // namespace
}  // namespace assay::engine
