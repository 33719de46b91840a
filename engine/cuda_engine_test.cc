// The engine on a GPU, and on two: the same request has the same bits whatever shares its batch,
// read in whole or by chunks, with recorded steps or launch by launch. Needs them; says so and
// skips without.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "base/check.h"
#include "engine/cuda_engine_testing.h"
#include "engine/engine.h"
#include "engine/oracle_parity.h"

namespace assay::engine {
namespace {

// What the engine answered at each step of continuations, in one batch: greedy, drawn and drawn
// with a repetition penalty, by turns. With a batch of one also held to the host's sampler.
std::vector<std::vector<Sampled>> answers(Engine& engine, const std::vector<int>& lengths,
                                          int first_request, int n_steps) {
  constexpr SamplingParams kAsked[] = {
      {},
      {.temperature = 1.2, .top_p = 0.95},
      {.temperature = 0.8, .top_k = 50, .min_p = 0.01, .repetition_penalty = 1.1}};
  const std::vector<int> watched = {1, 2, 1500};
  const std::size_t n = lengths.size();
  std::vector<Sequence> sequences, again;
  std::vector<std::vector<int>> history;
  for (const int length : lengths) {
    history.push_back(first_tokens(static_cast<std::size_t>(length)));
    sequences.push_back(engine.new_sequence());
    sequences.back().feed(history.back());
    again.push_back(engine.new_sequence());
    again.back().feed(history.back());
  }
  std::vector<std::vector<Sampled>> out(n);
  for (int step = 0; step < n_steps; ++step) {
    std::vector<SampleRequest> requests;
    std::vector<Sequence*> batch;
    for (std::size_t i = 0; i < n; ++i) {
      requests.push_back({.params = kAsked[(static_cast<std::size_t>(first_request) + i) % 3],
                          .key = {.seed = 3, .stream = 4, .position = history[i].size()},
                          .history = history[i],
                          .n_top = 8,
                          .watched = watched});
      batch.push_back(&sequences[i]);
    }
    const auto pending = [&] {
      return std::any_of(batch.begin(), batch.end(),
                         [](const Sequence* s) { return s->n_pending() > 0; });
    };
    for (std::size_t i = 0; i < n; ++i) sequences[i].ask(requests[i]);
    while (pending()) {
      engine.step(batch);
      for (std::size_t i = 0; i < n; ++i)
        if (sequences[i].sampled()) out[i].push_back(*sequences[i].sampled());
    }
    for (std::size_t i = 0; i < n; ++i) {
      const Sampled& device = out[i].back();
      CHECK(out[i].size() == static_cast<std::size_t>(step) + 1) << out[i].size();
      if (n == 1) {
        Sequence* one[] = {&again[i]};
        while (again[i].n_pending() > 0) engine.step(one);
        const Sampled host = sample(again[i].logits(), requests[i]);
        EXPECT_EQ(device.id, host.id) << "step " << step;
        EXPECT_NEAR(device.logprob, host.logprob, 0x1p-19);
        EXPECT_EQ(device.place.has_value(), host.place.has_value());
        for (std::size_t k = 0; k < host.top.size(); ++k)
          EXPECT_EQ(device.top[k].first, host.top[k].first) << "step " << step;
      }
      history[i].push_back(device.id);
      sequences[i].feed(std::span(&history[i].back(), 1));
      again[i].feed(std::span(&history[i].back(), 1));
    }
  }
  return out;
}

void expect_equal(const std::vector<Sampled>& a, const std::vector<Sampled>& b,
                  const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].id, b[i].id) << what << ", step " << i;
    EXPECT_EQ(a[i].logprob, b[i].logprob) << what;
    EXPECT_EQ(a[i].top, b[i].top) << what;
    EXPECT_EQ(a[i].watched_probability, b[i].watched_probability) << what;
    ASSERT_EQ(a[i].place.has_value(), b[i].place.has_value()) << what;
    if (!a[i].place) continue;
    EXPECT_TRUE(a[i].place->is_kept) << what;
    EXPECT_EQ(a[i].place->total, b[i].place->total) << what;
    EXPECT_EQ(a[i].place->above, b[i].place->above) << what;
  }
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

