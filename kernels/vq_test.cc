#include "kernels/vq.h"

#include <algorithm>
#include <limits>
#include <memory>

#include "kernels/aligned_array.h"
#include "kernels/vq_testing.h"

namespace assay::kernels {
namespace {

constexpr VqShape kShapes[] = {
    {64, 128, 8, 256, 8, 1, 128},   {256, 256, 8, 256, 8, 1, 128}, {300, 208, 8, 256, 8, 1, 128},
    {130, 96, 4, 256, 8, 1, 64},    {1, 24, 8, 256, 8, 1, 16},     {17, 33, 1, 256, 8, 1, 10},
    {257, 176, 16, 256, 8, 1, 160}, {65, 40, 2, 256, 8, 1, 40},    {70, 48, 8, 4096, 12, 1, 32},
    {129, 64, 4, 4096, 12, 1, 24},  {33, 11, 1, 2, 1, 1, 11},      {64, 22, 2, 3, 2, 1, 6},
    {5, 36, 4, 8, 3, 1, 36},        {66, 30, 2, 16, 4, 1, 20},     {80, 32, 16, 20, 5, 1, 32},
    {63, 60, 4, 64, 6, 1, 28},      {31, 56, 8, 100, 7, 1, 24},    {128, 18, 2, 512, 9, 1, 18},
    {90, 20, 4, 1000, 10, 1, 12},   {64, 40, 8, 2048, 11, 1, 40},  {50, 32, 8, 4096, 16, 1, 16},
    {100, 48, 8, 256, 8, 2, 24},    {40, 32, 16, 16, 4, 4, 32},    {70, 24, 2, 300, 9, 3, 10},
    {64, 16, 8, 256, 8, 1, 8},      {70, 128, 32, 256, 8, 8, 128}, {65, 192, 8, 16, 4, 8, 192},
    {200, 300, 4, 256, 8, 1, 128},  {33, 52, 26, 4, 2, 5, 52},     {1040, 64, 32, 256, 8, 1, 64},
    {20, 128, 64, 300, 9, 1, 64},   {9, 126, 63, 8, 3, 7, 126}};
constexpr int kTokens[] = {1, 2, 3, 7, 8, 9, 31, 32, 33};

std::vector<float> nans(std::size_t n) {
  return std::vector<float>(n, std::numeric_limits<float>::quiet_NaN());
}

struct How {
  CpuTarget target;
  VqFetch fetch = VqFetch::kBest;
  int first_part = 0, n_parts = 1;  // calls that share out the blocks
};

class Problem {
 public:
  Problem(const VqShape& shape, std::uint64_t seed, bool integers)
      : shape_(shape),
        vq_(shape, seed, integers),
        packed_(PackedVq::pack(arena_, vq_.view())),
        x_(integers ? random_integers(n_inputs(), seed + 1) : random_floats(n_inputs(), seed + 1)) {
  }

  std::vector<float> reference(int n_tokens, std::vector<float> y, bool accumulate) const {
    project_reference(vq_.view(), x_.data(), n_tokens, shape_.n_cols, y.data(), shape_.n_rows,
                      accumulate);
    return y;
  }
  std::vector<float> cpu(const How& how, int n_tokens, std::vector<float> y, bool accumulate,
                         int first_token = 0) const {
    const auto xs = row_pointers(x_.data() + first_token * shape_.n_cols, n_tokens, shape_.n_cols);
    const auto ys = row_pointers(y.data(), n_tokens, shape_.n_rows);
    AlignedArray<float> scratch(vq_scratch());
    for (int p = how.first_part; p < how.n_parts; ++p) {
      const VqProduct product{&packed_, ys.data(), packed_.n_blocks() * p / how.n_parts,
                              packed_.n_blocks() * (p + 1) / how.n_parts};
      vq_project_cpu(how.target, {.products = {&product, 1},
                                  .x = xs.data(),
                                  .n_tokens = n_tokens,
                                  .accumulate = accumulate,
                                  .scratch = scratch.data(),
                                  .fetch = how.fetch});
    }
    return y;
  }
  std::vector<float> poisoned(int n_tokens) const { return nans(n_outputs(n_tokens)); }
  std::vector<float> whole(int n_tokens) const { return random_integers(n_outputs(n_tokens), 3); }

