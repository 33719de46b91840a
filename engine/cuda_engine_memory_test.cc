// A GPU's memory, planned when an engine is made: nothing is allocated while decoding, requests
// wait for room, caches move, and what does not fit is refused. Needs a GPU; skips without.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <iostream>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/cuda_engine_testing.h"
#include "engine/engine.h"
#include "kernels/cuda_memory.h"
#include "kernels/driver_limits.h"

namespace assay::engine {
namespace {

// Greedy and drawn replies of prompts of these lengths, all in one batch.
void reply(Engine& engine, const std::vector<int>& lengths, int n_steps) {
  std::vector<Sequence> sequences;
  std::vector<Sequence*> batch;
  for (const int length : lengths) {
    sequences.push_back(engine.new_sequence(length + n_steps));
    sequences.back().feed(first_tokens(static_cast<std::size_t>(length)));
  }
  for (Sequence& s : sequences) batch.push_back(&s);
  for (int step = 0; step < n_steps; ++step) {
    for (std::size_t i = 0; i < sequences.size(); ++i)
      sequences[i].ask({.params = {.temperature = i % 2 == 0 ? 0.0 : 1.0, .top_p = 0.95},
                        .key = {.position = static_cast<std::uint64_t>(step)},
                        .n_top = 4});
    engine.step(batch);
    for (Sequence& s : sequences) {
      ASSERT_TRUE(s.sampled().has_value()) << "step " << step;
      s.feed(std::span(&s.sampled()->id, 1));
    }
  }
}

// From the first new sequence on: prompts, 1040 keys of context, which double launches at 256, 512
// and 1024, and a second batch.
TEST_P(CudaEngine, NothingIsAllocatedAndNoGraphIsDroppedOnceAnEngineIsMade) {
  Engine engine = load();
  const std::size_t allocated = kernels::n_cuda_allocations();
  constexpr int kReplySteps = 801, kBuckets = 4;
  reply(engine, {240, 233, 7}, kReplySteps);  // the first step reads the prompts
  EXPECT_EQ(kernels::n_cuda_allocations(), allocated);
  const StepCounts first = engine.step_counts();
  EXPECT_EQ(first.n_recorded, kBuckets);
  EXPECT_EQ(first.n_direct, 1 + kBuckets) << "the prompts, and the first step of each";
  EXPECT_EQ(first.n_replayed, kReplySteps - 1 - 2 * kBuckets);

  reply(engine, {241, 30, 8}, 301);  // three of the buckets
  EXPECT_EQ(kernels::n_cuda_allocations(), allocated);
  const StepCounts both = engine.step_counts();
  EXPECT_EQ(both.n_recorded, kBuckets);
  EXPECT_EQ(both.n_direct, first.n_direct + 1);
  EXPECT_EQ(both.n_replayed, first.n_replayed + 300);
  EXPECT_EQ(engine.cache_room().n_free, engine.cache_room().n_tokens) << "all is given back";
}

TEST_P(CudaEngine, StepsOfEnginesThatAreGoneAreCountedWithThoseOfTheOneTheySharedFrom) {
  Engine engine = load({.n_engines = 2});
  reply(engine, {9}, 5);
  const StepCounts own = engine.step_counts();
  EXPECT_EQ(own.n_all(), 5);
  for (int i = 0; i < 2; ++i) {
    Engine shared = *engine.share(1);
    reply(shared, {9}, 7);
    EXPECT_EQ(engine.all_step_counts().n_all(), 5 + 7 * i) << "what is there counts its own";
  }
  const StepCounts all = engine.all_step_counts();
  EXPECT_EQ(engine.step_counts().n_all(), 5);
  EXPECT_EQ(all.n_direct, 3 * 2) << "a prompt and a first step each";
  EXPECT_EQ(all.n_recorded, 3);
  EXPECT_EQ(all.n_replayed, 2 + 2 * 4);
}

// So every decode step is a graph, whatever the batch.
TEST_P(CudaEngine, MoreSequencesThanAGraphHoldsAreSeveralGraphsWithTheSameBits) {
  Engine engine = load();
  std::vector<int> lengths;
  for (int i = 0; i < 70; ++i) lengths.push_back(3 + i % 9);
  const auto together = decode(engine, lengths, 5);
  const StepCounts steps = engine.step_counts();
  EXPECT_EQ(steps.n_direct, 70 + 2) << "prompts, each alone, and the first step of two shapes";
  EXPECT_EQ(steps.n_recorded, 2) << "64 and 6 rows";
  EXPECT_EQ(steps.n_replayed, 2 * (5 - 2));
  for (const std::size_t i : {0u, 63u, 64u, 69u})
    EXPECT_EQ(decode(engine, {lengths[i]}, 5)[0], together[i]) << "sequence " << i;
}

TEST_P(CudaEngine, WhereGraphsHaveNoMemoryLeftStepsAreLaunchedWithTheSameBitsAndCounted) {
  Engine recorded = load(), launched = load({.graph_bytes = 0});
  constexpr int kSteps = 6;
  const auto bits = decode(recorded, {40, 9}, kSteps);
  EXPECT_EQ(recorded.step_counts().n_beyond_graphs, 0);
  EXPECT_EQ(recorded.step_counts().n_recorded, 1);
  EXPECT_EQ(decode(launched, {40, 9}, kSteps), bits);
  const StepCounts steps = launched.step_counts();
  EXPECT_EQ(steps.n_recorded + steps.n_replayed, 0);
  EXPECT_EQ(steps.n_direct, 2 + kSteps);
  EXPECT_EQ(steps.n_beyond_graphs, kSteps - 1) << "all but the first of their shape";
}

// So many more of a kind, and then none: from here to the end.
class Refused {
 public:
  Refused(std::atomic<int>& limit, int n) : limit_(limit) { limit_ = n; }
  ~Refused() { limit_ = -1; }
  Refused(const Refused&) = delete;
  Refused& operator=(const Refused&) = delete;

