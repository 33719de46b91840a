// micro-glm's builds on a GPU and on two, for tests of the engine there.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include "base/check.h"
#include "engine/engine.h"
#include "engine/oracle_parity.h"

namespace assay::engine {

class CudaEngine : public testing::TestWithParam<std::tuple<const char*, int>> {
 protected:  // a build of micro-glm, GPUs
  static Result<Engine> try_to_load(EngineOptions options) {
    options.backend = "cuda";
    options.tensor_parallel = std::get<1>(GetParam());
    return Engine::load(micro_glm_dir(std::get<0>(GetParam())), options);
  }
  void SetUp() override {
    const auto engine = try_to_load({});
    if (!engine.has_value() && is_for_want_of_gpus(engine.error()))
      GTEST_SKIP() << engine.error().message << ". This test shows nothing here.";
    ASSERT_TRUE(engine.has_value()) << engine.error().message;
  }
  static Engine load(EngineOptions options = {}) {
    auto engine = try_to_load(std::move(options));
    CHECK(engine.has_value()) << engine.error().message;
    return *std::move(engine);
  }
};

inline std::vector<int> first_tokens(std::size_t n) {
  auto ids = oracle("logits.json.gz")["records"][13]["ids"].get<std::vector<int>>();
  CHECK(n <= ids.size()) << ids.size();
  ids.resize(n);
  return ids;
}

// Greedy continuations, all in one batch: of each step the bits of every sequence's logits.
inline std::vector<std::vector<std::uint32_t>> decode(Engine& engine,
                                                      const std::vector<int>& lengths,
                                                      int n_steps) {
  std::vector<Sequence> sequences;
  for (const int length : lengths) {
    sequences.push_back(engine.new_sequence(length + n_steps));
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

}  // namespace assay::engine