  // Roundings that one product passes through: those of its chain within the group, one for each
  // group's multiply-add, and the reference's own. Partial sums: dim in the table, then one
  // addition for each sub-vector of the group. Codewords: one for each further book, then the
  // group's columns. A rounding is at most 2^-24 of a partial sum, which Σ |scale| Σ|codeword| |x|
  // bounds; 1.001 covers the terms of second order.
  std::vector<double> tolerance(int n_tokens) const {
    const VqMatrix w = vq_.view();
    const int within = packed_.method() == VqMethod::kPartialSums ? w.dim + w.group / w.dim
                                                                  : w.n_books - 1 + w.group;
    const double unit = (within + w.n_groups() + 1) * 0x1p-24 * 1.001;
    std::vector<double> out;
    for (int t = 0; t < n_tokens; ++t)
      for (int r = 0; r < w.n_rows; ++r) {
        double sum = 0;
        for (int c = 0; c < w.n_cols; ++c)
          sum += sum_of_books(w, r, c) * std::abs(x_[t * w.n_cols + c]);
        out.push_back(unit * sum);
      }
    return out;
  }
  void set_input(int token, int col, float value) { x_[token * shape_.n_cols + col] = value; }
  const PackedVq& packed() const { return packed_; }

 private:
  static constexpr int kMaxTokens = 33;
  std::size_t n_inputs() const { return static_cast<std::size_t>(kMaxTokens) * shape_.n_cols; }
  std::size_t n_outputs(int n_tokens) const {
    return static_cast<std::size_t>(n_tokens) * shape_.n_rows;
  }
  static double sum_of_books(const VqMatrix& w, int r, int c) {
    double sum = 0;
    for (int m = 0; m < w.n_books; ++m)
      sum += std::abs(static_cast<double>(
          w.codebook[(static_cast<std::size_t>(m) * w.n_codes + vq_index(w, r, c / w.dim, m)) *
                         w.dim +
                     c % w.dim]));
    return sum * std::abs(static_cast<double>(vq_scale(w, r, c / w.group)));
  }

  VqShape shape_;
  RandomVq vq_;
  WeightArena arena_;
  PackedVq packed_;
  std::vector<float> x_;
};

using VqProjectCpu = EveryTarget;
ASSAY_FOR_EVERY_TARGET(VqProjectCpu);

TEST_P(VqProjectCpu, IsExactOnIntegers) {
  for (const VqShape& shape : kShapes) {
    const Problem p(shape, 1, true);
    for (const int n : kTokens)
      for (const VqFetch fetch : usable_vq_fetches(GetParam())) {
        const How how{.target = GetParam(), .fetch = fetch};
        EXPECT_EQ(first_difference(p.reference(n, p.poisoned(n), false),
                                   p.cpu(how, n, p.poisoned(n), false)),
                  "")
            << shape << ", " << n << " tokens, fetched by " << vq_fetch_name(fetch);
        EXPECT_EQ(
            first_difference(p.reference(n, p.whole(n), true), p.cpu(how, n, p.whole(n), true)), "")
            << shape << ", " << n << " tokens added, fetched by " << vq_fetch_name(fetch);
      }
  }
}

TEST_P(VqProjectCpu, StaysWithinTheRoundingsOfItsChains) {
  for (int i = 0; i < 24; ++i) {
    const std::uint64_t seed = 100 + i;
    std::uint64_t n_drawn = 0;
    const auto draw = [&](int n) { return static_cast<int>(uniform_at(seed, 7, n_drawn++) * n); };
    const int dim = 1 << draw(7), bits = i % 3 == 0 ? 8 : 1 + draw(12);
    const VqShape shape{.n_rows = 1 + draw(200),
                        .n_cols = dim * (1 + draw(300 / dim)),
                        .dim = dim,
                        .n_codes = i % 3 == 0 ? 256 : 1 << bits,
                        .index_bits = bits,
                        .n_books = i % 4 == 1 ? 1 + draw(PackedVq::kMaxBooks) : 1,
                        .group = dim * (1 + draw(16))};
    SCOPED_TRACE(testing::Message() << "seed " << seed << ": " << shape);
    const Problem p(shape, seed, false);
    const int n = 1 + draw(10);
    expect_within(p.reference(n, p.poisoned(n), false),
                  p.cpu({.target = GetParam()}, n, p.poisoned(n), false), p.tolerance(n));
  }
}

TEST_P(VqProjectCpu, TargetTokensTogetherAndSharesOfBlocksDoNotChangeABit) {
  for (const VqShape& shape : kShapes) {
    const Problem p(shape, 5, false);
    std::vector<float> alone;
    for (int t = 0; t < 33; ++t) {
      const auto y = p.cpu({.target = usable_cpu_targets().front(), .fetch = VqFetch::kScalar}, 1,
                           p.poisoned(1), false, t);
      alone.insert(alone.end(), y.begin(), y.end());
    }
    for (const int n : kTokens)
      for (const int n_parts : {1, 2, 3})
        for (const VqFetch fetch : usable_vq_fetches(GetParam()))
          EXPECT_EQ(
              first_difference({alone.begin(), alone.begin() + n * shape.n_rows},
                               p.cpu({GetParam(), fetch, 0, n_parts}, n, p.poisoned(n), false)),
              "")
              << shape << ", " << n << " tokens, " << n_parts << " parts, fetched by "
              << vq_fetch_name(fetch);
  }
}

TEST_P(VqProjectCpu, WritesTheRowsOfItsBlocksAndNoOthers) {
  for (const VqShape& shape : {kShapes[2], kShapes[9]}) {
    const Problem p(shape, 6, true);
    const auto expected = p.reference(2, p.poisoned(2), false);
    const auto got =
        p.cpu({.target = GetParam(), .first_part = 1, .n_parts = 3}, 2, p.poisoned(2), false);
    const int first = p.packed().n_blocks() / 3 * PackedVq::kBlockRows;
    for (std::size_t i = 0; i < got.size(); ++i)
      if (static_cast<int>(i) % shape.n_rows < first)
        EXPECT_TRUE(std::isnan(got[i])) << shape << ", " << i;
      else
        EXPECT_EQ(got[i], expected[i]) << shape << ", " << i;
  }
}

// A NaN reaches every row of its token, whatever it is multiplied with, and no other token.
// Infinities: codewords and sums of codewords that are zero make NaN of them, others keep the sign;
// two of opposite sign make NaN where they meet.
TEST_P(VqProjectCpu, NanAndInfinityAreWhereTheReferenceHasThem) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const VqShape& shape : kShapes) {
    Problem p(shape, 8, true);
    const int last = shape.n_cols - 1, next = std::min(shape.dim, last);
    p.set_input(1, last, std::numeric_limits<float>::quiet_NaN());
    p.set_input(3, 0, kInfinity);
    p.set_input(4, last, -kInfinity);
    p.set_input(5, 0, kInfinity);
    p.set_input(5, next, -kInfinity);
    for (const int n : {6, 33})
      for (const VqFetch fetch : usable_vq_fetches(GetParam()))
        for (const bool accumulate : {false, true}) {
          const auto expected = p.reference(n, p.whole(n), accumulate);
          ASSERT_TRUE(std::isnan(expected[shape.n_rows]) && std::isfinite(expected[0]));
          EXPECT_EQ(first_difference(expected, p.cpu({.target = GetParam(), .fetch = fetch}, n,
                                                     p.whole(n), accumulate)),
                    "")
              << shape << ", " << n << " tokens, fetched by " << vq_fetch_name(fetch) << ", added "
              << accumulate;
        }
    const Problem clean(shape, 8, true);
    const auto one = clean.cpu({.target = GetParam()}, 1, clean.poisoned(1), false, 2);
    const auto all = p.cpu({.target = GetParam()}, 6, p.poisoned(6), false);
    EXPECT_EQ(
        first_difference(one, {all.begin() + 2 * shape.n_rows, all.begin() + 3 * shape.n_rows}), "")
        << shape;
  }
}

