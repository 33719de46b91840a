// The routed experts on a GPU against the reference: row by row and in units, every form and
// mixture, exact on integers, within the bound that moe_cuda.h states, and the same bits whatever
// the batch, the device's memory and the number of copies. Need a GPU.
#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/moe_cuda.h"

namespace assay::kernels {
namespace {

std::size_t at(int row, int n_cols, int col) {
  return static_cast<std::size_t>(row) * static_cast<std::size_t>(n_cols) +
         static_cast<std::size_t>(col);
}

// A value in double precision, and how far the kernel's may be from it.
struct Near {
  double value, error;
};

// A layer's experts, and what a token's chosen ones make of it.
struct Layer {
  std::vector<HostMatrix> host;  // (n_experts, 3)
  int hidden, width, top_k;
  std::vector<int> expert;
  std::vector<float> weight, x, shared, residual;

  int n_tokens() const { return static_cast<int>(expert.size()) / top_k; }
  std::vector<VqMatrix> matrices() const {
    std::vector<VqMatrix> out;
    for (const HostMatrix& m : host) out.push_back(m.vq);
    return out;
  }

  Near expected(int token, int row) const {
    const double before = static_cast<double>(residual[at(token, hidden, row)]),
                 beside = static_cast<double>(shared[at(token, hidden, row)]);
    double sum = before + beside, size = std::abs(before) + std::abs(beside), error = 0;
    for (int k = 0; k < top_k; ++k) {
      const int slot = token * top_k + k, e = expert[static_cast<std::size_t>(slot)];
      const auto w = static_cast<double>(weight[static_cast<std::size_t>(slot)]);
      const Near y = product(3 * e + 2, row, hidden_of(token, e));
      sum += w * y.value;
      size += std::abs(w * y.value);
      error += std::abs(w) * y.error;
    }
    return {sum, error + (top_k + 3) * 0x1p-24 * (size + error)};
  }
  const std::vector<Near>& hidden_of(int token, int e) const {
    std::vector<Near>& h = hidden_memo[{token, e}];
    if (!h.empty()) return h;
    std::vector<Near> in;
    for (int c = 0; c < hidden; ++c)
      in.push_back({static_cast<double>(x[at(token, hidden, c)]), 0});
    for (int i = 0; i < width; ++i) {
      const Near g = product(3 * e, i, in), u = product(3 * e + 1, i, in);
      const double s = g.value / (1 + std::exp(-g.value));
      // silu is nowhere steeper than 1.1; eight float32 roundings.
      h.push_back({s * u.value, 1.1 * g.error * (std::abs(u.value) + u.error) +
                                    std::abs(s) * u.error + 8 * 0x1p-24 * std::abs(s * u.value)});
    }
    return h;
  }
  // moe_cuda.h's bound, which holds for chains of float32 of as many terms as there are columns if
  // that many take the place of its 90.
  Near product(int matrix, int row, const std::vector<Near>& in) const {
    const std::vector<float>& w = decoded(matrix);
    const int n = static_cast<int>(in.size());
    double sum = 0, size = 0, carried = 0, halves = 0;
    for (int first = 0; first < n; first += 512) {
      double largest = 0, weights = 0;
      for (int c = first; c < std::min(n, first + 512); ++c) {
        const Near& v = in[static_cast<std::size_t>(c)];
        const double wc = static_cast<double>(w[at(row, n, c)]), most = std::abs(v.value) + v.error;
        sum += wc * v.value;
        size += std::abs(wc) * most;
        carried += std::abs(wc) * v.error;
        weights += std::abs(wc);
        largest = std::max(largest, most);
      }
      halves += 0x1p-39 * largest * weights;
    }
    return {sum, carried + halves + (by_row ? std::max(90, n) : 90) * 0x1p-22 * size};
  }
  const std::vector<float>& decoded(int matrix) const {
    std::vector<float>& w = decoded_memo[matrix];
    const HostMatrix& m = host[static_cast<std::size_t>(matrix)];
    const bool down = matrix % 3 == 2;
    const int n_rows = down ? hidden : width, n_cols = down ? width : hidden;
    if (!w.empty()) return w;
    w.reserve(at(n_rows, n_cols, 0));
    for (int r = 0; r < n_rows; ++r)
      for (int c = 0; c < n_cols; ++c) w.push_back(static_cast<float>(m.at(r, c)));
    return w;
  }
  bool by_row = false;
  mutable std::map<std::pair<int, int>, std::vector<Near>> hidden_memo;
  mutable std::map<int, std::vector<float>> decoded_memo;  // exact
};

// How a layer is laid out and multiplied.
struct How {
  bool rows = false;             // by the row
  std::size_t shared_bytes = 0;  // as on a device that has this much; 0: the one here
  bool short_rounds = false;     // flushes its sums as often as it can, with two stages
};

UnitPlan plan_of(const Layer& l, const How& how) {
  if (how.rows) return {};
  const std::vector<VqMatrix> experts = l.matrices();
  UnitPlan plan = how.shared_bytes == 0 ? plan_moe_units(experts, l.top_k)
                                        : plan_units(experts, l.top_k, how.shared_bytes);
  EXPECT_TRUE(plan.is_in_units());
  if (how.short_rounds)
    for (UnitLaunch* u : {&plan.gate_up, &plan.down}) {
      u->stages = 2;
      u->sum_bytes = static_cast<std::size_t>((u == &plan.down ? l.top_k : 2) * u->parts * 32);
    }
  return plan;
}

std::vector<float> run_moe(const Layer& l, const How& how = {}, std::string* plan_text = nullptr) {
  DeviceWeights memory;
  const UnitPlan units = plan_of(l, how);
  std::vector<DeviceMatrix> experts;
  for (std::size_t i = 0; i < l.host.size(); ++i) {
    const HostMatrix& m = l.host[i];
    experts.push_back(units.is_in_units()
                          ? m.upload(memory, units.of(static_cast<int>(i % 3)).form(m.vq))
                          : m.upload(memory));
  }
  const MoePlan plan(units, experts);
  if (plan_text != nullptr) *plan_text = plan.text();
  const DeviceArray<DeviceMatrix> d_experts(experts);
  const DeviceArray<int> expert(l.expert);
  const DeviceArray<float> weight(l.weight), x(l.x), shared(l.shared), residual(l.residual);
  const auto h = poisoned(l.expert.size() * static_cast<std::size_t>(l.width));
  moe_cuda({.plan = &plan,
            .experts = d_experts.data(),
            .expert = expert.data(),
            .weight = weight.data(),
            .n_tokens = l.n_tokens(),
            .top_k = l.top_k,
            .hidden = l.hidden,
            .width = l.width,
            .x = x.data(),
            .h = h.data(),
            .shared = shared.data(),
            .residual = residual.data()},
           nullptr);
  return residual.host();
}

void expect_moe(const Layer& l, const std::vector<float>& out, const std::string& what) {
  double worst = 0;
  for (int t = 0; t < l.n_tokens(); ++t)
    for (int r = 0; r < l.hidden; ++r) {
      const Near y = l.expected(t, r);
      const double delta = std::abs(static_cast<double>(out[at(t, l.hidden, r)]) - y.value);
      ASSERT_LE(delta, y.error) << what << ": token " << t << ", row " << r << " is "
                                << out[at(t, l.hidden, r)] << ", expected " << y.value;
      if (y.error > 0) worst = std::max(worst, delta / y.error);
    }
  std::printf("%-28s worst error %.2g of its bound\n", what.c_str(), worst);
}

Layer random_layer(int hidden, int width, int n_experts, int top_k, int n_tokens, Random& random) {
  Layer l{.host = {}, .hidden = hidden, .width = width, .top_k = top_k};
  for (int t = 0; t < n_tokens; ++t) {
    std::set<int> chosen;
    while (static_cast<int>(chosen.size()) < top_k) chosen.insert(random.below(n_experts));
    l.expert.insert(l.expert.end(), chosen.begin(), chosen.end());
  }
  l.weight = random.floats(l.expert.size());
  const auto n = static_cast<std::size_t>(n_tokens) * static_cast<std::size_t>(hidden);
  l.x = random.floats(n), l.shared = random.floats(n), l.residual = random.floats(n);
  return l;
}

TEST_F(Cuda, ExpertsOfDifferentKindsAddUpAsTheReferenceSays) {
  Random random(4);
  Layer l = random_layer(64, 32, 4, 2, 3, random);
  for (int e = 0; e < 4; ++e) {
    l.host.push_back(e % 2 == 0 ? vq(8, 256, 32, 64, 64, false, random)
                                : dense(WeightType::kBf16, 32, 64, false, random));
    l.host.push_back(e % 2 == 0 ? vq(4, 256, 32, 64, 64, false, random)
                                : gptq(4, 32, 64, 32, false, random));
    l.host.push_back(dense(WeightType::kF32, 64, 32, false, random));
  }
  std::string plan;
  const std::vector<float> out = run_moe(l, {.rows = true}, &plan);
  EXPECT_EQ(plan, "rows");
  l.by_row = true;
  expect_moe(l, out, "rows");
}

struct TierShape {
  int dim, n_codes;
};
constexpr TierShape kTierShapes[] = {{8, 256}, {8, 4096}, {4, 256}, {4, 4096}, {8, 200}, {4, 3000}};
constexpr int kTiers = 6;
const char* const kTexts[] = {"vq units", "vq units, tables ×2", "vq units", "vq units, tables ×4",
                              "vq units", "vq units, tables ×4"};

// All experts of one tier share its codebook, as in the release.
using Books = std::map<int, std::vector<float>>;
HostMatrix of_tier(const Books& books, int tier, int rows, int cols, int group, Random& random) {
  HostMatrix m =
      vq(kTierShapes[tier].dim, kTierShapes[tier].n_codes, rows, cols, group, false, random);
  m.vq.codebook = books.at(tier).data();
  return m;
}
void add_expert(Layer& l, const Books& books, const int (&tier)[3], int group, Random& random) {
  for (int p = 0; p < 3; ++p)
    l.host.push_back(of_tier(books, tier[p], p < 2 ? l.width : l.hidden, p < 2 ? l.hidden : l.width,
                             group, random));
}

Books codebooks(Random& random, bool bits = false) {
  Books books;
  for (int t = 0; t < kTiers; ++t) {
    books[t] = random.floats(static_cast<std::size_t>(kTierShapes[t].dim) *
                             static_cast<std::size_t>(kTierShapes[t].n_codes));
    for (float& v : books[t])
      v = bits ? static_cast<float>(random.below(2)) : static_cast<float>(__half(v));
  }
  return books;
}

// Copies and memory are other ways to the same bits: 135 and 99 KB have half as many, or one.
TEST_F(Cuda, ExpertsInUnitsOfEveryFormStayWithinTheRoundingBound) {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  Random random(seed);
  const Books books = codebooks(random);
  for (int tier = 0; tier < kTiers; ++tier)
    for (const auto& [hidden, width, group] :
         {std::tuple{320, 96, 64}, {1088, 2080, 128}, {2176, 40, 256}, {64, 33 * 8, 400}}) {
      Layer l = random_layer(hidden, width, 4, 3, 3, random);
      for (int e = 0; e < 4; ++e) add_expert(l, books, {tier, tier, tier}, group, random);
      std::string plan;
      const std::vector<float> out = run_moe(l, {}, &plan);
      EXPECT_EQ(plan, kTexts[tier]);
      expect_moe(l, out, "tier " + std::to_string(tier) + ", " + std::to_string(hidden));
      EXPECT_EQ(run_moe(l, {.shared_bytes = 135 << 10}), out);
      EXPECT_EQ(run_moe(l, {.shared_bytes = 99 << 10}), out);
      EXPECT_EQ(run_moe(l, {.short_rounds = true}), out);
    }
}

// Tables of 32 bytes an entry, which a device of little memory has for three codebooks.
TEST_F(Cuda, ShortTablesHaveTheSameBits) {
  Random random(19);
  const Books books = codebooks(random);
  for (const int group : {64, 128}) {
    Layer l = random_layer(576, 96, 6, 4, 2, random);
    for (int e = 0; e < 6; ++e)
      add_expert(l, books, {e % 2 * 2, 3 - e % 2, e % 3 == 0 ? 0 : e % 3 + 1}, group, random);
    const How how = {.shared_bytes = 99 << 10};
    EXPECT_EQ(plan_of(l, how).gate_up.stride, 32);
    const std::vector<float> out = run_moe(l, how);
    expect_moe(l, out, "short tables");
    EXPECT_EQ(run_moe(l), out);
    EXPECT_EQ(run_moe(l, {.shared_bytes = 99 << 10, .short_rounds = true}), out);
  }
}

// GLM-5.2's own widths: twelve warps to a tile, four experts at once.
TEST_F(Cuda, ExpertsOfTheLargestShapesStayWithinTheRoundingBound) {
  Random random(9);
  const Books books = codebooks(random);
  Layer l = random_layer(6144, 2048, 8, 8, 1, random);
  constexpr int kMixture[8][3] = {{0, 0, 0}, {0, 0, 2}, {0, 2, 0}, {3, 0, 3},
                                  {0, 3, 0}, {2, 3, 0}, {0, 0, 3}, {3, 2, 2}};
  for (const auto& tier : kMixture) add_expert(l, books, tier, 128, random);
  std::string plan;
  const std::vector<float> out = run_moe(l, {}, &plan);
  EXPECT_EQ(plan, "vq units");
  expect_moe(l, out, "GLM-5.2, mixture");
  EXPECT_EQ(run_moe(l, {.shared_bytes = 99 << 10}), out);
  EXPECT_EQ(run_moe(l, {.short_rounds = true}), out);
}

Layer part_of(const Layer& l, int first, int n) {
  Layer part{.host = l.host, .hidden = l.hidden, .width = l.width, .top_k = l.top_k};
  const auto rows = [&](const auto& v, int width) {
    return std::decay_t<decltype(v)>(v.begin() + first * width, v.begin() + (first + n) * width);
  };
  part.expert = rows(l.expert, l.top_k), part.weight = rows(l.weight, l.top_k);
  part.x = rows(l.x, l.hidden), part.shared = rows(l.shared, l.hidden);
  part.residual = rows(l.residual, l.hidden);
  return part;
}

TEST_F(Cuda, ExpertsMayMixTiersAndATokensBitsDoNotDependOnItsBatch) {
  Random random(14);
  const Books books = codebooks(random);
  // Of the last, down has five lines for eight experts: a group of them that is not full.
  for (const auto& [hidden, width, group, top_k] :
       {std::tuple{320, 96, 64, 5}, {1032, 520, 128, 5}, {320, 1536, 128, 8}}) {
    Layer l = random_layer(hidden, width, 8, top_k, 9, random);
    for (int e = 0; e < 8; ++e)
      add_expert(l, books, {e % 4, (e + 1) % 4, (e + 2) % 4}, group, random);
    std::string plan;
    const std::vector<float> all = run_moe(l, {}, &plan);
    EXPECT_EQ(plan, "vq units");
    expect_moe(l, all, "mixed");
    EXPECT_EQ(run_moe(l, {.short_rounds = true}), all);
    for (const auto& [first, n] : {std::pair{0, 1}, {3, 1}, {8, 1}, {0, 2}, {2, 5}, {1, 8}})
      EXPECT_EQ(
          run_moe(part_of(l, first, n)),
          std::vector<float>(all.begin() + first * hidden, all.begin() + (first + n) * hidden))
          << first << ", " << n << " tokens";
  }
}

// More tokens than a device has multiprocessors: blocks share them out.
TEST_F(Cuda, ALongBatchsTokensHaveTheBitsTheyHaveAlone) {
  Random random(15);
  const Books books = codebooks(random);
  Layer l = random_layer(320, 96, 4, 3, 331, random);
  for (int e = 0; e < 4; ++e) add_expert(l, books, {e, e, 3 - e}, 64, random);
  const std::vector<float> all = run_moe(l);
  for (const int t : {0, 1, 132, 329, 330}) {
    const auto row = all.begin() + t * 320;
    EXPECT_EQ(run_moe(part_of(l, t, 1)), std::vector<float>(row, row + 320)) << t;
  }
}

// Every gate is above 100, whose silu is itself in float, and every sum an integer below 2^24.
TEST_F(Cuda, ExpertsInUnitsAreExactOnIntegers) {
  Random random(24);
  const Books books = codebooks(random, true);
  for (const auto& [tier, group] :
       {std::pair{0, 64}, {1, 64}, {2, 64}, {3, 64}, {0, 128}, {1, 128}, {2, 128}, {3, 128}}) {
    Layer l = random_layer(320, 96, 3, 2, 2, random);
    for (float& v : l.x) v = static_cast<float>(1 + random.below(2));
    for (auto* v : {&l.weight, &l.shared, &l.residual})
      for (float& f : *v) f = static_cast<float>(1 + random.below(2));
    for (int e = 0; e < 3; ++e) add_expert(l, books, {tier, tier, tier}, group, random);
    for (HostMatrix& m : l.host) {
      m.scales = bytes_of(std::vector<std::uint16_t>(m.scales.size() / 2, to_half(1.0f)));
      m.vq.scales = m.scales.data();
    }
    const std::vector<float> out = run_moe(l);
    for (int t = 0; t < l.n_tokens(); ++t)
      for (int r = 0; r < l.hidden; ++r)
        ASSERT_EQ(static_cast<double>(out[at(t, l.hidden, r)]), l.expected(t, r).value)
            << tier << ": " << t << ", " << r;
  }
}

// Far beyond binary16 either way, all zero, and one value that outweighs its neighbours.
TEST_F(Cuda, InputsOfAnySizeStayWithinTheRoundingBound) {
  Random random(34);
  const Books books = codebooks(random);
  Layer l = random_layer(1088, 96, 3, 2, 4, random);
  for (int e = 0; e < 3; ++e) add_expert(l, books, {2, 0, 2}, 128, random);
  for (auto* v : {&l.shared, &l.residual}) std::fill(v->begin(), v->end(), 0.0f);
  for (int c = 0; c < l.hidden; ++c) {
    l.x[at(0, l.hidden, c)] *= 1e15f;
    l.x[at(1, l.hidden, c)] *= 1e-12f;
    l.x[at(2, l.hidden, c)] = 0;
  }
  l.x[at(3, l.hidden, 100)] = 1e9f;
  const std::vector<float> out = run_moe(l);
  expect_moe(l, out, "any size");
  for (int r = 0; r < l.hidden; ++r) EXPECT_EQ(out[at(2, l.hidden, r)], 0);
}

TEST_F(Cuda, ANaNOrAnInfinityShowsInItsTokenAlone) {
  Random random(44);
  const Books books = codebooks(random);
  Layer l = random_layer(1088, 96, 3, 2, 3, random);
  for (int e = 0; e < 3; ++e) add_expert(l, books, {3, 3, 1}, 128, random);
  const std::vector<float> whole = run_moe(l);
  l.x[at(0, l.hidden, 700)] = std::numeric_limits<float>::quiet_NaN();
  l.x[at(2, l.hidden, 3)] = std::numeric_limits<float>::infinity();
  const std::vector<float> out = run_moe(l);
  for (int r = 0; r < l.hidden; ++r) {
    EXPECT_TRUE(std::isnan(out[at(0, l.hidden, r)])) << r;
    EXPECT_EQ(out[at(1, l.hidden, r)], whole[at(1, l.hidden, r)]) << r;
    EXPECT_TRUE(std::isnan(out[at(2, l.hidden, r)])) << r;
  }
}

}  // namespace
}  // namespace assay::kernels
