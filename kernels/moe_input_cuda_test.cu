// A sparse MLP's launches that do two things, on a GPU: the router's choice beside the shared
// experts' gate and up, the shared experts' down beside the sum of the routed ones. Each has the
// bits of the launches that do one. Need a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/cuda_check.cuh"
#include "kernels/moe_input_cuda.h"
#include "kernels/moe_sums_combine.h"
#include "kernels/moe_testing.cuh"
#include "kernels/project_cuda.h"
#include "kernels/route.h"

namespace assay::kernels {
namespace {

constexpr float kScaling = 2.5f;

std::size_t area(int rows, int cols) { return at(rows, cols, 0); }

struct Input {
  HostMatrix router, gate, up;
  int n_tokens, top_k;

  int n_experts() const { return router.dense.n_rows; }
  int n_cols() const { return router.dense.n_cols; }
};

// What it makes: in its own arrays, poisoned beforehand.
struct Made {
  std::vector<float> logits, h, weight, margin;
  std::vector<int> expert;
};
struct Outputs {
  DeviceArray<float> logits, h, weight, margin;
  DeviceArray<int> expert;

  Outputs(const Input& in, int width)
      : logits(poisoned(area(in.n_tokens, in.n_experts()))),
        h(poisoned(area(in.n_tokens, width))),
        weight(poisoned(area(in.n_tokens, in.top_k))),
        margin(poisoned(area(in.n_tokens, 1))),
        expert(std::vector<int>(area(in.n_tokens, in.top_k), -1)) {}
  Made made() const {
    return {logits.host(), h.host(), weight.host(), margin.host(), expert.host()};
  }
  RouteCuda route(const Input& in, const float* bias) const {
    return {.logits = logits.data(),
            .bias = bias,
            .n_rows = in.n_tokens,
            .n_experts = in.n_experts(),
            .top_k = in.top_k,
            .normalise = true,
            .scaling = kScaling,
            .expert = expert.data(),
            .weight = weight.data(),
            .margin = margin.data()};
  }
};

// The choice of each row from the logits that were made, which the products' own tests hold to the
// reference.
void expect_references_choice(const Input& in, const std::vector<float>& bias, const Made& got) {
  const auto n = static_cast<std::size_t>(in.n_experts()), k = static_cast<std::size_t>(in.top_k);
  std::vector<int> expert(k);
  std::vector<float> weight(k);
  for (std::size_t t = 0; t < got.margin.size(); ++t) {
    route_reference({.logits = &got.logits[t * n],
                     .bias = bias.data(),
                     .n_experts = in.n_experts(),
                     .top_k = in.top_k,
                     .normalise = true,
                     .scaling = kScaling,
                     .expert = expert.data(),
                     .weight = weight.data(),
                     .margin = nullptr});
    for (std::size_t i = 0; i < k; ++i) {
      ASSERT_EQ(got.expert[t * k + i], expert[i]) << "token " << t;
      ASSERT_NEAR(got.weight[t * k + i], weight[i], 0x1p-23 * std::abs(weight[i]));
    }
  }
}

// Between rows of x are NaNs.
void expect_bits_of_separate_launches(const Input& in, bool shares, Random& random) {
  DeviceWeights memory;
  const DeviceMatrix router = in.router.upload(memory), gate = in.gate.upload(memory),
                     up = in.up.upload(memory);
  const int x_stride = in.n_cols() + 4;
  std::vector<float> rows(area(in.n_tokens, x_stride), std::nanf(""));
  for (int t = 0; t < in.n_tokens; ++t) {
    const std::vector<float> row = random.floats(area(1, in.n_cols()));
    std::transform(row.begin(), row.end(),
                   rows.begin() + static_cast<std::ptrdiff_t>(area(t, x_stride)),
                   [](float v) { return v / 16; });
  }
  const std::vector<float> bias = random.floats(area(1, in.n_experts()));
  const DeviceArray<float> x(rows), d_bias(bias);

  const Outputs apart(in, gate.n_rows);
  project_cuda(router, x.data(), x_stride, in.n_tokens, apart.logits.data(), in.n_experts(), false,
               nullptr);
  route_cuda(apart.route(in, d_bias.data()), nullptr);
  swiglu_cuda(gate, up, x.data(), x_stride, in.n_tokens, apart.h.data(), nullptr);
  const Made expected = apart.made();
  expect_references_choice(in, bias, expected);

  const Outputs together(in, gate.n_rows);
  const MoeInputCuda args = {.router = &router,
                             .gate = &gate,
                             .up = &up,
                             .x = x.data(),
                             .x_stride = x_stride,
                             .n_tokens = in.n_tokens,
                             .logits = together.logits.data(),
                             .route = together.route(in, d_bias.data()),
                             .h = together.h.data()};
  ASSERT_EQ(choice_shares_launch(args), shares);
  moe_input_cuda(args, nullptr);
  const Made got = together.made();
  ASSERT_EQ(got.logits, expected.logits);
  ASSERT_EQ(got.expert, expected.expert);
  ASSERT_EQ(got.weight, expected.weight);
  ASSERT_EQ(got.margin, expected.margin);
  ASSERT_EQ(got.h, expected.h);
}

// Experts that fill no warp and all threads; tiles of gate and up that leave multiprocessors to the
// choice, and that do not; one tile alone; passes of four tokens and of fewer.
TEST_F(Cuda, TheChoiceBesideGateAndUpHasTheBitsOfItsOwnLaunch) {
  Random random(81);
  struct Shape {
    int n_experts, top_k, n_cols, width, group;
  };
  const Shape kShapes[] = {{16, 4, 320, 96, 64},
                           {256, 8, 6144, 2048, 128},
                           {1, 1, 384, 16, 32},
                           {33, 32, 1664, 2500, 128},
                           {512, 7, 320, 130, 32}};
  for (const Shape& s : kShapes)
    for (const int bits : {4, 8})
      for (const int n_tokens : {1, 4, 9}) {
        const bool is_large = s.n_cols == 6144;
        if ((is_large && n_tokens == 9) || (under_racecheck() && (is_large || n_tokens == 4)))
          continue;
        const WeightType type = bits == 4 ? WeightType::kBf16 : WeightType::kF32;
        expect_bits_of_separate_launches(
            {dense(type, s.n_experts, s.n_cols, false, random),
             gptq(bits, s.width, s.n_cols, s.group, false, random),
             gptq(bits, s.width, s.n_cols, s.group, false, random), n_tokens, s.top_k},
            true, random);
      }
}

// Gate and up of other kinds, unlike each other, more experts than threads that choose.
TEST_F(Cuda, SoItHasWhereItTakesSeveral) {
  Random random(82);
  const auto bf16 = [&](int n_rows) {
    return dense(WeightType::kBf16, n_rows, 640, false, random);
  };
  for (const int n_tokens : {1, 5}) {
    expect_bits_of_separate_launches({bf16(20), bf16(96), bf16(96), n_tokens, 3}, false, random);
    expect_bits_of_separate_launches(
        {bf16(20), fp8(96, 640, 128, random), fp8(96, 640, 128, random), n_tokens, 3}, false,
        random);
    expect_bits_of_separate_launches({bf16(20), gptq(4, 96, 640, 128, false, random),
                                      gptq(8, 96, 640, 128, false, random), n_tokens, 3},
                                     false, random);
    expect_bits_of_separate_launches({bf16(513), gptq(4, 96, 640, 128, false, random),
                                      gptq(4, 96, 640, 128, false, random), n_tokens, 8},
                                     false, random);
  }
}

// Of a token with a NaN or an infinity everything may be lost but that its experts are experts; of
// those beside it, in its pass of four or in another, nothing.
void expect_nan_in_its_tokens_alone(const Input& in, Random& random) {
  DeviceWeights memory;
  const DeviceMatrix router = in.router.upload(memory), gate = in.gate.upload(memory),
                     up = in.up.upload(memory);
  std::vector<float> rows = random.floats(area(in.n_tokens, in.n_cols()));
  const DeviceArray<float> bias(random.floats(area(1, in.n_experts())));
  const auto made = [&] {
    const DeviceArray<float> x(rows);
    const Outputs out(in, gate.n_rows);
    moe_input_cuda({.router = &router,
                    .gate = &gate,
                    .up = &up,
                    .x = x.data(),
                    .x_stride = in.n_cols(),
                    .n_tokens = in.n_tokens,
                    .logits = out.logits.data(),
                    .route = out.route(in, bias.data()),
                    .h = out.h.data()},
                   nullptr);
    return out.made();
  };
  const Made whole = made();
  constexpr int kNanToken = 1, kInfToken = 6;
  rows[at(kNanToken, in.n_cols(), 200)] = std::numeric_limits<float>::quiet_NaN();
  rows[at(kInfToken, in.n_cols(), 3)] = std::numeric_limits<float>::infinity();
  const Made got = made();
  for (int t = 0; t < in.n_tokens; ++t) {
    const bool is_lost = t == kNanToken || t == kInfToken;
    const auto expect_row = [&](const auto& of, const auto& expected, int width) {
      for (int i = 0; i < width; ++i)
        if (is_lost)
          ASSERT_FALSE(std::isfinite(of[at(t, width, i)])) << "token " << t << ", " << i;
        else
          ASSERT_EQ(of[at(t, width, i)], expected[at(t, width, i)]) << "token " << t << ", " << i;
    };
    expect_row(got.logits, whole.logits, in.n_experts());
    expect_row(got.h, whole.h, gate.n_rows);
    for (int k = 0; k < in.top_k; ++k) {
      const std::size_t i = at(t, in.top_k, k);
      if (is_lost) {
        ASSERT_LT(k == 0 ? -1 : got.expert[i - 1], got.expert[i]) << "token " << t;
        ASSERT_LT(got.expert[i], in.n_experts()) << "token " << t;
      } else {
        ASSERT_EQ(got.expert[i], whole.expert[i]) << "token " << t;
        ASSERT_EQ(got.weight[i], whole.weight[i]) << "token " << t;
      }
    }
  }
}

TEST_F(Cuda, ANaNOrAnInfinityChangesNoOtherTokensChoiceNorItsGateAndUp) {
  Random random(88);
  const auto router = [&] { return dense(WeightType::kBf16, 40, 640, false, random); };
  for (const int bits : {4, 8})
    expect_nan_in_its_tokens_alone({router(), gptq(bits, 104, 640, 64, false, random),
                                    gptq(bits, 104, 640, 64, false, random), 9, 4},
                                   random);
  expect_nan_in_its_tokens_alone(
      {router(), fp8(104, 640, 128, random), fp8(104, 640, 128, random), 9, 4}, random);
}

TEST_F(Cuda, TheRouterAloneNeedsNoGateAndUp) {
  Random random(83);
  DeviceWeights memory;
  const Input in = {dense(WeightType::kBf16, 64, 512, false, random), {}, {}, 3, 6};
  const DeviceMatrix router = in.router.upload(memory);
  const DeviceArray<float> x(random.floats(area(3, 512)));
  const std::vector<float> bias = random.floats(64);
  const DeviceArray<float> d_bias(bias);
  const Outputs out(in, 1);
  moe_input_cuda({.router = &router,
                  .x = x.data(),
                  .x_stride = 512,
                  .n_tokens = 3,
                  .logits = out.logits.data(),
                  .route = out.route(in, d_bias.data())},
                 nullptr);
  expect_references_choice(in, bias, out.made());
}

class SharedDownCudaTest : public Cuda {
 protected:
  void SetUp() override {
    Cuda::SetUp();
    if (!IsSkipped() && max_shared_bytes() < kSlicesSharedBytes)
      GTEST_SKIP() << "a block has " << max_shared_bytes()
                   << " bytes of shared memory here, fewer than experts' tables take: this test "
                      "shows nothing; run it on an H100 or H200";
  }
};

// The layer's shared output becomes that of `down`; then by one launch the same bits, whatever the
// turns that tokens take.
void expect_down_beside_experts(Layer l, How how, const HostMatrix& host, bool is_beside,
                                Random& random) {
  DeviceWeights memory;
  const DeviceMatrix down = host.upload(memory);
  const int n_tokens = l.n_tokens();
  std::vector<float> hidden = random.floats(area(n_tokens, down.n_cols));
  for (float& v : hidden) v /= 16;
  const DeviceArray<float> x(hidden);
  const auto alone = poisoned(area(n_tokens, l.hidden)), scratch = poisoned(alone.size());
  project_cuda(down, x.data(), down.n_cols, n_tokens, alone.data(), l.hidden, false, nullptr);
  l.shared = alone.host();
  const std::vector<float> expected = run_moe(l, how);
  expect_moe(l, expected, "shared, " + std::to_string(l.hidden));
  MoeCudaArgs args{};
  args.top_k = l.top_k;
  args.shared_down = {&down, x.data(), scratch.data()};
  EXPECT_EQ(combine_makes_shared(args), is_beside);
  for (const int at_a_time : {how.sums_tokens, 2, 1}) {
    how.sums_tokens = at_a_time;
    ASSERT_EQ(run_moe(l, how, nullptr, args.shared_down), expected) << at_a_time;
  }
  if (is_beside)  // nothing goes through memory
    for (const float v : scratch.host()) ASSERT_TRUE(std::isnan(v));
}

Layer layer_of(const Books& books, const Tiers& tiers, int hidden, int width, int top_k,
               int n_tokens, Random& random) {
  Layer l = random_layer(hidden, width, static_cast<int>(tiers.size()), top_k, n_tokens, random);
  for (const auto& t : tiers) add_expert(l, books, {t[0], t[1], t[2]}, 128, random);
  l.part_columns = slice_columns(UnitLaunch::k8x256);
  return l;
}

// Rows that fill no tile; fewer tiles than blocks, and more than a fold takes (of four tokens two
// of a block's three); slices of 1,024 columns and of 512; in partial sums and by slices.
TEST_F(SharedDownCudaTest, TheSharedDownBesideTheSumOfExpertsHasTheBitsOfItsOwnLaunch) {
  Random random(84);
  const Books books = codebooks(random);
  const Tiers sums[] = {Tiers(4, {0, 0, 0}), Tiers(4, {2, 2, 2})},
              mixed = {{0, 1, 2}, {3, 2, 0}, {1, 3, 3}, {2, 0, 1}};
  struct Shape {
    int hidden, width, n_cols, group, n_tokens;
  };
  for (const Shape& s :
       {Shape{328, 1064, 96, 32, 3}, {1032, 520, 192, 64, 9}, {4264, 136, 640, 128, 5}})
    for (const int bits : {4, 8}) {
      if (under_racecheck() && s.hidden > 1000) continue;
      const HostMatrix down = gptq(bits, s.hidden, s.n_cols, s.group, false, random);
      expect_down_beside_experts(
          layer_of(books, sums[bits == 4 ? 0 : 1], s.hidden, s.width, 3, s.n_tokens, random),
          {.sums_tokens = s.n_tokens}, down, true, random);
      expect_down_beside_experts(layer_of(books, mixed, s.hidden, s.width, 3, s.n_tokens, random),
                                 {.sums_tokens = s.n_tokens, .slices = true}, down, true, random);
    }
}

TEST_F(SharedDownCudaTest, SoItHasWhereTheMatrixIsOfAnotherKind) {
  Random random(85);
  const Books books = codebooks(random);
  for (const HostMatrix& down : {dense(WeightType::kBf16, 328, 96, false, random),
                                 fp8(328, 96, 32, random), gptq(4, 328, 96, 96, false, random)})
    expect_down_beside_experts(layer_of(books, Tiers(4, {0, 0, 0}), 328, 96, 3, 3, random),
                               {.sums_tokens = 3}, down, false, random);
}

// In one token's hidden values of the shared experts, and in another's x.
TEST_F(SharedDownCudaTest, ANaNOrAnInfinityBesideTheSumOfExpertsShowsInItsTokenAlone) {
  Random random(89);
  const Books books = codebooks(random);
  for (const HostMatrix& host :
       {gptq(8, 328, 192, 64, false, random), dense(WeightType::kBf16, 328, 192, false, random)}) {
    Layer l = layer_of(books, Tiers(4, {0, 0, 0}), 328, 96, 3, 6, random);
    DeviceWeights memory;
    const DeviceMatrix down = host.upload(memory);
    std::vector<float> hidden = random.floats(area(6, 192));
    const auto scratch = poisoned(area(6, 328));
    const auto run = [&](int at_a_time) {
      const DeviceArray<float> x(hidden);
      return run_moe(l, {.sums_tokens = at_a_time}, nullptr, {&down, x.data(), scratch.data()});
    };
    const std::vector<float> whole = run(6);
    hidden[at(1, 192, 70)] = std::numeric_limits<float>::quiet_NaN();
    hidden[at(3, 192, 5)] = std::numeric_limits<float>::infinity();
    l.x[at(4, l.hidden, 300)] = std::numeric_limits<float>::quiet_NaN();
    for (const int at_a_time : {6, 4}) {
      const std::vector<float> out = run(at_a_time);
      for (int t = 0; t < 6; ++t)
        for (int r = 0; r < l.hidden; ++r)
          if (t == 1 || t == 3 || t == 4)
            ASSERT_FALSE(std::isfinite(out[at(t, l.hidden, r)])) << t << ", " << r;
          else
            ASSERT_EQ(out[at(t, l.hidden, r)], whole[at(t, l.hidden, r)]) << t << ", " << r;
    }
  }
}

// In units and by the row the shared experts' down has a launch of its own.
TEST_F(SharedDownCudaTest, SoItHasBesideExpertsOfAnotherDesign) {
  Random random(86);
  const Books books = codebooks(random);
  const HostMatrix down = gptq(8, 328, 192, 64, false, random);
  Layer l = layer_of(books, Tiers(4, {1, 1, 1}), 328, 96, 3, 3, random);
  DeviceWeights memory;
  const DeviceMatrix d = down.upload(memory);
  const DeviceArray<float> x(random.floats(area(3, 192)));
  const auto y = poisoned(area(3, 328));
  project_cuda(d, x.data(), 192, 3, y.data(), 328, false, nullptr);
  l.shared = y.host();
  const auto scratch = poisoned(y.size());
  for (const How& how : {How{}, How{.rows = true}})
    EXPECT_EQ(run_moe(l, how, nullptr, {&d, x.data(), scratch.data()}), run_moe(l, how));
}

// As decode steps are: each launch begins while the one ahead runs, and reads what an older one
// has made.
TEST_F(SharedDownCudaTest, LaunchesFollowEachOtherInAGraph) {
  Random random(87);
  const Books books = codebooks(random);
  constexpr int kHidden = 1536, kWidth = 1024, kExperts = 8, kTopK = 3;
  const int n_layers = under_racecheck() ? 1 : 6;
  const Layer l = layer_of(books, Tiers(kExperts, {0, 0, 0}), kHidden, kWidth, kTopK, 1, random);
  DeviceWeights memory;
  const UnitPlan units = plan_of(l, {.sums_tokens = 1});
  std::vector<DeviceMatrix> experts;
  for (std::size_t i = 0; i < l.host.size(); ++i)
    experts.push_back(
        l.host[i].upload(memory, units.of(static_cast<int>(i % 3)).form(l.host[i].vq)));
  const MoePlan plan(units, experts);
  const DeviceArray<DeviceMatrix> d_experts(experts);
  const DeviceMatrix router =
                         dense(WeightType::kBf16, kExperts, kHidden, false, random).upload(memory),
                     gate = gptq(8, kWidth, kHidden, 128, false, random).upload(memory),
                     up = gptq(8, kWidth, kHidden, 128, false, random).upload(memory),
                     down = gptq(8, kHidden, kWidth, 128, false, random).upload(memory);
  const DeviceArray<float> bias(random.floats(kExperts)), first(random.floats(kHidden));
  std::vector<float> small = random.floats(kHidden);
  for (float& v : small) v /= 1024;
  const DeviceArray<float> norm(small);
  const auto logits = poisoned(kExperts), weight = poisoned(kTopK), margin = poisoned(1),
             h = poisoned(kWidth), shared = poisoned(kHidden), residual = poisoned(kHidden),
             x = poisoned(kHidden), expert_h = poisoned(kTopK * kWidth),
             sums = poisoned(plan.sums_per_token(kHidden, kWidth));
  const DeviceArray<int> expert(std::vector<int>(kTopK, -1));
  const auto step = [&](CudaStream stream, bool waits) {
    const auto wait = [&] {
      if (waits) synchronise(stream);
    };
    copy_on_device(residual.data(), first.data(), kHidden * sizeof(float), stream);
    for (int i = 0; i < n_layers; ++i) {
      rms_norm_cuda(residual.data(), kHidden, norm.data(), 1e-5f, kHidden, 1, x.data(), kHidden,
                    stream);
      wait();
      moe_input_cuda({.router = &router,
                      .gate = &gate,
                      .up = &up,
                      .x = x.data(),
                      .x_stride = kHidden,
                      .n_tokens = 1,
                      .logits = logits.data(),
                      .route = {.logits = nullptr,
                                .bias = bias.data(),
                                .n_rows = 1,
                                .n_experts = kExperts,
                                .top_k = kTopK,
                                .normalise = true,
                                .scaling = kScaling,
                                .expert = expert.data(),
                                .weight = weight.data(),
                                .margin = margin.data()},
                      .h = h.data()},
                     stream);
      wait();
      moe_cuda({.plan = &plan,
                .experts = d_experts.data(),
                .expert = expert.data(),
                .weight = weight.data(),
                .n_tokens = 1,
                .top_k = kTopK,
                .hidden = kHidden,
                .width = kWidth,
                .x = x.data(),
                .h = expert_h.data(),
                .shared = nullptr,
                .residual = residual.data(),
                .sums = sums.data(),
                .sums_tokens = 1,
                .shared_down = {&down, h.data(), shared.data()}},
               stream);
      wait();
    }
  };
  const CudaStreamOwner stream;
  step(stream.get(), true);
  const std::vector<float> expected = residual.host(kHidden, stream.get());
  for (const float v : expected) ASSERT_TRUE(std::isfinite(v));
  RecordedGraph::begin(stream.get());
  step(stream.get(), false);
  const std::optional<RecordedGraph> graph = RecordedGraph::end(stream.get());
  ASSERT_TRUE(graph.has_value());
  for (int i = 0; i < (under_racecheck() ? 1 : 200); ++i) {
    graph->launch(stream.get());
    ASSERT_EQ(residual.host(kHidden, stream.get()), expected) << i;
  }
}

}  // namespace
}  // namespace assay::kernels