// Three matrices of one codebook and one of another, in one call and each in its own.
TEST_P(VqProjectCpu, SharingTablesDoesNotChangeABit) {
  constexpr VqShape kMatrices[] = {{200, 256, 8, 256, 8, 1, 128},
                                   {700, 256, 8, 256, 8, 1, 128},
                                   {64, 256, 8, 4096, 12, 1, 128},
                                   {130, 256, 8, 256, 8, 1, 128}};
  constexpr int kN = 9;
  WeightArena arena;
  std::vector<std::unique_ptr<RandomVq>> matrices;
  std::vector<PackedVq> packed;
  std::vector<std::vector<float>> together, apart;
  for (const VqShape& s : kMatrices) {
    matrices.push_back(std::make_unique<RandomVq>(s, matrices.size(), false));
    const bool share = s.n_codes == 256;
    packed.push_back(PackedVq::pack(
        arena, matrices.back()->view(share ? matrices[0]->codebook.data() : nullptr)));
    together.push_back(nans(static_cast<std::size_t>(kN) * s.n_rows));
  }
  apart = together;
  const auto x = random_floats(std::size_t{kN} * 256, 9);
  const auto xs = row_pointers(x.data(), kN, 256);
  AlignedArray<float> scratch(vq_scratch());
  const auto call = [&](std::span<const VqProduct> products) {
    vq_project_cpu(GetParam(), {.products = products,
                                .x = xs.data(),
                                .n_tokens = kN,
                                .accumulate = false,
                                .scratch = scratch.data()});
  };
  std::vector<std::vector<float*>> together_rows, apart_rows;
  for (std::size_t i = 0; i < packed.size(); ++i) {
    together_rows.push_back(row_pointers(together[i].data(), kN, kMatrices[i].n_rows));
    apart_rows.push_back(row_pointers(apart[i].data(), kN, kMatrices[i].n_rows));
  }
  std::vector<VqProduct> products;
  for (std::size_t i = 0; i < packed.size(); ++i) {
    products.push_back({&packed[i], together_rows[i].data(), 0, packed[i].n_blocks()});
    const VqProduct one{&packed[i], apart_rows[i].data(), 0, packed[i].n_blocks()};
    call({&one, 1});
  }
  call(products);
  for (std::size_t i = 0; i < packed.size(); ++i)
    EXPECT_EQ(first_difference(apart[i], together[i]), "") << kMatrices[i];
}

