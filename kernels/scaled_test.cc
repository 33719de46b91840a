#include <limits>

#include "kernels/packed_scaled.h"
#include "kernels/vq_testing.h"

namespace assay::kernels {
namespace {

using Kind = ScaledMatrix::Kind;
constexpr Kind kKinds[] = {Kind::kGptq4, Kind::kGptq8, Kind::kFp8E4m3};
struct Shape {
  int n_rows, n_cols, group;
};
constexpr Shape kShapes[] = {{64, 128, 128}, {1, 7, 16},   {17, 33, 8},  {130, 200, 64},
                             {200, 96, 32},  {63, 50, 50}, {65, 1, 128}, {320, 40, 24}};
constexpr int kTokens[] = {1, 2, 7, 31, 32, 33};

class Problem {
 public:
  Problem(Kind kind, Shape s, std::uint64_t seed, bool integers) : seed_(seed) {
    w_.kind = kind, w_.n_rows = s.n_rows, w_.n_cols = s.n_cols, w_.group = s.group;
    const int groups = w_.n_groups();
    if (kind == Kind::kFp8E4m3) {
      values_ = random_bytes(static_cast<std::size_t>(s.n_rows) * s.n_cols);
      for (std::byte& b : values_)
        if (integers)  // ± 1, 2, 4, 8
          b = (b & std::byte{0x80}) |
              static_cast<std::byte>(0x38 + (std::to_integer<int>(b) & 0x18));
        else if ((b & std::byte{0x7F}) == std::byte{0x7F})
          b = {};
      const int n_scales = (s.n_rows + s.group - 1) / s.group * groups;
      for (int i = 0; i < n_scales; ++i) put_scale(integers, 4);
    } else {
      const int per_word = kind == Kind::kGptq4 ? 8 : 4;
      values_ = random_bytes(std::size_t{4} * ((s.n_cols + per_word - 1) / per_word) * s.n_rows);
      zeros_ = random_bytes(std::size_t{4} * ((s.n_rows + per_word - 1) / per_word) * groups);
      for (int i = 0; i < groups * s.n_rows; ++i) put_scale(integers, 2);
    }
    w_.values = values_.data() + 1, w_.zeros = zeros_.data() + 1, w_.scales = scales_.data() + 1;
    packed_ = PackedScaled::pack(arena_, w_);
    const auto n = static_cast<std::size_t>(33) * s.n_cols;
    x_ = integers ? random_integers(n, seed + 1) : random_floats(n, seed + 1);
  }
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;

  std::vector<float> reference(int n, std::vector<float> y, bool accumulate) const {
    project_reference(w_, x_.data(), n, w_.n_cols, y.data(), w_.n_rows, accumulate);
    return y;
  }
  std::vector<float> cpu(CpuTarget target, int n, std::vector<float> y, bool accumulate,
                         int n_parts = 1, int first_token = 0, int first_part = 0) const {
    const auto xs = row_pointers(x_.data() + first_token * w_.n_cols, n, w_.n_cols);
    const auto ys = row_pointers(y.data(), n, w_.n_rows);
    for (int p = first_part; p < n_parts; ++p) {
      const ScaledProduct product{&packed_, ys.data(), packed_.n_blocks() * p / n_parts,
                                  packed_.n_blocks() * (p + 1) / n_parts};
      scaled_project_cpu(
          target,
          {.products = {&product, 1}, .x = xs.data(), .n_tokens = n, .accumulate = accumulate});
    }
    return y;
  }
  std::vector<float> poisoned(int n) const {
    return std::vector<float>(static_cast<std::size_t>(n) * w_.n_rows,
                              std::numeric_limits<float>::quiet_NaN());
  }
  std::vector<float> whole(int n) const {
    return random_integers(static_cast<std::size_t>(n) * w_.n_rows, 3);
  }
  // A product is rounded in the chain of its group, once for each group's multiply-add, and by the
  // reference: each time by at most 2^-24 of a partial sum. 1.001 covers the second order.
  std::vector<double> tolerance(int n) const {
    std::vector<double> out;
    for (int t = 0; t < n; ++t)
      for (int r = 0; r < w_.n_rows; ++r) {
        double sum = 0;
        for (int c = 0; c < w_.n_cols; ++c)
          sum += std::abs(static_cast<double>(weight_at(w_, r, c)) *
                          static_cast<double>(x_[t * w_.n_cols + c]));
        out.push_back((w_.group + w_.n_groups() + 1) * 0x1p-24 * 1.001 * sum);
      }
    return out;
  }
  testing::Message name() const {
    return testing::Message() << "kind " << static_cast<int>(w_.kind) << ", " << w_.n_rows << "x"
                              << w_.n_cols << ", group " << w_.group << ", seed " << seed_;
  }
  const PackedScaled& packed() const { return packed_; }

 private:
  int draw(int n) { return static_cast<int>(uniform_at(seed_, 1, n_drawn_++) * n); }
  // The first byte is not part of the array: what follows is not aligned.
  std::vector<std::byte> random_bytes(std::size_t n) {
    std::vector<std::byte> out(n + 1);
    for (std::byte& b : out) b = static_cast<std::byte>(draw(256));
    return out;
  }
  void put_scale(bool integers, int n_bytes) {
    const int sign = draw(2), exponent = draw(5) - 2, mantissa = integers ? 0 : draw(1024);
    const std::uint32_t bits =
        n_bytes == 2 ? static_cast<std::uint32_t>(sign << 15 | (15 + exponent) << 10 | mantissa)
                     : static_cast<std::uint32_t>(sign) << 31 |
                           static_cast<std::uint32_t>((127 + exponent) << 23 | mantissa << 13);
    for (int i = 0; i < n_bytes; ++i)
      scales_.push_back(static_cast<std::byte>(bits >> 8 * i & 255));
  }