TEST_P(CudaEngine, SamplesAreThoseOfItsLogitsWhateverTheBatchAndTheLaunches) {
  Engine engine = load(), launched = load({.kernel = "stream"});
  EXPECT_EQ(engine.info().to_json()["sampling"], "device");
  const auto together = answers(engine, kLengths, 0, kSteps);
  const auto stream = answers(launched, kLengths, 0, kSteps);
  for (std::size_t i = 0; i < kLengths.size(); ++i) {
    expect_equal(stream[i], together[i], "launch by launch");
    expect_equal(answers(engine, {kLengths[i]}, static_cast<int>(i), kSteps)[0], together[i],
                 "alone");
  }
}

std::vector<std::uint32_t> bits_of(const Sequence& s) {
  std::vector<std::uint32_t> bits;
  for (const float v : s.logits()) bits.push_back(std::bit_cast<std::uint32_t>(v));
  return bits;
}

// A prompt's last chunk of eight rows and a decode step, of rows that want logits, a sample, or
// both.
TEST_P(CudaEngine, ARowThatWantsLogitsAndASampleIsMultipliedOnceWithTheSameBits) {
  Engine engine = load({.prefill_chunk = 16});
  const auto ids = first_tokens(41);
  const SampleRequest request{
      .params = {.temperature = 0.7, .top_p = 0.9}, .key = {.seed = 1, .position = 40}, .n_top = 5};
  struct Answers {
    std::vector<std::vector<std::uint32_t>> logits;
    std::vector<Sampled> sampled;
    std::vector<std::int64_t> n_multiplied;  // rows, of the two steps
  };
  // Sequences of the same text, each of which wants logits (L), a sample (S) or both (B).
  const auto answers_of = [&](std::string_view wants) {
    std::vector<Sequence> sequences;
    std::vector<Sequence*> batch;
    for (const char want : wants) {
      sequences.push_back(engine.new_sequence());
      sequences.back().keep_all_logits(want != 'S');
      sequences.back().feed(std::span(ids).first(32));
    }
    for (Sequence& s : sequences) batch.push_back(&s);
    while (sequences[0].n_pending() > 0) engine.step(batch);
    Answers out;
    for (const auto& [first, n] : {std::pair{32, 8}, std::pair{40, 1}}) {
      for (std::size_t i = 0; i < wants.size(); ++i) {
        sequences[i].feed(
            std::span(ids).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n)));
        if (wants[i] != 'L') sequences[i].ask(request);
      }
      const std::int64_t before = engine.step_counts().n_logit_rows;
      engine.step(batch);
      out.n_multiplied.push_back(engine.step_counts().n_logit_rows - before);
      for (std::size_t i = 0; i < wants.size(); ++i) {
        EXPECT_EQ(sequences[i].n_logit_rows(), wants[i] == 'S' ? 0 : n) << wants << " " << i;
        if (wants[i] != 'S') out.logits.push_back(bits_of(sequences[i]));
        EXPECT_EQ(sequences[i].sampled().has_value(), wants[i] != 'L') << wants << " " << i;
        if (wants[i] != 'L') out.sampled.push_back(sequences[i].sampled().value_or(Sampled{}));
      }
    }
    return out;
  };
  using Rows = std::vector<std::int64_t>;
  const Answers logits = answers_of("L"), sample = answers_of("S"), both = answers_of("B");
  EXPECT_EQ(logits.n_multiplied, (Rows{8, 1}));
  EXPECT_EQ(sample.n_multiplied, (Rows{1, 1}));
  EXPECT_EQ(both.n_multiplied, (Rows{8, 1}));
  EXPECT_EQ(both.logits, logits.logits);
  expect_equal(both.sampled, sample.sampled, "both");

  const Answers mixed = answers_of("SBLB");
  EXPECT_EQ(mixed.n_multiplied, (Rows{3 * 8 + 1, 4}));
  ASSERT_EQ(mixed.logits.size(), 6u);
  ASSERT_EQ(mixed.sampled.size(), 6u);
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(mixed.logits[i], logits.logits[i / 3]) << i;
    expect_equal({mixed.sampled[i]}, {sample.sampled[i / 3]}, "mixed " + std::to_string(i));
  }
}

