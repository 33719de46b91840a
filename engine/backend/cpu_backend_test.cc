// The cpu backend against the reference, and against itself: whatever the threads, the chunks, the
// batch and the instruction set, the bits are the same.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "engine/backend/cpu_packer.h"
#include "engine/backend/forward_testing.h"
#include "engine/backend/tiny_model.h"
#include "engine/checkpoint/tiny_quantised.h"
#include "kernels/cpu_target.h"
#include "kernels/vq_slices.h"
#include "kernels/vq_sums.h"

namespace assay::engine {
namespace {

template <class M>  // TinyModel or Loaded
Model cpu_model(const M& m, std::string_view kernel = "") {
  auto model = load_cpu_model(m.config, m.weights, kernel);
  EXPECT_TRUE(model) << model.error().message;
  return *model;
}

TEST(WorstBeyond, FailsOnANanAtOnceAndNamesTheWorstOtherwise) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> expected = {1, 2, 3, 4};
  EXPECT_EQ(worst_beyond(expected, {1, 2, 3, 4.001f}, 2), "");
  EXPECT_EQ(worst_beyond(expected, {1, 2.1f, 3.5f, 4}, 2), "row 1 token 0: expected 3, got 3.5");
  EXPECT_EQ(worst_beyond(expected, {1, kNan, 3, 4}, 2), "row 0 token 1: expected 2, got nan");
  EXPECT_EQ(worst_beyond({1, kNan, 3}, {1, kNan, 3}, 3), "row 0 token 1: expected nan, got nan");
  EXPECT_NE(worst_beyond(expected, {1, 2, 3, std::numeric_limits<float>::infinity()}, 2), "");
}

class AgainstReference : public testing::TestWithParam<std::tuple<DType, bool>> {};
INSTANTIATE_TEST_SUITE_P(TypesDenseAndSparse, AgainstReference,
                         testing::Combine(testing::Values(DType::kBf16, DType::kF32),
                                          testing::Bool()));

TEST_P(AgainstReference, LogitsAgreeAtEveryPosition) {
  const auto [dtype, sparse] = GetParam();
  const TinyModel m(dtype);
  const auto reference = load_reference_model(m.config, m.weights, "");
  ASSERT_TRUE(reference);
  const std::vector<std::vector<int>> prompts = {prompt(150, 1, m.config.vocab)};
  Margins margins;
  const auto expected = run(m, *reference, 2, prompts, 64, sparse, &margins);
  ASSERT_GT(margins.smallest, 1e-6f) << "choose a seed without near-ties";
  expect_close(expected[0], run(m, cpu_model(m), 2, prompts, 64, sparse)[0], m.config.vocab);
}

class Determinism : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(DenseAndSparse, Determinism, testing::Bool());

TEST_P(Determinism, BitsDoNotDependOnThreadsOrChunks) {
  const TinyModel m;
  const Model model = cpu_model(m);
  const std::vector<std::vector<int>> prompts = {prompt(140, 2, m.config.vocab)};
  const auto expected = run(m, model, 1, prompts, 140, GetParam())[0];
  for (const int n_threads : {1, 2, 3})
    for (const int chunk : {1, 7, 64, 140})
      EXPECT_EQ(first_difference(expected, run(m, model, n_threads, prompts, chunk, GetParam())[0]),
                "")
          << n_threads << " threads, chunks of " << chunk;
}

TEST_P(Determinism, BitsDoNotDependOnTheBatch) {
  const TinyModel m;
  const Model model = cpu_model(m);
  const int lengths[] = {150, 1, 80, 65, 64, 130, 17, 99};
  std::vector<std::vector<int>> prompts;
  for (const int n : lengths)
    prompts.push_back(prompt(n, static_cast<int>(prompts.size()), m.config.vocab));
  std::vector<std::vector<float>> alone;
  for (const auto& p : prompts) alone.push_back(run(m, model, 1, {p}, 50, GetParam())[0]);
  for (const int batch : {3, 8})
    for (const int chunk : {1, 33}) {
      const std::vector<std::vector<int>> some(prompts.begin(), prompts.begin() + batch);
      const auto together = run(m, model, 2, some, chunk, GetParam());
      for (int i = 0; i < batch; ++i)
        EXPECT_EQ(first_difference(alone[i], together[i]), "")
            << "prompt " << i << " of " << batch << ", chunks of " << chunk;
    }
}

TEST_P(Determinism, BitsDoNotDependOnTheInstructionSet) {
  if (kernels::usable_cpu_targets().size() < 2) GTEST_SKIP() << "one instruction set only";
  for (const int n_heads : {3, 6, 17})  // lanes of one tile: part of a vector, several, odd
    for (const DType dtype : {DType::kBf16, DType::kF32}) {
      const TinyModel m(dtype, n_heads, 48);
      const Model avx2 = cpu_model(m, "avx2"), avx512 = cpu_model(m, "avx512");
      EXPECT_EQ(avx2->kernel(), "avx2");
      EXPECT_EQ(avx512->kernel(), "avx512");
      const std::vector<std::vector<int>> prompts = {prompt(100, 3, m.config.vocab)};
      for (const int chunk : {3, 64})
        EXPECT_EQ(first_difference(run(m, avx2, 1, prompts, chunk, GetParam())[0],
                                   run(m, avx512, 1, prompts, chunk, GetParam())[0]),
                  "")
            << n_heads << " heads, chunks of " << chunk;
    }
}

TEST(QuantisedModel, LogitsAgreeWithTheReferenceAtEveryPosition) {
  for (const bool sparse : {false, true}) {
    const TinyModel m = TinyModel::quantised();
    const auto reference = load_reference_model(m.config, m.weights, "");
    ASSERT_TRUE(reference);
    const std::vector<std::vector<int>> prompts = {prompt(150, 1, m.config.vocab)};
    Margins margins;
    const auto expected = run(m, *reference, 2, prompts, 64, sparse, &margins);
    ASSERT_GT(margins.smallest, 1e-6f) << "choose a seed without near-ties";
    expect_close(expected[0], run(m, cpu_model(m), 2, prompts, 64, sparse)[0], m.config.vocab);
  }
}

// What cuda_wide_experts_test runs on a GPU: by their shapes, its experts go by partial sums there,
// and mixed ones by slices.
TEST(WideExperts, AreForPartialSumsOrSlicesAndAgreeWithTheReference) {
  for (const bool mixed : {false, true}) {
    const TinyModel m = mixed ? TinyModel::mixed_experts() : TinyModel::wide_experts();
    std::vector<kernels::VqMatrix> experts;
    for (const MlpWeights& e : m.weights.layers.back().experts)
      for (const Matrix* part : {&e.gate, &e.up, &e.down})
        experts.push_back(std::get<kernels::VqMatrix>(part->codes));
    constexpr std::size_t kH200 = 227 << 10;
    const int top_k = m.config.n_experts_per_token;
    EXPECT_TRUE(kernels::slices_pay(experts));
    EXPECT_TRUE(kernels::plan_slices(experts, top_k, kH200).is_by_slices());
    EXPECT_TRUE(mixed || kernels::sums_pay(experts));
    EXPECT_EQ(kernels::plan_sums(experts, top_k, kH200).is_by_sums(), !mixed);

    const auto reference = load_reference_model(m.config, m.weights, "");
    ASSERT_TRUE(reference);
    const std::vector<std::vector<int>> prompts = {prompt(20, 0, m.config.vocab)};
    Margins margins;
    const auto expected = run(m, *reference, 2, prompts, 16, true, &margins);
    ASSERT_GT(margins.smallest, 1e-6f) << "choose a seed without near-ties";
    EXPECT_EQ(worst_beyond(expected[0], run(m, cpu_model(m), 2, prompts, 16, true)[0],
                           m.config.vocab, kForwardTolerance * 1024 / 78),
              "");
  }
}

// One token takes another path through the experts than several do.
TEST(QuantisedModel, BitsDoNotDependOnThreadsChunksBatchOrInstructionSet) {
  const TinyModel m = TinyModel::quantised();
  const std::vector<std::vector<int>> prompts = {prompt(90, 2, m.config.vocab),
                                                 prompt(70, 3, m.config.vocab)};
  std::vector<std::vector<float>> expected;
  for (const auto& p : prompts) expected.push_back(run(m, cpu_model(m), 1, {p}, 90, true)[0]);
  for (const kernels::CpuTarget target : kernels::usable_cpu_targets()) {
    const Model model = cpu_model(m, kernels::cpu_target_name(target));
    for (const int n_threads : {1, 2, 3})
      for (const int chunk : {1, 7, 64}) {
        const auto got = run(m, model, n_threads, prompts, chunk, true);
        for (std::size_t i = 0; i < prompts.size(); ++i)
          EXPECT_EQ(first_difference(expected[i], got[i]), "")
              << model->kernel() << ", " << n_threads << " threads, chunks of " << chunk
              << ", prompt " << i;
      }
  }
}

// From a folder through the reader, as users load one.
struct Loaded {
  explicit Loaded(const TinyQuantised& tiny) {
    tiny.write(folder);
    auto opened = Checkpoint::open(folder.dir);
    if (!opened) {
      error = opened.error().message;
      return;
    }
    checkpoint = *std::move(opened);
    config = checkpoint->config();
    auto bound = bind_weights(*checkpoint);
    if (bound)
      weights = *std::move(bound);
    else
      error = bound.error().message;
  }
  TinyCheckpoint folder;
  std::optional<Checkpoint> checkpoint;
  ModelConfig config{};
  ModelWeights weights;
  std::string error;
};

// What the reader accepts must not end in a CHECK of a kernel.
TEST(LoadedModel, LongCodewordsAndManyCodebooksRunAsTheReferenceDoes) {
  constexpr const char* kDown = "model.layers.0.mlp.down_proj";  // [16, 24]
  constexpr const char* kHead = "lm_head";                       // [40, 16]
  struct Layout {
    const char* name;
    void (*make)(TinyQuantised&);
  };
  constexpr Layout kLayouts[] = {
      {"vq d24", [](TinyQuantised& t) { t.vq(kDown, 8.0 / 24, 24, 24); }},
      {"vq d16", [](TinyQuantised& t) { t.vq(kHead, 0.5, 16, 16); }},
      {"aqlm 8x8 d24", [](TinyQuantised& t) { t.aqlm(kDown, 24, 8, 8); }},
      {"aqlm 8x8 d8", [](TinyQuantised& t) { t.aqlm(kHead, 8, 8, 8); }},
      {"aqlm 5x4 d2, bf16 scales", [](TinyQuantised& t) { t.aqlm(kHead, 2, 5, 4, "BF16"); }},
      {"aqlm 1x16 d8", [](TinyQuantised& t) { t.aqlm(kHead, 8, 1, 16); }}};
  for (const Layout& layout : kLayouts) {
    SCOPED_TRACE(layout.name);
    TinyQuantised tiny;
    layout.make(tiny);
    const Loaded m(tiny);
    ASSERT_EQ(m.error, "");
    const auto reference = load_reference_model(m.config, m.weights, "");
    ASSERT_TRUE(reference);
    const std::vector<std::vector<int>> prompts = {prompt(30, 1, m.config.vocab)};
    Margins margins;
    const auto expected = run(m, *reference, 1, prompts, 30, false, &margins);
    ASSERT_GT(margins.smallest, 1e-6f) << "choose a seed without near-ties";
    for (const kernels::CpuTarget target : kernels::usable_cpu_targets())
      for (const int chunk : {1, 30})
        expect_close(
            expected[0],
            run(m, cpu_model(m, kernels::cpu_target_name(target)), 2, prompts, chunk, false)[0],
            m.config.vocab);
  }
}

TEST(CpuBackend, SparseIsDenseUntilThePromptExceedsTheSelection) {
  const TinyModel m;
  const Model model = cpu_model(m);
  const std::vector<std::vector<int>> prompts = {
      prompt(m.config.index_topk + 1, 4, m.config.vocab)};
  auto dense = run(m, model, 2, prompts, 9, false)[0],
       sparse = run(m, model, 2, prompts, 9, true)[0];
  const auto vocab = static_cast<std::size_t>(m.config.vocab);
  const std::vector<float> dense_last(dense.end() - vocab, dense.end()),
      sparse_last(sparse.end() - vocab, sparse.end());
  EXPECT_NE(first_difference(dense_last, sparse_last), "") << "the last row leaves one key out";
  dense.resize(dense.size() - vocab);
  sparse.resize(sparse.size() - vocab);
  EXPECT_EQ(first_difference(dense, sparse), "");
}

TEST(CpuBackend, CacheForksAndTruncates) {
  const TinyModel m;
  const auto backend = *cpu_model(m)->new_executor(2, {});
  const auto tokens = prompt(90, 5, m.config.vocab);
  const auto step = [&](KvCache& cache, int first, int n) {
    return read_on(*backend, m.config, cache, std::span(tokens).subspan(first, n));
  };
  const auto cache = backend->new_cache(100);
  EXPECT_EQ(cache->bytes(), 0u);
  step(*cache, 0, 80);
  const auto copy = cache->fork(0);
  EXPECT_EQ(copy->n_tokens(), 80);
  const auto expected = step(*cache, 80, 10);
  EXPECT_EQ(first_difference(expected, step(*copy, 80, 10)), "") << "a fork continues the same";
  cache->truncate(70);
  step(*cache, 0, 7);  // other tokens overwrite the rows that were dropped
  cache->truncate(70);
  step(*cache, 70, 10);
  EXPECT_EQ(first_difference(expected, step(*cache, 80, 10)), "") << "dropped rows leave no trace";
  const double full = 4096.0 * (m.config.kv_row() * m.config.n_layers) * sizeof(float);
  EXPECT_LT(static_cast<double>(cache->bytes()), full / 4) << "not allocated for max_positions";
}

TEST(CpuPacker, PacksEachMatrixOnce) {
  const TinyModel m;
  const LayerWeights& l = m.weights.layers[1];
  CpuPacker packer;
  const auto* first = packer.pack(l.o).dense()->block(0);
  EXPECT_EQ(packer.pack(l.o).dense()->block(0), first);
  EXPECT_NE(packer.pack(l.q_a).dense()->block(0), first);
  const MlpWeights &a = l.experts[0], &b = l.experts[1];
  const auto* both = packer.pack_in_turn(a.gate, a.up).block(0);
  EXPECT_EQ(packer.pack_in_turn(a.gate, a.up).block(0), both);
  EXPECT_NE(packer.pack_in_turn(a.gate, b.up).block(0), both) << "half of it is another";
  EXPECT_EQ(&packer.pack_kv_up(m.config, l.kv_b), &packer.pack_kv_up(m.config, l.kv_b));
}

TEST(CpuBackend, RefusesAKernelThatIsNotThere) {
  const TinyModel m;
  const auto model = load_cpu_model(m.config, m.weights, "neon");
  ASSERT_FALSE(model);
  EXPECT_THAT(model.error().message, testing::HasSubstr("'neon'"));
  EXPECT_THAT(model.error().message, testing::HasSubstr("avx2"));
}

}  // namespace
}  // namespace assay::engine