 private:
  std::atomic<int>& limit_;
};

// Of two ranks one gets its graph, and goes on without it like the other.
TEST_P(CudaEngine, AGraphThatTheDriverHasNoMemoryForIsAStepOfLaunchesWithTheSameBits) {
  Engine engine = load({.n_engines = 2});
  constexpr int kSteps = 6;
  const auto bits = decode(engine, {40, 9}, kSteps);
  EXPECT_EQ(engine.step_counts().n_recorded, 1);
  Engine refused = *engine.share(1);
  {
    const Refused graphs(kernels::driver_limits().graphs, std::get<1>(GetParam()) - 1);
    EXPECT_EQ(decode(refused, {40, 9}, kSteps), bits);
    EXPECT_EQ(decode(engine, {40, 9}, kSteps), bits) << "what is recorded needs no more";
  }
  EXPECT_EQ(decode(refused, {40, 9}, kSteps), bits) << "no other is tried";
  const StepCounts steps = refused.step_counts();
  EXPECT_EQ(steps.n_recorded + steps.n_replayed, 0);
  EXPECT_EQ(steps.n_direct, 2 * (2 + kSteps));
  EXPECT_EQ(steps.n_beyond_graphs, 2 * kSteps - 1) << "all but the first of their shape";
}

// Three pieces of pinned memory of each rank carry the weights; engines need others.
TEST_P(CudaEngine, PinnedMemoryThatCannotBeHadIsAnErrorOfTheModelOrTheEngine) {
  constexpr int kOfWeights = 3;
  const Engine engine = load({.n_engines = 2});
  for (const int n : {0, kOfWeights * std::get<1>(GetParam())}) {
    const Refused pinned(kernels::driver_limits().pinned, n);
    const auto model = try_to_load({});
    ASSERT_FALSE(model.has_value()) << n;
    EXPECT_NE(model.error().message.find("could not pin"), std::string::npos)
        << n << ": " << model.error().message;
    if (n > 0) continue;
    const auto shared = engine.share(1);
    ASSERT_FALSE(shared.has_value());
    EXPECT_NE(shared.error().message.find("could not pin"), std::string::npos)
        << shared.error().message;
  }
  auto made = engine.share(1);
  ASSERT_TRUE(made.has_value()) << made.error().message;
  reply(*made, {9}, 3);
}

// Every number of rows is a graph. How many one byte is enough for is the driver's to say, which
// takes memory by large pieces; whatever it is, each step is what its shape's graph allows.
TEST_P(CudaEngine, RecordingEndsOnceGraphsHaveTakenTheirMemory) {
  Engine engine = load({.graph_bytes = 1});
  constexpr int kShapes = 40, kEach = 4;
  for (int n = 1; n <= kShapes; ++n)
    decode(engine, std::vector<int>(static_cast<std::size_t>(n), 5), kEach);
  const StepCounts steps = engine.step_counts();
  EXPECT_GT(steps.n_recorded, 0);
  EXPECT_LT(steps.n_recorded, kShapes) << "no graph was found to take memory";
  std::cout << steps.n_recorded << " graphs were recorded until the first byte was taken\n";
  EXPECT_EQ(steps.n_replayed, steps.n_recorded * (kEach - 2)) << "what is recorded is replayed";
  EXPECT_EQ(steps.n_beyond_graphs, (kShapes - steps.n_recorded) * (kEach - 1));
}

TEST_P(CudaEngine, RequestsWaitForRoomInTheCaches) {
  Engine engine = load({.context = 512, .n_contexts = 2});
  ASSERT_EQ(engine.cache_room().n_tokens, 1024);
  EXPECT_EQ(engine.info().max_positions, 512);
  const auto request = [](std::size_t i) {
    return GenerateRequest{.prompt = first_tokens(20 + 31 * (i % 7)),
                           .max_tokens = 20 + 40 * static_cast<int>(i % 5),
                           .stop_ids = {0}};
  };
  constexpr std::size_t kRequests = 24;
  std::vector<std::vector<int>> alone;
  for (std::size_t i = 0; i < kRequests; ++i) alone.push_back(generate(engine, request(i))->ids());
  Generator generator(engine, static_cast<int>(kRequests));
  for (std::size_t i = 0; i < kRequests; ++i) ASSERT_TRUE(generator.submit(i, request(i)));
  std::size_t n_finished = 0;
  while (!generator.idle())
    for (const auto& finished : generator.advance()) {
      EXPECT_EQ(finished.completion.ids(), alone[finished.ticket]) << finished.ticket;
      ++n_finished;
    }
  EXPECT_EQ(n_finished, kRequests);
  EXPECT_EQ(engine.cache_room().n_free, 1024);
}

TEST_P(CudaEngine, APrefixThatLeavesNoRoomForItsRequestIsRefused) {
  Engine engine = load({.context = 512, .n_contexts = 1});
  const auto prompt = first_tokens(300);
  auto prefix = std::make_shared<Sequence>(engine.new_sequence(256));
  prefix->feed(std::span(prompt).first(256));
  Sequence* one[] = {prefix.get()};
  engine.step(one);
  Generator generator(engine, 1);
  const auto refused =
      generator.submit(0, {.prompt = prompt, .max_tokens = 10, .prefix = std::move(prefix)});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().message,
            "prompt and reply may come to 309 tokens, beside a prefix of 256: the engine's caches "
            "have room for 512. Read the prompt without a prefix, or plan fewer engines.");
}

// Every second sequence goes; one that is longer than any hole makes the others move.
TEST_P(CudaEngine, CachesThatMoveKeepTheirSequences) {
  Engine engine = load({.context = 256, .n_contexts = 8});
  const auto ids = first_tokens(200);
  const auto read = [&](Sequence& s, std::size_t first, std::size_t n) {
    s.feed(std::span(ids).subspan(first, n));
    Sequence* one[] = {&s};
    engine.step(one);
    return std::vector<float>(s.logits().begin(), s.logits().end());
  };
  std::vector<std::vector<float>> alone(8);
  for (std::size_t i = 0; i < 8; ++i) {
    Sequence s = engine.new_sequence();
    read(s, i, 100 + 5 * i);
    alone[i] = read(s, 0, 20);
  }
  std::vector<std::optional<Sequence>> sequences(8);
  for (std::size_t i = 0; i < 8; ++i) {
    sequences[i].emplace(engine.new_sequence());
    read(*sequences[i], i, 100 + 5 * i);
  }
  for (std::size_t i = 0; i < 8; i += 2) sequences[i].reset();
  EXPECT_EQ(engine.cache_room().n_free, 4 * 256);
  Sequence wide = engine.new_sequence(4 * 256);
  EXPECT_EQ(engine.cache_room().n_free, 0);
  read(wide, 0, 150);
  for (std::size_t i = 1; i < 8; i += 2) EXPECT_EQ(read(*sequences[i], 0, 20), alone[i]) << i;
}

TEST_P(CudaEngine, MoreEnginesThanThereIsMemoryForAreRefusedBeforeAnythingRuns) {
  const auto engine = try_to_load({.n_engines = 1000000});
  ASSERT_FALSE(engine.has_value());
  for (const char* part : {"does not suffice", "1000000 engines need", "of scratch and",
                           "one context of 32768 tokens", "are free", "--context"})
    EXPECT_NE(engine.error().message.find(part), std::string::npos) << engine.error().message;
}

// What a process beside this one may do between the plan and the last engine. A rank has half of
// what two plan together.
TEST_P(CudaEngine, MemoryThatIsTakenAfterThePlanIsAnErrorAndNotTheEnd) {
  const auto n_gpus = static_cast<std::size_t>(std::get<1>(GetParam()));
  const Engine engine = load({.n_engines = 2});
  const MemoryPlan& plan = engine.info().memory;
  const std::size_t need = (plan.scratch_bytes + plan.cache_bytes) / n_gpus;
  {
    std::vector<kernels::DeviceBytes> taken;  // of the first GPU
    while (kernels::cuda_device().free_bytes > need / 2)
      taken.emplace_back(
          std::max(std::size_t{1} << 21, (kernels::cuda_device().free_bytes - need / 2) / 2));
    const auto refused = engine.share(1);
    ASSERT_FALSE(refused.has_value());
    for (const char* part : {"an engine needs", "are free: another process", "--context"})
      EXPECT_NE(refused.error().message.find(part), std::string::npos) << refused.error().message;
  }
  auto made = engine.share(1);
  ASSERT_TRUE(made.has_value()) << made.error().message;
  reply(*made, {9}, 3);
}

// Four experts a token, and 64 rows beside the chunk: 4 · (16319 + 64) is 65532.
TEST_P(CudaEngine, AChunkThatNoStepTakesIsRefusedWithTheLargest) {
  const auto engine = try_to_load({.prefill_chunk = 16320});
  ASSERT_FALSE(engine.has_value());
  EXPECT_NE(engine.error().message.find("--prefill-chunk 16319 or less"), std::string::npos)
      << engine.error().message;
}

// Of each only the first engine is made: what the others will take is free to the driver.
TEST_P(CudaEngine, ModelsBesideEachOtherAreNotPlannedTheSameMemory) {
  const std::size_t free =
      kernels::cuda_device().free_bytes * static_cast<std::size_t>(std::get<1>(GetParam()));
  std::vector<Engine> engines;
  std::size_t planned = 0;
  for (int i = 0; i < 3; ++i) {
    engines.push_back(load({.n_engines = 9, .n_contexts = 1024}));
    const MemoryPlan& plan = engines.back().info().memory;
    planned += 9 * (plan.scratch_bytes + plan.cache_bytes);
  }
  EXPECT_GT(planned, free / 2) << "caches of so many contexts fill what there is";
  EXPECT_LE(planned, free);
  engines.erase(engines.begin());
  engines.push_back(load({.n_engines = 9, .n_contexts = 1024}));
  EXPECT_GT(engines.back().info().memory.cache_bytes, engines.front().info().memory.cache_bytes)
      << "what the first was promised is free again";
}

}  // namespace
}  // namespace assay::engine
