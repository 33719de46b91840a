// The indexer on a GPU against the reference: exact on integers, within the bound of
// indexer_cuda.h, at edges, and bit by bit whatever shares the launch.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include "kernels/cpu_kernels_testing.h"
#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/fresh_seed_testing.h"
#include "kernels/indexer.h"
#include "kernels/indexer_cuda.h"

namespace assay::kernels {
namespace {

struct Shape {
  int n_heads, dim;
};
// GLM-5.2's and micro-glm's, one or several rows to a tile, several tiles to a row, heads that fill
// none, and key by key.
constexpr Shape kShapes[] = {{32, 128}, {4, 64}, {1, 128}, {6, 64}, {16, 64}, {40, 128}, {11, 10}};

std::size_t count(int a, int b, int c = 1) {
  return static_cast<std::size_t>(a) * static_cast<std::size_t>(b) * static_cast<std::size_t>(c);
}

struct Result {
  std::vector<float> scores, margin;
  std::vector<int> keys, n_keys;
  std::vector<int> keys_of(int row, int top_k) const {
    const auto first = keys.begin() + row * top_k;
    return {first, first + n_keys[static_cast<std::size_t>(row)]};
  }
};

// Rows of several sequences: sequence i has n_rows of them at its last positions of n_keys.
struct Sequence {
  int n_rows, n_keys;
};
struct Problem {
  Problem(const Shape& shape, int k, std::vector<Sequence> of, Random& random, bool integers)
      : s(shape), top_k(k), sequences(std::move(of)) {
    for (const Sequence& q : sequences) {
      keys.push_back(random.floats(count(q.n_keys, s.dim), integers));
      n_rows += q.n_rows;
      max_keys = std::max(max_keys, q.n_keys);
    }
    q = random.floats(count(n_rows, s.n_heads, s.dim), integers);
    weights = random.floats(count(n_rows, s.n_heads), integers);
  }

  // All rows by one launch: in runs, or each by itself. Score rows are `stride` apart.
  Result computed(bool in_runs, int stride) const {
    std::vector<DeviceArray<float>> caches;
    for (const auto& k : keys) caches.emplace_back(k);
    std::vector<float*> cache;
    std::vector<int> position, run;
    for (std::size_t i = 0; i < sequences.size(); ++i)
      for (int r = 0; r < sequences[i].n_rows; ++r) {
        if (r % index_rows_of_run(s.n_heads) == 0) run.push_back(static_cast<int>(cache.size()));
        cache.push_back(caches[i].data());
        position.push_back(sequences[i].n_keys - sequences[i].n_rows + r);
      }
    const int n_runs = static_cast<int>(run.size());
    run.push_back(n_rows);
    const DeviceArray<float> dq(q), dw(weights);
    const DeviceArray<float*> d_cache(cache);
    const DeviceArray<int> d_position(position), d_run(run),
        chosen(std::vector<int>(count(n_rows, top_k), -1)),
        n_chosen(std::vector<int>(static_cast<std::size_t>(n_rows), -1));
    const auto scores = poisoned(count(n_rows, stride)), margin = poisoned(count(n_rows, 1));
    index_cuda({.q = dq.data(),
                .weights = dw.data(),
                .cache = d_cache.data(),
                .position = d_position.data(),
                .run = in_runs ? d_run.data() : nullptr,
                .n_runs = n_runs,
                .n_rows = n_rows,
                .n_heads = s.n_heads,
                .dim = s.dim,
                .top_k = top_k,
                .max_keys = stride,
                .scores = scores.data(),
                .keys = chosen.data(),
                .n_keys = n_chosen.data(),
                .margin = margin.data()},
               nullptr);
    return {scores.host(), margin.host(), chosen.host(), n_chosen.host()};
  }

  // Σ_h weights_h · ReLU(q_h · k), and of what size its errors are: the bound of indexer_cuda.h,
  // with the rounding of the reference beside it.
  struct Exact {
    double score, bound;
  };
  Exact exact(int row, const float* k) const {
    Exact out = {0, 0};
    for (int h = 0; h < s.n_heads; ++h) {
      const auto head = count(row, s.n_heads) + static_cast<std::size_t>(h);
      double dot = 0, size = 0;
      for (int i = 0; i < s.dim; ++i) {
        const double p =
            static_cast<double>(
                q[head * static_cast<std::size_t>(s.dim) + static_cast<std::size_t>(i)]) *
            static_cast<double>(k[i]);
        dot += p;
        size += std::abs(p);
      }
      const auto weight = static_cast<double>(weights[head]);
      out.score += weight * std::max(dot, 0.0);
      out.bound += std::abs(weight) *
                   ((s.dim + 24) * 0x1p-22 * size + (s.n_heads + 4) * 0x1p-24 * std::abs(dot));
    }
    return out;
  }
  double scale() const { return 1 / std::sqrt(static_cast<double>(s.n_heads * s.dim)); }

