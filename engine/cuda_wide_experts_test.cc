// Models whose experts a GPU multiplies by partial sums, or by slices where they mix codebooks,
// which micro-glm's are too narrow for: against the reference, in batches, in chunks, recorded, and
// with prompts in bfloat16. Needs an H100 or H200; says so and skips without.
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "engine/backend/cuda_cache.h"
#include "engine/backend/forward_testing.h"
#include "engine/backend/tiny_model.h"
#include "kernels/cuda_memory.h"

namespace assay::engine {
namespace {

constexpr int kPrompts = 3, kTokens = 40, kMostRows = kPrompts * kTokens;
// What their kernels are called.
constexpr std::string_view kSums = "experts: vq partial sums",
                           kMixed = "experts: vq slices (partial sums, units)";
constexpr StepLimits kLimits = {.n_rows = kMostRows,
                                .n_sequences = kMostRows,
                                .n_positions = kTokens,
                                .sparse = true,
                                .cache_tokens = kPrompts * CudaCachePool::kGrain};

class CudaWideExperts : public testing::TestWithParam<std::string_view> {
 protected:
  void SetUp() override {
    if (kernels::n_cuda_devices() == 0 || kernels::cuda_device().major != 9)
      GTEST_SKIP() << "no H100 or H200 here, whose blocks have the shared memory for partial sums: "
                      "this test shows nothing";
    const auto model = load_cuda_model(m_.config, m_.weights, "");
    ASSERT_TRUE(model) << model.error().message;
    ASSERT_NE((*model)->kernel().find(GetParam()), std::string::npos) << (*model)->kernel();
    for (int i = 0; i < kPrompts; ++i) prompts_.push_back(prompt(kTokens, i, m_.config.vocab));
  }
  std::vector<std::vector<float>> on_gpu(const char* kernel, int chunk,
                                         const std::vector<std::vector<int>>& prompts) const {
    const auto model = load_cuda_model(m_.config, m_.weights, kernel);
    CHECK(model.has_value()) << model.error().message;
    return run(m_, *model, 1, prompts, chunk, true, nullptr, kLimits);
  }

  const TinyModel m_ =
      GetParam() == kMixed ? TinyModel::mixed_experts() : TinyModel::wide_experts();
  std::vector<std::vector<int>> prompts_;
};

// Rows of 1,024 columns, not of 78 at most, have that many times the bound of their sums.
TEST_P(CudaWideExperts, LogitsAgreeWithTheReference) {
  const auto reference = load_reference_model(m_.config, m_.weights, "");
  ASSERT_TRUE(reference);
  Margins margins;
  const auto expected = run(m_, *reference, 2, prompts_, 16, true, &margins);
  ASSERT_GT(margins.smallest, 1e-6f) << "choose a seed without near-ties";
  const auto got = on_gpu("", 16, prompts_), rounded = on_gpu("bf16", 16, prompts_);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(worst_beyond(expected[i], got[i], m_.config.vocab, kForwardTolerance * 1024 / 78),
              "");
    // Seventeen roundings to bfloat16 a layer, of either sign; a forgotten term is a tenth and
    // more.
    EXPECT_EQ(worst_beyond(expected[i], rounded[i], m_.config.vocab, 0.05), "");
  }
}

TEST_P(CudaWideExperts, BitsDoNotDependOnChunksBatchesOrRecording) {
  std::vector<std::vector<float>> alone;
  for (const auto& p : prompts_) alone.push_back(on_gpu("stream", kTokens, {p})[0]);
  for (const char* kernel : {"graph", "stream"})
    for (const int chunk : {1, 7, kTokens}) {
      const auto got = on_gpu(kernel, chunk, prompts_);
      for (std::size_t i = 0; i < alone.size(); ++i)
        EXPECT_EQ(first_difference(alone[i], got[i]), "")
            << kernel << ", chunks of " << chunk << ", prompt " << i;
    }
}

INSTANTIATE_TEST_SUITE_P(, CudaWideExperts, testing::Values(kSums, kMixed),
                         [](const auto& of) { return of.param == kMixed ? "Mixed" : "Uniform"; });

}  // namespace
}  // namespace assay::engine
