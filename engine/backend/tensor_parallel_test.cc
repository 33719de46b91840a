// Several ranks against one, on the CPU: the same logits within the bound of a forward pass, and
// of themselves the same bits whatever the threads, the chunks and the batch.
#include "engine/backend/tensor_parallel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/backend/forward_testing.h"
#include "engine/backend/tiny_model.h"
#include "engine/forward.h"

namespace assay::engine {
namespace {

const RankKind kCpu = {"cpu", load_cpu_model, new_thread_comms, new_process_comm};
const RankKind kReference = {"reference", load_reference_model, new_thread_comms, new_process_comm};

Model on_ranks(const TinyModel& m, const RankKind& kind, int n_ranks) {
  auto model = load_tensor_parallel_model(kind, m.config, m.weights, n_ranks, {});
  EXPECT_TRUE(model) << model.error().message;
  return *model;
}

// The names and values of all that a run shows.
struct Tensors final : Observer {
  void on_tensor(const std::string& name, const Backend& b, Act act) override {
    auto& values = seen[name];
    const auto rows = b.read(act);
    values.insert(values.end(), rows.begin(), rows.end());
  }
  void on_selection(int layer, const Backend& b) override {
    for (const auto& keys : b.read_selection().keys)
      chosen[layer].insert(chosen[layer].end(), keys.begin(), keys.end());
  }
  void on_routing(int layer, const Backend& b) override {
    const Routing r = b.read_routing();
    chosen[-1 - layer].insert(chosen[-1 - layer].end(), r.expert.begin(), r.expert.end());
  }
  std::map<std::string, std::vector<float>> seen;
  std::map<int, std::vector<int>> chosen;
};

class Ranks : public testing::TestWithParam<std::tuple<bool, int>> {  // quantised, ranks
 protected:
  bool quantised() const { return std::get<0>(GetParam()); }
  int n_ranks() const { return std::get<1>(GetParam()); }
  // 24 columns of o to a rank, which every codeword fits; experts in parts of 8 and 16, or 9
  // and 10.
  TinyModel model() const {
    return quantised() ? TinyModel::quantised(1, 2 * n_ranks())
                       : TinyModel(DType::kBf16, n_ranks(), 42);
  }
};

TEST_P(Ranks, EveryTensorAgreesWithOneRank) {
  const TinyModel m = model();
  for (const bool sparse : {false, true}) {
    const auto whole = load_reference_model(m.config, m.weights, "");
    ASSERT_TRUE(whole);
    const std::vector<std::vector<int>> prompts = {prompt(150, 1, m.config.vocab),
                                                   prompt(90, 2, m.config.vocab)};
    Margins margins;
    run(m, *whole, 2, prompts, 64, sparse, &margins);
    ASSERT_GT(margins.smallest, 1e-6f) << "choose a seed without near-ties";
    Tensors expected;
    const auto logits = run(m, *whole, 2, prompts, 64, sparse, &expected);
    for (const RankKind& kind : {kReference, kCpu}) {
      const Model parted = on_ranks(m, kind, n_ranks());
      for (std::size_t i = 0; i < prompts.size(); ++i)
        expect_close(logits[i], run(m, parted, 2, prompts, 64, sparse)[i], m.config.vocab);
      Tensors got;
      run(m, parted, 2, prompts, 64, sparse, &got);
      ASSERT_EQ(got.seen.size(), expected.seen.size());
      for (const auto& [name, values] : expected.seen)
        EXPECT_EQ(worst_beyond(values, got.seen.at(name), 1), "") << name;
      EXPECT_EQ(got.chosen, expected.chosen);
    }
  }
}

TEST_P(Ranks, BitsDoNotDependOnThreadsChunksOrBatch) {
  const TinyModel m = model();
  const std::vector<std::vector<int>> prompts = {prompt(90, 2, m.config.vocab),
                                                 prompt(70, 3, m.config.vocab)};
  const Model parted = on_ranks(m, kCpu, n_ranks());
  std::vector<std::vector<float>> expected;
  for (const auto& p : prompts) expected.push_back(run(m, parted, 1, {p}, 90, true)[0]);
  const Model again = on_ranks(m, kCpu, n_ranks());
  for (const auto& [n_threads, chunk] : {std::pair{1, 1}, {1, 64}, {6, 7}, {6, 64}}) {
    const auto got = run(m, again, n_threads, prompts, chunk, true);
    for (std::size_t i = 0; i < prompts.size(); ++i)
      EXPECT_EQ(first_difference(expected[i], got[i]), "")
          << n_threads << " threads, chunks of " << chunk << ", prompt " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, Ranks, testing::Combine(testing::Bool(), testing::Values(2, 3)));

// Rows by any order and one twice; requests that draw, take the largest and punish repetition.
TEST(TensorParallel, SamplesAreThoseOfItsLogits) {
  const TinyModel m(DType::kBf16, 6);
  const std::vector<int> history = prompt(20, 1, m.config.vocab), watched = {0, m.config.vocab - 1};
  for (const RankKind& kind : {kReference, kCpu})
    for (const int n_ranks : {2, 3}) {
      const Model model = on_ranks(m, kind, n_ranks);
      EXPECT_FALSE(model->samples_on_device());
      const auto backend = *model->new_executor(2, {});
      const auto cache = backend->new_cache(32);
      StepRows step;
      step.tokens = history;
      step.segments = {{cache.get(), 0, 20, 0}};
      const std::vector<int> rows = {19, 3, 19, 7};
      const SampleRequest asked[] = {
          {.n_top = 5, .watched = watched},
          {.params = {.temperature = 1.5}, .key = {1, 2, 3}},
          {.params = {.temperature = 1, .top_p = 0.9, .top_k = 20}, .key = {4, 5, 6}},
          {.params = {.repetition_penalty = 1.3}, .history = history, .n_top = 1}};
      std::vector<float> logits(rows.size() * static_cast<std::size_t>(m.config.vocab));
      std::vector<Sampled> got(rows.size());
      forward(*backend, m.config, step, false,
              {.logit_rows = rows,
               .logits = logits,
               .sample_rows = rows,
               .requests = asked,
               .sampled = got});
      for (std::size_t i = 0; i < rows.size(); ++i) {
        const auto expected =
            kernels::sample(std::span(logits).subspan(i * static_cast<std::size_t>(m.config.vocab),
                                                      static_cast<std::size_t>(m.config.vocab)),
                            asked[i]);
        EXPECT_EQ(got[i].id, expected.id) << i;
        EXPECT_EQ(got[i].logprob, expected.logprob) << i;
        EXPECT_EQ(got[i].top, expected.top) << i;
        EXPECT_EQ(got[i].watched_probability, expected.watched_probability) << i;
      }
    }
}

TEST(TensorParallel, CachesForkAndTruncateOnEveryRank) {
  const TinyModel m(DType::kBf16, 2);
  const Model model = on_ranks(m, kCpu, 2);
  const auto backend = *model->new_executor(2, {});
  const auto tokens = prompt(90, 5, m.config.vocab);
  const auto step = [&](KvCache& cache, int first, int n) {
    return read_on(*backend, m.config, cache, std::span(tokens).subspan(first, n));
  };
  const auto cache = backend->new_cache(100);
  step(*cache, 0, 80);
  const auto copy = cache->fork(0);
  EXPECT_EQ(copy->n_tokens(), 80);
  EXPECT_EQ(copy->bytes(), cache->bytes());
  const auto expected = step(*cache, 80, 10);
  EXPECT_EQ(first_difference(expected, step(*copy, 80, 10)), "") << "a fork continues the same";
  cache->truncate(70);
  step(*cache, 0, 7);
  cache->truncate(70);
  step(*cache, 70, 10);
  EXPECT_EQ(first_difference(expected, step(*cache, 80, 10)), "") << "dropped rows leave no trace";
}

TEST(TensorParallel, AStepWithoutLogitsFillsTheCacheAllTheSame) {
  const TinyModel m(DType::kBf16, 2);
  const Model model = on_ranks(m, kReference, 2);
  const auto backend = *model->new_executor(1, {});
  const auto cache = backend->new_cache(100);
  StepRows rows;
  rows.tokens = prompt(5, 1, m.config.vocab);
  rows.segments = {{cache.get(), 0, 5, 0}};
  std::vector<float> none;
  forward(*backend, m.config, rows, false, {.logit_rows = {}, .logits = none});
  EXPECT_EQ(cache->n_tokens(), 5);
  // A layer alone, as the quantiser runs it: from given rows, without an end.
  const std::vector<float> given(static_cast<std::size_t>(5 * m.config.hidden), 0.5f);
  rows.segments[0].first_position = 5;
  backend->begin_step(rows);
  backend->set_residual(given);
  EXPECT_EQ(backend->read(Act::kResidual), given);
}

TEST(TensorParallel, SaysSoAndRefusesAKernelOnEveryRank) {
  const TinyModel m(DType::kBf16, 2);
  const Model model = on_ranks(m, kReference, 2);
  EXPECT_EQ(model->backend(), "reference");
  EXPECT_EQ(model->kernel(), "scalar, tp 2");
  const auto other = model->with(m.config, m.weights);
  ASSERT_TRUE(other);
  EXPECT_EQ((*other)->kernel(), "scalar, tp 2");
  const auto refused = load_tensor_parallel_model(kCpu, m.config, m.weights, 2, {.kernel = "neon"});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, testing::HasSubstr("rank 0 of 2"));
  EXPECT_THAT(refused.error().message, testing::HasSubstr("'neon'"));
}

// A model that plans as a GPU's does: scratch of a byte, and of sums what a rank of so many
// gathers. And that has a roof as a GPU has: of its weights.
class PlanningModel final : public BackendModel {
 public:
  PlanningModel(Model inner, int hidden) : inner_(std::move(inner)), hidden_(hidden) {}
  static Result<Model> load(const ModelConfig& config, const ModelWeights& weights,
                            std::string_view kernel) {
    ASSAY_TRY(auto inner, load_reference_model(config, weights, kernel));
    return std::make_shared<const PlanningModel>(std::move(inner), config.hidden);
  }
  std::string_view backend() const override { return inner_->backend(); }
  std::string kernel() const override { return inner_->kernel(); }
  bool samples_on_device() const override { return false; }
  std::size_t weight_bytes() const override { return inner_->weight_bytes(); }
  Result<MemoryPlan> plan(const MemoryNeeds& needs) const override {
    MemoryPlan plan{.limits = {.n_rows = 10, .cache_tokens = 256}, .scratch_bytes = 1};
    plan.sum_bytes = bytes_of_sums(needs.n_ranks, plan.limits, hidden_);
    return plan;
  }
  Result<std::vector<DeviceRoof>> measure_roofs() const override {
    DeviceRoof roof{.read_bytes_per_s = 7, .half_fma_per_s = 8};
    roof.token.weights = hidden_;
    return std::vector{roof};
  }
  // As a device of which another process has taken the rest.
  Result<std::unique_ptr<Backend>> new_executor(int n_threads,
                                                const StepLimits& limits) const override {
    if (limits.n_rows > 10) return fail("no room for {} rows", limits.n_rows);
    return inner_->new_executor(n_threads, {});
  }
  Result<Model> with(const ModelConfig& config, const ModelWeights& weights) const override {
    return inner_->with(config, weights);
  }

