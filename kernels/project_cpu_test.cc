#include "kernels/cpu_kernels_testing.h"
#include "kernels/project.h"

namespace assay::kernels {
namespace {

struct Shape {
  int n_rows, n_cols;
};
// Whole and partial blocks and groups, odd widths, one row, one column.
constexpr Shape kShapes[] = {{64, 32}, {16, 1}, {1, 7}, {17, 33}, {100, 45}, {130, 64}, {240, 9}};
constexpr int kTokens[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 29};

struct Problem {
  Problem(Shape s, WeightType t, bool integers)
      : shape(s),
        type(t),
        w(make(static_cast<std::size_t>(s.n_rows) * s.n_cols, 1, integers)),
        half(to_bf16(w)) {
    for (std::size_t i = 0; i < w.size(); ++i)
      if (type == WeightType::kBf16) w[i] = bf16_to_f32(half[i]);
    x = make(static_cast<std::size_t>(s.n_cols) * 40, 2, integers);
  }
  static std::vector<float> make(std::size_t n, std::uint64_t seed, bool integers) {
    return integers ? random_integers(n, seed) : random_floats(n, seed);
  }
  WeightMatrix view() const {
    const void* data = type == WeightType::kBf16 ? static_cast<const void*>(half.data()) : w.data();
    return {data, type, shape.n_rows, shape.n_cols};
  }
  std::vector<float> reference(int n_tokens, std::vector<float> y, bool accumulate) const {
    project_reference(view(), x.data(), n_tokens, shape.n_cols, y.data(), shape.n_rows, accumulate);
    return y;
  }
  // In `parts` calls that share out the blocks.
  std::vector<float> cpu(CpuTarget target, int n_tokens, std::vector<float> y, bool accumulate,
                         int parts = 1) const {
    WeightArena arena;
    const PackedMatrix packed = PackedMatrix::pack(arena, view());
    std::vector<const float*> xs;
    std::vector<float*> ys;
    for (int t = 0; t < n_tokens; ++t) {
      xs.push_back(x.data() + t * shape.n_cols);
      ys.push_back(y.data() + t * shape.n_rows);
    }
    for (int p = 0; p < parts; ++p)
      project_cpu(target, {.w = &packed,
                           .x = xs.data(),
                           .y = ys.data(),
                           .n_tokens = n_tokens,
                           .first_block = packed.n_blocks() * p / parts,
                           .last_block = packed.n_blocks() * (p + 1) / parts,
                           .accumulate = accumulate});
    return y;
  }
  std::vector<float> start(int n_tokens) const {
    return random_integers(static_cast<std::size_t>(n_tokens) * shape.n_rows, 3);
  }

  Shape shape;
  WeightType type;
  std::vector<float> w, x;
  std::vector<std::uint16_t> half;
};

using ProjectCpu = EveryTarget;
ASSAY_FOR_EVERY_TARGET(ProjectCpu);

TEST_P(ProjectCpu, IsExactOnIntegers) {
  for (const Shape shape : kShapes)
    for (const WeightType type : {WeightType::kBf16, WeightType::kF32}) {
      const Problem p(shape, type, true);
      for (const int n : kTokens)
        for (const bool accumulate : {false, true})
          EXPECT_EQ(first_difference(p.reference(n, p.start(n), accumulate),
                                     p.cpu(GetParam(), n, p.start(n), accumulate)),
                    "")
              << shape.n_rows << "x" << shape.n_cols << ", " << n << " tokens";
    }
}

TEST_P(ProjectCpu, StaysWithinTheRoundingOfOneChain) {
  for (const Shape shape : {Shape{33, 700}, Shape{64, 2048}}) {
    const Problem p(shape, WeightType::kBf16, false);
    const int n = 5;
    // A chain of n_cols fused multiply-adds rounds n_cols times, each time by at most 2^-24 of a
    // partial sum, which is at most the sum of absolute products.
    std::vector<double> tolerance;
    for (int t = 0; t < n; ++t)
      for (int r = 0; r < shape.n_rows; ++r) {
        double sum = 0;
        for (int k = 0; k < shape.n_cols; ++k)
          sum += std::abs(static_cast<double>(p.w[static_cast<std::size_t>(r) * shape.n_cols + k]) *
                          static_cast<double>(p.x[static_cast<std::size_t>(t) * shape.n_cols + k]));
        tolerance.push_back((shape.n_cols + 1) * 0x1p-24 * sum);
      }
    expect_within(p.reference(n, p.start(n), false), p.cpu(GetParam(), n, p.start(n), false),
                  tolerance);
  }
}

TEST_P(ProjectCpu, EveryTilingAndTargetGivesTheSameBits) {
  for (const Shape shape : kShapes)
    for (const WeightType type : {WeightType::kBf16, WeightType::kF32}) {
      const Problem p(shape, type, false);
      std::vector<float> alone;  // by one token at a time, the first target
      for (int t = 0; t < 29; ++t) {
        Problem one = p;
        one.x.assign(p.x.begin() + t * shape.n_cols, p.x.begin() + (t + 1) * shape.n_cols);
        const auto y = one.cpu(usable_cpu_targets().front(), 1, one.start(1), false);
        alone.insert(alone.end(), y.begin(), y.end());
      }
      for (const int n : kTokens)
        for (const int parts : {1, 2, 3}) {
          const std::vector<float> expected(alone.begin(), alone.begin() + n * shape.n_rows);
          EXPECT_EQ(first_difference(expected, p.cpu(GetParam(), n, p.start(n), false, parts)), "")
              << shape.n_rows << "x" << shape.n_cols << ", " << n << " tokens, " << parts
              << " parts";
        }
    }
}

TEST_P(ProjectCpu, AnInfiniteInputDoesNotMeetThePaddingColumn) {
  Problem p({3, 5}, WeightType::kBf16, true);
  p.x[4] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(
      first_difference(p.reference(1, p.start(1), false), p.cpu(GetParam(), 1, p.start(1), false)),
      "");
}

TEST_P(ProjectCpu, TransposedAndInterleavedPackingsAreTheSameMatrices) {
  const Problem p({20, 35}, WeightType::kBf16, true);
  const auto transposed_w = [&] {
    std::vector<float> t(p.w.size());
    for (int r = 0; r < 20; ++r)
      for (int k = 0; k < 35; ++k) t[k * 20 + r] = p.w[r * 35 + k];
    return to_bf16(t);
  }();
  WeightArena arena;
  const PackedMatrix transposed =
      PackedMatrix::pack_transposed(arena, {transposed_w.data(), WeightType::kBf16, 35, 20});
  const PackedMatrix in_turn = PackedMatrix::pack_in_turn(arena, p.view(), p.view());
  ASSERT_EQ(transposed.n_rows(), 20);
  ASSERT_EQ(in_turn.n_rows(), 64);
  const auto product = [&](const PackedMatrix& m) {
    std::vector<float> y(static_cast<std::size_t>(m.n_rows()));
    const float* x = p.x.data();
    float* out = y.data();
    project_cpu(GetParam(), {.w = &m,
                             .x = &x,
                             .y = &out,
                             .n_tokens = 1,
                             .first_block = 0,
                             .last_block = m.n_blocks(),
                             .accumulate = false});
    return y;
  };
  const auto expected = p.reference(1, p.start(1), false);
  EXPECT_EQ(first_difference(expected, product(transposed)), "");
  const auto twice = product(in_turn);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(twice[i / 16 * 32 + i % 16], expected[i]) << i;
    EXPECT_EQ(twice[i / 16 * 32 + 16 + i % 16], expected[i]) << i;
  }
}

}  // namespace
}  // namespace assay::kernels