  std::uint64_t seed_, n_drawn_ = 0;
  ScaledMatrix w_;
  std::vector<std::byte> values_, zeros_, scales_ = std::vector<std::byte>(1);
  std::vector<float> x_;
  WeightArena arena_;
  PackedScaled packed_;
};

using ScaledProjectCpu = EveryTarget;
ASSAY_FOR_EVERY_TARGET(ScaledProjectCpu);

TEST_P(ScaledProjectCpu, IsExactOnIntegers) {
  for (const Kind kind : kKinds)
    for (const Shape shape : kShapes) {
      const Problem p(kind, shape, 1, true);
      for (const int n : kTokens) {
        EXPECT_EQ(first_difference(p.reference(n, p.poisoned(n), false),
                                   p.cpu(GetParam(), n, p.poisoned(n), false)),
                  "")
            << p.name() << ", " << n << " tokens";
        EXPECT_EQ(first_difference(p.reference(n, p.whole(n), true),
                                   p.cpu(GetParam(), n, p.whole(n), true)),
                  "")
            << p.name() << ", " << n << " tokens added";
      }
    }
}

TEST_P(ScaledProjectCpu, StaysWithinTheRoundingsOfItsChains) {
  for (int i = 0; i < 12; ++i) {
    const std::uint64_t seed = 100 + i;
    const auto draw = [&](int n, int at) { return static_cast<int>(uniform_at(seed, 7, at) * n); };
    const Problem p(kKinds[i % 3], {1 + draw(200, 0), 1 + draw(300, 1), 1 + draw(128, 2)}, seed,
                    false);
    SCOPED_TRACE(p.name());
    expect_within(p.reference(3, p.poisoned(3), false), p.cpu(GetParam(), 3, p.poisoned(3), false),
                  p.tolerance(3));
  }
}

TEST_P(ScaledProjectCpu, TargetTokensTogetherAndSharesOfBlocksDoNotChangeABit) {
  for (const Kind kind : kKinds)
    for (const Shape shape : kShapes) {
      const Problem p(kind, shape, 5, false);
      std::vector<float> alone;
      for (int t = 0; t < 33; ++t) {
        const auto y = p.cpu(usable_cpu_targets().front(), 1, p.poisoned(1), false, 1, t);
        alone.insert(alone.end(), y.begin(), y.end());
      }
      for (const int n : kTokens)
        for (const int n_parts : {1, 2, 3})
          EXPECT_EQ(first_difference({alone.begin(), alone.begin() + n * shape.n_rows},
                                     p.cpu(GetParam(), n, p.poisoned(n), false, n_parts)),
                    "")
              << p.name() << ", " << n << " tokens, " << n_parts << " parts";
    }
}

TEST_P(ScaledProjectCpu, WritesTheRowsOfItsBlocksAndNoOthers) {
  const Problem p(Kind::kGptq8, {200, 96, 32}, 6, true);
  const auto expected = p.reference(1, p.poisoned(1), false);
  const auto got = p.cpu(GetParam(), 1, p.poisoned(1), false, 2, 0, 1);
  for (int r = 0; r < 200; ++r)
    if (r < 128)
      EXPECT_TRUE(std::isnan(got[r])) << r;
    else
      EXPECT_EQ(got[r], expected[r]) << r;
}

// One row per code, x = 1: NaN, subnormals and signs as in the reference.
TEST_P(ScaledProjectCpu, ReadsEveryE4m3Code) {
  std::vector<std::byte> values(256), scales(12);
  for (int i = 0; i < 256; ++i) values[i] = static_cast<std::byte>(i);
  scales[2] = scales[6] = std::byte{0x80}, scales[3] = scales[7] = std::byte{0x3F};  // 1 and 1
  const ScaledMatrix w{.kind = Kind::kFp8E4m3,
                       .values = values.data(),
                       .scales = scales.data(),
                       .n_rows = 256,
                       .n_cols = 1,
                       .group = 128};
  WeightArena arena;
  const PackedScaled packed = PackedScaled::pack(arena, w);
  const float one = 1;
  const float* x = &one;
  std::vector<float> expected(256), got(256);
  float* y = got.data();
  project_reference(w, x, 1, 1, expected.data(), 256, false);
  const ScaledProduct product{&packed, &y, 0, packed.n_blocks()};
  scaled_project_cpu(GetParam(),
                     {.products = {&product, 1}, .x = &x, .n_tokens = 1, .accumulate = false});
  EXPECT_EQ(first_difference(expected, got), "");
}

TEST(PackedScaled, KeepsAsManyBitsAsTheFile) {
  const Problem four(Kind::kGptq4, {128, 256, 128}, 1, true),
      eight(Kind::kFp8E4m3, {128, 256, 128}, 1, true);
  EXPECT_EQ(four.packed().bytes(), 128u * (256 / 2 + 2 * 3));
  EXPECT_EQ(eight.packed().bytes(), 128u * (256 + 2 * 4));
}

}  // namespace
}  // namespace assay::kernels