TEST_P(CudaEngine, RepliesAreDrawnAsTheyShouldBe) {
  Engine engine = load();
  const auto completion = generate(engine, {.prompt = first_tokens(40),
                                            .sampling = {.temperature = 1, .top_p = 0.95},
                                            .seed = 2,
                                            .max_tokens = 100,
                                            .stop_ids = {0},
                                            .n_top = 4});
  ASSERT_TRUE(completion.has_value()) << completion.error().message;
  EXPECT_EQ(completion->draws.n_drawn, static_cast<int>(completion->tokens.size()));
  EXPECT_EQ(completion->draws.n_impossible, 0);
  for (const double ratio : completion->draws.log_ratio) EXPECT_TRUE(std::isfinite(ratio));
}

TEST_P(CudaEngine, EnginesOnTheSameWeightsWorkSideBySide) {
  Engine engine = load({.n_engines = 5});
  const auto expected = decode(engine, {300}, kSteps);
  std::vector<std::thread> threads;
  std::vector<std::vector<std::vector<std::uint32_t>>> bits(4);
  for (auto& b : bits)
    threads.emplace_back([&] {
      Engine own = *engine.share(1);
      b = decode(own, {300}, kSteps);
    });
  for (std::thread& t : threads) t.join();
  for (const auto& b : bits) EXPECT_EQ(b, expected);
}

TEST_P(CudaEngine, Bf16StepsHaveTheSameBitsRecordedLaunchedAndInOtherChunks) {
  Engine recorded = load({.kernel = "bf16"}), launched = load({.kernel = "bf16-stream"}),
         chunked = load({.kernel = "bf16", .prefill_chunk = 64}), f32 = load();
  EXPECT_NE(recorded.info().kernel.find("bf16, graph, chunks: mma"), std::string::npos)
      << recorded.info().kernel;
  EXPECT_NE(launched.info().kernel.find("bf16, stream, chunks: mma"), std::string::npos)
      << launched.info().kernel;
  const auto bits = decode(recorded, kLengths, kSteps);
  EXPECT_NE(decode(f32, kLengths, kSteps), bits) << "tensor cores were not used";
  EXPECT_EQ(decode(launched, kLengths, kSteps), bits);
  EXPECT_EQ(decode(recorded, kLengths, kSteps), bits) << "again, from graphs";
  EXPECT_EQ(decode(chunked, kLengths, kSteps), bits);
}

// Prompts read in the same steps as another sequence decodes, whose row lies between theirs.
TEST_P(CudaEngine, Bf16ChunksAndSingleRowsOfOneBatchHaveTheBitsTheyHaveAlone) {
  Engine engine = load({.kernel = "bf16", .prefill_chunk = 128});
  constexpr int kOther = 9, kOtherSteps = 4;
  const auto alone = decode(engine, kLengths, 1);
  const auto other_alone = decode(engine, {kOther}, kOtherSteps + 1)[0];

  Sequence other = engine.new_sequence();
  other.feed(first_tokens(kOther));
  Sequence* only[] = {&other};
  engine.step(only);
  std::vector<std::uint32_t> other_bits = bits_of(other);
  std::vector<Sequence> sequences;
  for (const int length : kLengths) {
    sequences.push_back(engine.new_sequence());
    sequences.back().feed(first_tokens(static_cast<std::size_t>(length)));
  }
  std::vector<std::vector<std::uint32_t>> bits(kLengths.size());
  for (int step = 0; step < kOtherSteps; ++step) {
    const auto logits = other.logits();
    const int best[] = {
        static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin())};
    other.feed(best);
    Sequence* batch[] = {&sequences[0], &other, &sequences[1], &sequences[2]};
    engine.step(batch);
    const auto more = bits_of(other);
    other_bits.insert(other_bits.end(), more.begin(), more.end());
    for (std::size_t i = 0; i < sequences.size(); ++i)
      if (sequences[i].n_logit_rows() > 0) bits[i] = bits_of(sequences[i]);
  }
  EXPECT_EQ(bits, alone);
  EXPECT_EQ(other_bits, other_alone);
}