  template <class Visit>  // visit(row, keys of its sequence, how many the row sees)
  void each_row(const Visit& visit) const {
    int row = 0;
    for (std::size_t i = 0; i < sequences.size(); ++i)
      for (int r = 0; r < sequences[i].n_rows; ++r, ++row)
        visit(row, keys[i].data(), sequences[i].n_keys - sequences[i].n_rows + r + 1);
  }

  Shape s;
  int top_k, n_rows = 0, max_keys = 0;
  std::vector<Sequence> sequences;
  std::vector<std::vector<float>> keys;
  std::vector<float> q, weights;
};

// Sums of integers below 2^24 are exact whatever their order, and one rounding follows.
void expect_exact(const Problem& p, bool in_runs) {
  const Result got = p.computed(in_runs, p.max_keys);
  const auto scale = static_cast<float>(p.scale());
  p.each_row([&](int row, const float* keys, int n) {
    std::vector<float> sums;
    for (int k = 0; k < n; ++k)
      sums.push_back(static_cast<float>(p.exact(row, keys + count(k, p.s.dim)).score));
    std::vector<int> expected;
    select_top_k(sums.data(), n, p.top_k, &expected, nullptr);
    ASSERT_EQ(got.keys_of(row, p.top_k), expected)
        << p.s.n_heads << " x " << p.s.dim << ", row " << row << ", " << n << " keys";
    if (n <= p.top_k) return;
    for (int k = 0; k < n; ++k)
      ASSERT_EQ(got.scores[count(row, p.max_keys) + static_cast<std::size_t>(k)],
                scale * sums[static_cast<std::size_t>(k)])
          << p.s.n_heads << " x " << p.s.dim << ", row " << row << ", key " << k;
  });
}

TEST_F(Cuda, IndexScoresAndTheSelectionAreExactOnIntegers) {
  Random random(7);
  for (const Shape& s : kShapes)
    for (const bool in_runs : {false, true}) {
      expect_exact(Problem(s, 40, {{1, 300}}, random, true), in_runs);
      expect_exact(Problem(s, 40, {{70, 130}, {1, 65}, {3, 5}, {2, 42}}, random, true), in_runs);
    }
}

// A key, or a query, of one dimension and a row of one head, so that a score is one product, whose
// value float32 holds: of 24 bits and a power of two, or of 12 and 11 bits.
TEST_F(Cuda, NoBitOfAFactorIsLost) {
  Random random(11);
  const auto one_hot = [&](std::vector<float>& values, int width, const auto& value) {
    std::fill(values.begin(), values.end(), 0.0f);
    for (std::size_t first = 0; first < values.size(); first += static_cast<std::size_t>(width))
      values[first + static_cast<std::size_t>(random.below(width))] = value();
  };
  const auto power = [&] { return std::ldexp(1.0f, random.below(9) - 4); };
  for (const Shape& s : kShapes)
    for (const bool in_runs : {false, true}) {
      Problem p(s, 20, {{5, 90}}, random, false);
      one_hot(p.weights, s.n_heads, [] { return -2.0f; });
      one_hot(p.keys[0], s.dim, power);
      expect_exact(p, in_runs);
      for (float& v : p.q) v = static_cast<float>(2 * random.below(4096) - 4095);
      one_hot(p.keys[0], s.dim, [&] { return static_cast<float>(2 * random.below(1024) - 1023); });
      expect_exact(p, in_runs);
      one_hot(p.q, s.dim, power);
      p.keys[0] = random.floats(p.keys[0].size());
      expect_exact(p, in_runs);
    }
}

TEST_F(Cuda, ALongContextIsExactOnIntegersToo) {
  Random random(8);
  expect_exact(Problem({4, 64}, 512, {{1, 32768}}, random, true), false);
  expect_exact(Problem({32, 128}, 2048, {{2, 9001}}, random, true), true);
}

TEST_F(Cuda, TheSelectionIsTheReferencesToTheKeyAmongEqualsToo) {
  Random random(7);
  for (const auto& [n_keys, k] : {std::pair{1500, 512}, {513, 512}, {40, 64}, {64, 64}, {1, 8}}) {
    const Problem p({4, 64}, k, {{1, n_keys}}, random, true);
    std::vector<float> scores(count(n_keys, 1)), scaled(p.weights);
    for (float& w : scaled) w *= 0.5f;  // 4 heads: an exact root
    index_scores_reference({.q = p.q.data(),
                            .weights = scaled.data(),
                            .k = p.keys[0].data(),
                            .n_keys = n_keys,
                            .n_heads = p.s.n_heads,
                            .head_dim = p.s.dim,
                            .scores = scores.data()});
    std::vector<int> expected;
    float margin = 0;
    select_top_k(scores.data(), n_keys, k, &expected, &margin);
    const Result got = p.computed(false, n_keys);
    EXPECT_EQ(got.keys_of(0, k), expected) << n_keys << ", " << k;
    EXPECT_EQ(got.margin[0], margin);
  }
}

// Of rows that all see more than top_k keys.
void expect_within_bound(Problem p, bool in_runs, Random& random) {
  for (float& v : p.q) v *= std::exp2(random.floats(1)[0] * 4);
  const Result got = p.computed(in_runs, p.max_keys);
  double worst = 0;
  p.each_row([&](int row, const float* keys, int n) {
    std::vector<double> exact;
    double largest_bound = 0;
    for (int k = 0; k < n; ++k) {
      const auto [score, bound] = p.exact(row, keys + count(k, p.s.dim));
      const double delta = std::abs(
          static_cast<double>(got.scores[count(row, p.max_keys) + static_cast<std::size_t>(k)]) -
          p.scale() * score);
      ASSERT_LE(delta, p.scale() * bound)
          << p.s.n_heads << " x " << p.s.dim << ", row " << row << ", key " << k;
      exact.push_back(p.scale() * score);
      largest_bound = std::max(largest_bound, p.scale() * bound);
      if (bound > 0) worst = std::max(worst, delta / (p.scale() * bound));
    }
    // No key is chosen, or left out, that exact scores would not at most just have.
    std::vector<double> sorted(exact);
    std::nth_element(sorted.begin(), sorted.begin() + p.top_k - 1, sorted.end(), std::greater<>());
    const double last = sorted[static_cast<std::size_t>(p.top_k) - 1];
    const std::vector<int> chosen = got.keys_of(row, p.top_k);
    for (int k = 0; k < n; ++k) {
      const bool is_chosen = std::binary_search(chosen.begin(), chosen.end(), k);
      const double above = exact[static_cast<std::size_t>(k)] - last;
      ASSERT_LE(is_chosen ? -above : above, 2 * largest_bound) << row << ", " << k;
    }
  });
  std::printf("%2d heads x %3d: worst error %.2g of its bound\n", p.s.n_heads, p.s.dim, worst);
}

TEST_F(Cuda, IndexScoresStayWithinTheirBound) {
  Random random(fresh_seed());
  for (const Shape& s : kShapes)
    expect_within_bound(Problem(s, 50, {{30, 300}, {1, 200}}, random, false), true, random);
}

TEST_F(Cuda, IndexScoresOfDrawnShapesStayWithinTheirBound) {
  Random random(fresh_seed());
  for (int i = 0; i < 12; ++i) {
    const int dims[] = {64, 128, 1 + random.below(130)};
    const Shape s = {1 + random.below(48), dims[i % 3]};
    const int top_k = 1 + random.below(60);
    std::vector<Sequence> sequences(1 + static_cast<std::size_t>(random.below(3)));
    for (Sequence& q : sequences) {
      q.n_rows = 1 + random.below(20);
      q.n_keys = top_k + q.n_rows + random.below(150);
    }
    expect_within_bound(Problem(s, top_k, sequences, random, false), random.below(2) == 0, random);
  }
}

// Scores bit by bit, where they are not `own(row, keys of its sequence, key)`, and the selection by
// what they are.
template <class Own>
void expect_scores(const Problem& p, bool in_runs, std::vector<float> expected, const Own& own,
                   const char* what) {
  const Result got = p.computed(in_runs, p.max_keys);
  p.each_row([&](int row, const float* keys, int n) {
    const std::size_t first = count(row, p.max_keys);
    for (int k = 0; k < n; ++k)
      if (own(row, keys, k)) {
        const auto at = first + static_cast<std::size_t>(k);
        expected[at] = got.scores[at];
      }
    std::vector<int> selected;
    select_top_k(&got.scores[first], n, p.top_k, &selected, nullptr);
    EXPECT_EQ(got.keys_of(row, p.top_k), selected) << what << ", row " << row;
  });
  EXPECT_EQ(first_difference(expected, got.scores), "")
      << what << ", " << p.s.n_heads << " x " << p.s.dim << (in_runs ? ", in runs" : "");
}

// Rows share tiles and keys. A NaN counts as zero in its head of its row, or in its key; a NaN
// weight makes its row's scores NaN. An infinity is its row's or key's own affair.
TEST_F(Cuda, NaNAndInfinityStayInTheirRowsOrTheirKeysIndexScores) {
  Random random(12);
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(),
                  kInf = std::numeric_limits<float>::infinity();
  for (const Shape& s : kShapes)
    for (const bool in_runs : sizes<bool>({false, true}, {true})) {
      const Problem p(s, 40, {{30, 150}, {1, 61}, {5, 100}}, random, false);
      const std::vector<float> plain = p.computed(in_runs, p.max_keys).scores;
      for (const float bad : sizes<float>({kNaN, kInf, -kInf}, {kNaN})) {
        const int bad_row = random.below(p.n_rows);
        const auto dim = static_cast<std::size_t>(random.below(s.dim)),
                   head = count(bad_row, s.n_heads) +
                          static_cast<std::size_t>(random.below(s.n_heads)),
                   first = count(bad_row, p.max_keys);
        const auto in_row = [&](int row, const float*, int) {
          return !std::isnan(bad) && row == bad_row;
        };
        Problem without = p, query = p, weight = p, key = p;
        std::fill_n(&without.q[head * static_cast<std::size_t>(s.dim)], s.dim, 0.0f);
        const std::vector<float> of_others = without.computed(in_runs, p.max_keys).scores;
        std::vector<float> expected = plain;
        std::copy_n(&of_others[first], p.max_keys, &expected[first]);
        query.q[head * static_cast<std::size_t>(s.dim) + dim] = bad;
        expect_scores(query, in_runs, expected, in_row, "query");

        expected = plain;
        std::fill_n(&expected[first], p.max_keys, kNaN);
        weight.weights[head] = bad;
        expect_scores(weight, in_runs, expected, in_row, "weight");

        const auto of = static_cast<std::size_t>(random.below(3));
        const int bad_key = random.below(p.sequences[of].n_keys);
        expected = plain;
        p.each_row([&](int row, const float* keys, int n) {
          if (keys == p.keys[of].data() && bad_key < n)
            expected[count(row, p.max_keys) + static_cast<std::size_t>(bad_key)] = 0;
        });
        key.keys[of][count(bad_key, s.dim) + dim] = bad;
        const auto in_key = [&](int, const float* keys, int k) {
          return !std::isnan(bad) && keys == key.keys[of].data() && k == bad_key;
        };
        expect_scores(key, in_runs, expected, in_key, "key");
      }
    }
}

TEST_F(Cuda, ARowsScoresAreTheSameBitsWhateverSharesItsLaunch) {
  Random random(9);
  for (const Shape& s : kShapes) {
    const Problem p(s, 60, {{40, 200}, {1, 61}, {1, 300}, {5, 150}, {2, 30}}, random, false);
    const Result all = p.computed(true, 512);
    int row = 0;
    for (std::size_t i = 0; i < p.sequences.size(); ++i)
      for (int r = 0; r < p.sequences[i].n_rows; ++r, ++row) {
        if (under_racecheck() && row % 20 != 19) continue;
        Problem one = p;
        const int n = p.sequences[i].n_keys - p.sequences[i].n_rows + r + 1;
        one.sequences = {{1, n}};
        one.keys = {p.keys[i]};
        one.n_rows = 1;
        const auto width = static_cast<std::ptrdiff_t>(count(s.n_heads, s.dim));
        one.q.assign(p.q.begin() + row * width, p.q.begin() + (row + 1) * width);
        one.weights.assign(p.weights.begin() + row * s.n_heads,
                           p.weights.begin() + (row + 1) * s.n_heads);
        const Result alone = one.computed(false, n);
        ASSERT_EQ(all.keys_of(row, p.top_k), alone.keys_of(0, p.top_k)) << row;
        ASSERT_EQ(all.margin[static_cast<std::size_t>(row)], alone.margin[0]) << row;
        for (int k = 0; k < 512; ++k) {
          const float score = all.scores[count(row, 512) + static_cast<std::size_t>(k)];
          if (k >= n)
            ASSERT_TRUE(std::isnan(score)) << "row " << row << " sees " << n << ", not " << k;
          else if (n > p.top_k)
            ASSERT_EQ(score, alone.scores[static_cast<std::size_t>(k)]) << row << ", " << k;
        }
      }
  }
}

// Rows of given scores, every row the first n of them and one less each.
void expect_selection(const std::vector<float>& scores, int k, int n_rows, bool has_margin,
                      const char* what) {
  const int n = static_cast<int>(scores.size());
  std::vector<float> all;
  std::vector<int> position;
  for (int r = 0; r < n_rows; ++r) {
    all.insert(all.end(), scores.begin(), scores.end());
    position.push_back(std::max(0, n - 1 - r));
  }
  const DeviceArray<float> d_scores(all);
  const DeviceArray<int> d_position(position), chosen(std::vector<int>(count(n_rows, k), -1)),
      n_chosen(std::vector<int>(static_cast<std::size_t>(n_rows), -1));
  const auto margin = poisoned(count(n_rows, 1));
  select_top_k_cuda({.position = d_position.data(),
                     .n_rows = n_rows,
                     .top_k = k,
                     .max_keys = n,
                     .scores = d_scores.data(),
                     .keys = chosen.data(),
                     .n_keys = n_chosen.data(),
                     .margin = margin.data()},
                    nullptr);
  const Result got = {{}, margin.host(), chosen.host(), n_chosen.host()};
  for (int r = 0; r < n_rows; ++r) {
    const int seen = position[static_cast<std::size_t>(r)] + 1;
    std::vector<int> expected;
    float expected_margin = 0;
    select_top_k(scores.data(), seen, k, &expected, &expected_margin);
    ASSERT_EQ(got.keys_of(r, k), expected) << what << ": " << seen << " keys, k " << k;
    if (has_margin)
      ASSERT_EQ(got.margin[static_cast<std::size_t>(r)], expected_margin)
          << what << ": " << seen << " keys, k " << k;
    for (int i = seen; i < k; ++i)
      ASSERT_EQ(got.keys[count(r, k) + static_cast<std::size_t>(i)], -1) << what;
  }
}

// One row is a cluster's if it is long; many rows are a block's each.
TEST_F(Cuda, SelectionsAtEdges) {
  Random random(10);
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const int n_rows : {1, 40})
    for (const int n : sizes({1, 2, 33, 600, 4097, 5000}, {600, 4097}))
      for (const int k : sizes({1, 32, 599, 4096}, {599})) {
        const std::vector<float> normal = random.floats(count(n, 1)),
                                 small = random.floats(count(n, 1), true);
        expect_selection(normal, k, n_rows, true, "all different");
        expect_selection(small, k, n_rows, true, "many equal");
        expect_selection(std::vector<float>(count(n, 1), -2.5f), k, n_rows, true, "all equal");
        std::vector<float> zeros = small, infinite = small, close = normal;
        for (float& v : zeros) v = std::copysign(0.0f, v);
        expect_selection(zeros, k, n_rows, true, "zeros of both signs");
        for (float& v : infinite) v = v > 4 ? kInf : v < 0 ? -kInf : v < 2 ? std::nanf("") : v;
        expect_selection(infinite, k, n_rows, false, "infinities and NaN");
        for (float& v : close) v = 1 + std::round(v) * 0x1p-23f;  // that the last digit decides
        expect_selection(close, k, n_rows, true, "neighbours");
        std::sort(close.begin(), close.end());
        expect_selection(close, k, n_rows, true, "ascending");
        std::reverse(close.begin(), close.end());
        expect_selection(close, k, n_rows, true, "descending");
      }
  expect_selection(random.floats(32768), 2048, 1, true, "long, a cluster");
  expect_selection(random.floats(32768), 2048, 40, true, "long, a block");
}

}  // namespace
}  // namespace assay::kernels