 private:
  const Model inner_;
  const int hidden_;
};

TEST(TensorParallel, EveryRankPlansWhereItGathersTheSumsOfAll) {
  const TinyModel m(DType::kBf16, 2);
  const RankKind planning = {"reference", PlanningModel::load, new_thread_comms, new_process_comm};
  const auto plan = on_ranks(m, planning, 2)->plan({});
  ASSERT_TRUE(plan) << plan.error().message;
  const std::size_t of_rank = 2 * 10 * sizeof(float) * static_cast<std::size_t>(m.config.hidden);
  EXPECT_EQ(plan->scratch_bytes, 2 * (1 + of_rank));
}

TEST(TensorParallel, EveryRanksDeviceHasItsRoofAndAHostHasNone) {
  const TinyModel m(DType::kBf16, 2);
  const RankKind planning = {"reference", PlanningModel::load, new_thread_comms, new_process_comm};
  const auto roofs = on_ranks(m, planning, 2)->measure_roofs();
  ASSERT_TRUE(roofs) << roofs.error().message;
  ASSERT_EQ(roofs->size(), 2u);
  EXPECT_EQ(roofs->back().read_bytes_per_s, 7);
  EXPECT_EQ(roofs->back().token.weights, m.config.hidden);
  EXPECT_TRUE(on_ranks(m, kReference, 2)->measure_roofs()->empty());
}

TEST(TensorParallel, AnExecutorThatARankHasNoRoomForIsAnErrorAndTheRanksGoOn) {
  const TinyModel m(DType::kBf16, 2);
  const RankKind planning = {"reference", PlanningModel::load, new_thread_comms, new_process_comm};
  const Model model = on_ranks(m, planning, 2);
  const auto refused = model->new_executor(1, {.n_rows = 11});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "rank 0 of 2: no room for 11 rows");
  const auto backend = model->new_executor(1, {.n_rows = 10});
  ASSERT_TRUE(backend) << backend.error().message;
  EXPECT_EQ((*backend)->new_cache(5)->n_tokens(), 0);
}

TEST(TensorParallel, ExecutorsOfOneModelWorkSideBySide) {
  const TinyModel m(DType::kBf16, 2);
  const Model model = on_ranks(m, kCpu, 2);
  const std::vector<std::vector<int>> prompts = {prompt(40, 2, m.config.vocab)};
  const auto expected = run(m, model, 1, prompts, 8, true);
  std::vector<std::vector<std::vector<float>>> got(3);
  std::vector<std::thread> threads;
  for (auto& g : got) threads.emplace_back([&] { g = run(m, model, 1, prompts, 8, true); });
  for (std::thread& t : threads) t.join();
  for (const auto& g : got) EXPECT_EQ(first_difference(expected[0], g[0]), "");
}

}  // namespace
}  // namespace assay::engine