// What a turn of tables is for is one forward stream, and so is the matrix: last come a short
// group, a short turn, and scales.
TEST(PackedVq, TurnsFollowEachOther) {
  const RandomVq vq({130, 300, 4, 256, 8, 1, 128}, 1, false);
  WeightArena arena;
  const PackedVq m = PackedVq::pack(arena, vq.view());
  ASSERT_EQ(m.n_turns(0), 2);
  ASSERT_EQ(m.n_turns(2), 1);
  const std::byte* at = m.turn(0, 0, 0);
  for (int g = 0; g < 3; ++g)
    for (int turn = 0; turn < m.n_turns(g); ++turn)
      for (int block = 0; block < m.n_blocks(); ++block) {
        EXPECT_EQ(m.turn(g, turn, block), at) << g << ", " << turn << ", " << block;
        at += m.turn_bytes(g, turn);
      }
  EXPECT_EQ(at, m.turn(0, 0, 0) + m.bytes());
}

TEST(VqFetch, LoadsAndGathersAreEverywhereAndPermutationsWithAvx512Alone) {
  const auto has = [](CpuTarget target, VqFetch fetch) {
    const auto usable = usable_vq_fetches(target);
    return std::count(usable.begin(), usable.end(), fetch) == 1;
  };
  for (const CpuTarget target : usable_cpu_targets()) {
    EXPECT_TRUE(has(target, VqFetch::kScalar) && has(target, VqFetch::kGather));
    EXPECT_FALSE(has(target, VqFetch::kBest));
  }
  EXPECT_FALSE(has(CpuTarget::kAvx2, VqFetch::kVbmi));
}

TEST(PackedVq, LongCodewordsHaveNoTables) {
  const auto method = [](int dim, int n_books) {
    return vq_method({.n_rows = 4096, .dim = dim, .n_codes = 256, .n_books = n_books});
  };
  EXPECT_EQ(method(16, 1), VqMethod::kPartialSums);
  EXPECT_EQ(method(32, 1), VqMethod::kCodewords);
  EXPECT_EQ(method(8, 2), VqMethod::kCodewords);
}

TEST(PackedVq, KeepsAsManyBitsAsTheFile) {
  WeightArena arena;
  const RandomVq byte({128, 256, 8, 256, 8, 1, 128}, 1, false),
      twelve({128, 256, 8, 4096, 12, 1, 128}, 1, false);
  EXPECT_EQ(PackedVq::pack(arena, byte.view()).bytes(), 128u * (256 / 8 + 2 * 2));
  EXPECT_EQ(PackedVq::pack(arena, twelve.view()).bytes(), 128u * (256 / 8 * 3 / 2 + 2 * 2));
}

// The helper that bounded tests rest on: an error between two right values must not be forgotten.
TEST(WorstBeyond, FailsOnANanAtOnceAndNamesTheWorstOtherwise) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  using Floats = std::vector<float>;
  const std::vector<double> tolerance = {1, 1, 1};
  const auto beyond = [&](const Floats& expected, const Floats& got) {
    return worst_beyond(expected, got, tolerance);
  };
  EXPECT_EQ(beyond({1, 2, 3}, {1, 2.5f, 4}), "");
  EXPECT_EQ(beyond({1, 2, 3}, {4, 9, 3}).substr(0, 12), "worst at [1]");
  EXPECT_EQ(beyond({1, 2, 3}, {1, kNan, 3}).substr(0, 3), "[1]");
  EXPECT_EQ(beyond({1, kNan, 3}, {1, 2, 3}).substr(0, 3), "[1]");
  EXPECT_EQ(beyond({1, 2, kInfinity}, {1, 2, -kInfinity}).substr(0, 3), "[2]");
  EXPECT_EQ(beyond({1, kNan, kInfinity}, {1, kNan, kInfinity}), "");
  EXPECT_NE(worst_beyond({1}, {1}, {std::nan("")}), "");
  EXPECT_NE(worst_beyond({1}, {1.5f}, {0}), "");
}

}  // namespace
}  // namespace assay::kernels