TEST(CudaKernels, AnUnknownOneIsRefusedWithWhatThereIs) {
  const auto engine = Engine::load(micro_glm_dir(), {.backend = "cuda", .kernel = "fp4"});
  ASSERT_FALSE(engine.has_value());
  EXPECT_EQ(engine.error().message,
            "backend cuda has no kernel 'fp4': expected graph (the default: decode steps are "
            "recorded and replayed), stream (launch by launch), or bf16 or bf16-stream (the same, "
            "with prompt chunks on tensor cores)");
}

TEST_P(CudaEngine, ForksGoOnAsTheirOriginal) {
  Engine engine = load();
  const auto ids = first_tokens(300);
  const auto go_on = [&](Sequence& s) {
    s.feed(std::span(ids).subspan(280));
    while (s.n_pending() > 0) {
      Sequence* one[] = {&s};
      engine.step(one);
    }
    return std::vector<float>(s.logits().begin(), s.logits().end());
  };
  Sequence original = engine.new_sequence();
  original.feed(std::span(ids).first(280));
  Sequence* one[] = {&original};
  engine.step(one);
  Sequence copy = original.fork();
  EXPECT_EQ(go_on(copy), go_on(original));
}

INSTANTIATE_TEST_SUITE_P(Builds, CudaEngine,
                         testing::Combine(testing::Values("model", "vq-1.71"), testing::Values(1)));
INSTANTIATE_TEST_SUITE_P(OnTwoGpus, CudaEngine,
                         testing::Combine(testing::Values("model", "vq-1.71"), testing::Values(2)));

TEST(CudaEngineTwoGpus, AnswersAgreeWithOneGpus) {
  for (const char* build : {"model", "vq-1.71"}) {
    const auto load = [&](int n) {
      return Engine::load(micro_glm_dir(build), {.backend = "cuda", .tensor_parallel = n});
    };
    auto one = load(1), two = load(2);
    if (!two && is_for_want_of_gpus(two.error()))
      GTEST_SKIP() << two.error().message << ". This test shows nothing here.";
    ASSERT_TRUE(one && two);
    EXPECT_NE(two->info().kernel.find("tp 2"), std::string::npos) << two->info().kernel;
    EXPECT_EQ(two->info().tensor_parallel, 2);
    EXPECT_TRUE(two->info().samples_on_device);
    // A prompt and the steps after it, dense and then sparse. Each is within 5e-3 of transformers'
    // logits (parity_cuda_test), so within twice that of the other.
    const auto logits = [&](Engine& engine) {
      Sequence s = engine.new_sequence();
      const auto ids = first_tokens(530);
      s.keep_all_logits(true);
      s.feed(std::span(ids).first(500));
      std::vector<float> all;
      for (std::size_t i = 500; s.n_pending() > 0 || i < ids.size(); ++i) {
        Sequence* batch[] = {&s};
        engine.step(batch);
        all.insert(all.end(), s.logits().begin(), s.logits().end());
        if (i < ids.size()) s.feed(std::span(ids).subspan(i, 1));
      }
      return all;
    };
    const auto a = logits(*one), b = logits(*two);
    ASSERT_EQ(a.size(), b.size());
    float worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      ASSERT_TRUE(std::isfinite(b[i])) << i;
      worst = std::max(worst, std::abs(a[i] - b[i]));
    }
    EXPECT_LT(worst, 1e-2f) << build;
    std::cout << build << ": largest difference of a logit " << worst << "\n";
  }
}

}  // namespace
}  // namespace assay::engine
