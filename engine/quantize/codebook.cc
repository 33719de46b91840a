#include "engine/quantize/codebook.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "base/rng.h"
#include "engine/quantize/binary16.h"
#include "engine/quantize/sweep_cpu.h"

namespace assay::engine {
namespace {

// Points are worked on in blocks of lanes, and sums are gathered in chunks whose number depends on
// the points alone; chunks are then added in order.
constexpr int kLanes = 64, kMaxChunks = 64;
constexpr std::int64_t kSeedPointsPerCode = 64;
constexpr std::uint64_t kSeedStream = 0x6B6D65616E73;  // "kmeans"

// Points as lanes: (n_blocks, dim, kLanes), the last block filled with weightless zeros.
struct Lanes {
  int dim;
  std::int64_t n_points, n_blocks;
  std::vector<float> x, w, v;  // v = −2 w x
  std::vector<double> base;    // (n_points): Σ w x²

  std::size_t offset(std::int64_t block) const {
    return static_cast<std::size_t>(block * dim * kLanes);
  }
  std::size_t at(std::int64_t point, int i) const {
    return static_cast<std::size_t>((point / kLanes * dim + i) * kLanes + point % kLanes);
  }
};

Lanes lanes_of(const float* points, const float* weights, std::int64_t n_points, int dim) {
  Lanes lanes{dim, n_points, (n_points + kLanes - 1) / kLanes, {}, {}, {}, {}};
  lanes.x.assign(lanes.offset(lanes.n_blocks), 0.0f);
  lanes.w = lanes.v = lanes.x;
  lanes.base.resize(static_cast<std::size_t>(n_points));
  for (std::int64_t p = 0; p < n_points; ++p) {
    double base = 0;
    for (int i = 0; i < dim; ++i) {
      const float x = points[p * dim + i], w = weights[p * dim + i];
      lanes.x[lanes.at(p, i)] = x;
      lanes.w[lanes.at(p, i)] = w;
      lanes.v[lanes.at(p, i)] = -2 * w * x;
      base += static_cast<double>(w) * x * x;
    }
    lanes.base[static_cast<std::size_t>(p)] = base;
  }
  return lanes;
}

// Blocks of chunk i of n: [first, last).
struct Range {
  std::int64_t first, last;
};
Range chunk(std::int64_t n_blocks, int i, int n) {
  return {n_blocks * i / n, n_blocks * (i + 1) / n};
}
int n_chunks(std::int64_t n_blocks) {
  return static_cast<int>(std::min<std::int64_t>(kMaxChunks, n_blocks));
}

void show(const KMeansHooks& hooks, std::string_view what, int done, int total) {
  if (hooks.on_progress) hooks.on_progress(what, done, total);
}

constexpr int kCentresPerProgress = 64;

// k-means++: each next centre is a point drawn with a probability proportional to its cost so far.
Result<std::vector<float>> seed_centres(const Lanes& lanes, int n_codes, std::uint64_t seed,
                                        ThreadPool& pool, const KMeansHooks& hooks) {
  const int dim = lanes.dim, chunks = n_chunks(lanes.n_blocks);
  std::vector<float> centres(static_cast<std::size_t>(n_codes) * static_cast<std::size_t>(dim));
  std::vector<float> cost(static_cast<std::size_t>(lanes.n_blocks * kLanes),
                          std::numeric_limits<float>::infinity());
  std::vector<double> chunk_cost(static_cast<std::size_t>(chunks));

  // The first centre: as if the cost so far were the point's weight.
  for (std::int64_t b = 0; b < lanes.n_blocks; ++b)
    for (int r = 0; r < kLanes; ++r) {
      float weight = 0;
      for (int i = 0; i < dim; ++i)
        weight += lanes.w[lanes.offset(b) + static_cast<std::size_t>(i * kLanes + r)];
      cost[static_cast<std::size_t>(b * kLanes + r)] = weight;
    }
  const auto sum_chunk = [&](int c) {
    const Range range = chunk(lanes.n_blocks, c, chunks);
    double sum = 0;
    for (std::int64_t p = range.first * kLanes; p < range.last * kLanes; ++p)
      sum += static_cast<double>(cost[static_cast<std::size_t>(p)]);
    chunk_cost[static_cast<std::size_t>(c)] = sum;
  };
  pool.parallel_for(chunks, sum_chunk);

  for (int k = 0; k < n_codes; ++k) {
    if (k % kCentresPerProgress == 0) show(hooks, "first centres", k, n_codes);
    ASSAY_TRY_VOID(go_on(hooks.stop));
    const double total = std::accumulate(chunk_cost.begin(), chunk_cost.end(), 0.0);
    // A cost of zero everywhere: every point is a centre already; any serves.
    double rest = uniform_at(seed, kSeedStream, static_cast<std::uint64_t>(k)) * total;
    int c = 0;
    while (c + 1 < chunks && rest >= chunk_cost[static_cast<std::size_t>(c)])
      rest -= chunk_cost[static_cast<std::size_t>(c++)];
    const Range range = chunk(lanes.n_blocks, c, chunks);
    std::int64_t drawn = std::min(range.first * kLanes, lanes.n_points - 1);
    for (std::int64_t p = range.first * kLanes; p < std::min(range.last * kLanes, lanes.n_points);
         ++p) {
      const float own = cost[static_cast<std::size_t>(p)];
      if (own > 0) drawn = p;
      if (rest < static_cast<double>(own)) break;
      rest -= static_cast<double>(own);
    }
    float* centre = centres.data() + static_cast<std::size_t>(k) * static_cast<std::size_t>(dim);
    for (int i = 0; i < dim; ++i) centre[i] = lanes.x[lanes.at(drawn, i)];

    const bool first_centre = k == 0;
    pool.parallel_for(chunks, [&](int ch) {
      const Range blocks = chunk(lanes.n_blocks, ch, chunks);
      for (std::int64_t b = blocks.first; b < blocks.last; ++b) {
        float distance[kLanes] = {};
        for (int i = 0; i < dim; ++i) {
          const float* x = lanes.x.data() + lanes.offset(b) + i * kLanes;
          const float* w = lanes.w.data() + lanes.offset(b) + i * kLanes;
          for (int r = 0; r < kLanes; ++r)
            distance[r] += w[r] * (x[r] - centre[i]) * (x[r] - centre[i]);
        }
        float* own = cost.data() + b * kLanes;
        for (int r = 0; r < kLanes; ++r)
          own[r] = first_centre || distance[r] < own[r] ? distance[r] : own[r];
      }
      sum_chunk(ch);
    });
  }
  return centres;
}

struct Assignment {
  std::vector<std::uint16_t> index;  // (n_points)
  std::vector<float> cost;           // (n_points)
  double total;
};

Result<void> assign(const Lanes& lanes, const std::vector<float>& centres, int n_codes,
                    Assignment& result, ThreadPool& pool, Stop* stop) {
  const auto target = kernels::usable_cpu_targets().front();
  ASSAY_TRY_VOID(parallel_for(pool, stop, static_cast<int>(lanes.n_blocks), [&](int b) {
    float score[kLanes], index[kLanes];
    nearest_weighted(target, {.w = lanes.w.data() + lanes.offset(b),
                              .v = lanes.v.data() + lanes.offset(b),
                              .codebook = centres.data(),
                              .score = score,
                              .index = index,
                              .dim = lanes.dim,
                              .n_codes = n_codes,
                              .n_lanes = kLanes});
    const std::int64_t first = std::int64_t{b} * kLanes;
    for (std::int64_t p = first; p < std::min(first + kLanes, lanes.n_points); ++p) {
      const auto at = static_cast<std::size_t>(p);
      result.index[at] = static_cast<std::uint16_t>(index[p - first]);
      result.cost[at] =
          static_cast<float>(std::max(0.0, lanes.base[at] + static_cast<double>(score[p - first])));
    }
  }));
  result.total = 0;
  for (const float cost : result.cost) result.total += static_cast<double>(cost);
  return {};
}

// Means of the clusters; n_members (n_codes) is how many points each has.
void update_centres(const Lanes& lanes, const Assignment& assignment, std::vector<float>& centres,
                    std::vector<std::int64_t>& n_members, ThreadPool& pool) {
  const int dim = lanes.dim, chunks = n_chunks(lanes.n_blocks);
  const std::size_t n_values = centres.size(), n_codes = n_members.size();
  std::vector<double> numerator(n_values * static_cast<std::size_t>(chunks)),
      denominator(numerator.size());
  std::vector<std::int64_t> members(n_codes * static_cast<std::size_t>(chunks));
  pool.parallel_for(chunks, [&](int c) {
    const Range range = chunk(lanes.n_blocks, c, chunks);
    double* num = numerator.data() + n_values * static_cast<std::size_t>(c);
    double* den = denominator.data() + n_values * static_cast<std::size_t>(c);
    std::int64_t* count = members.data() + n_codes * static_cast<std::size_t>(c);
    for (std::int64_t p = range.first * kLanes; p < std::min(range.last * kLanes, lanes.n_points);
         ++p) {
      const std::size_t code = assignment.index[static_cast<std::size_t>(p)];
      ++count[code];
      for (int i = 0; i < dim; ++i) {
        const auto w = static_cast<double>(lanes.w[lanes.at(p, i)]);
        num[code * static_cast<std::size_t>(dim) + static_cast<std::size_t>(i)] +=
            w * static_cast<double>(lanes.x[lanes.at(p, i)]);
        den[code * static_cast<std::size_t>(dim) + static_cast<std::size_t>(i)] += w;
      }
    }
  });
  pool.parallel_for(static_cast<int>(n_codes), [&](int code) {
    const auto k = static_cast<std::size_t>(code);
    n_members[k] = 0;
    for (int c = 0; c < chunks; ++c)
      n_members[k] += members[n_codes * static_cast<std::size_t>(c) + k];
    for (std::size_t at = k * static_cast<std::size_t>(dim);
         at < (k + 1) * static_cast<std::size_t>(dim); ++at) {
      double num = 0, den = 0;
      for (int c = 0; c < chunks; ++c) {
        num += numerator[n_values * static_cast<std::size_t>(c) + at];
        den += denominator[n_values * static_cast<std::size_t>(c) + at];
      }
      if (den > 0) centres[at] = static_cast<float>(num / den);
    }
  });
}

// Gives every empty cluster the farthest point that no other one was given. Returns how many.
int reseed_empty(const Lanes& lanes, const Assignment& assignment,
                 const std::vector<std::int64_t>& n_members, std::vector<float>& centres) {
  std::vector<std::size_t> empty;
  for (std::size_t k = 0; k < n_members.size(); ++k)
    if (n_members[k] == 0) empty.push_back(k);
  if (empty.empty()) return 0;
  std::vector<std::int64_t> far(static_cast<std::size_t>(lanes.n_points));
  std::iota(far.begin(), far.end(), 0);
  const auto farther = [&](std::int64_t a, std::int64_t b) {
    const float ca = assignment.cost[static_cast<std::size_t>(a)];
    const float cb = assignment.cost[static_cast<std::size_t>(b)];
    return ca != cb ? ca > cb : a < b;
  };
  // Twice as many as are needed, for those that are equal.
  const std::size_t n_far = std::min(far.size(), 2 * empty.size());
  std::partial_sort(far.begin(), far.begin() + static_cast<std::ptrdiff_t>(n_far), far.end(),
                    farther);
  const auto equal = [&](std::int64_t a, std::int64_t b) {
    for (int i = 0; i < lanes.dim; ++i)
      if (lanes.x[lanes.at(a, i)] != lanes.x[lanes.at(b, i)]) return false;
    return true;
  };
  std::vector<std::int64_t> used;
  for (std::size_t f = 0; f < n_far && used.size() < empty.size(); ++f) {
    if (!(assignment.cost[static_cast<std::size_t>(far[f])] > 0)) break;
    if (std::any_of(used.begin(), used.end(), [&](auto u) { return equal(u, far[f]); })) continue;
    const std::size_t k = empty[used.size()];
    for (int i = 0; i < lanes.dim; ++i)
      centres[k * static_cast<std::size_t>(lanes.dim) + static_cast<std::size_t>(i)] =
          lanes.x[lanes.at(far[f], i)];
    used.push_back(far[f]);
  }
  return static_cast<int>(used.size());
}

}  // namespace

float initial_scale(const float* w, int n) {
  double sum = 0, square = 0;
  for (int i = 0; i < n; ++i) {
    sum += static_cast<double>(w[i]);
    square += static_cast<double>(w[i]) * static_cast<double>(w[i]);
  }
  return round_to_f16(
      static_cast<float>(std::sqrt(std::max(0.0, square / n - sum / n * (sum / n)))));
}

Result<KMeansResult> fit_codebook(const float* points, const float* weights, std::int64_t n_points,
                                  int dim, const KMeansOptions& options, ThreadPool& pool,
                                  const KMeansHooks& hooks) {
  if (!is_searchable_dim(dim))
    return fail("fit_codebook: dimension {}, expected 1, 2, 4, 8 or 16", dim);
  if (options.n_codes < 2 || options.n_codes > 65536)
    return fail("fit_codebook: {} codewords, expected 2 to 65536", options.n_codes);
  if (n_points < options.n_codes)
    return fail("fit_codebook: {} points for {} codewords: sample more sub-vectors", n_points,
                options.n_codes);
  for (std::int64_t i = 0; i < n_points * dim; ++i)
    if (!std::isfinite(points[i]) || !std::isfinite(weights[i]) || weights[i] < 0)
      return fail(
          "fit_codebook: point {} has value {} and weight {} in dimension {}, expected finite "
          "values and weights of 0 or more",
          i / dim, points[i], weights[i], i % dim);

  const Lanes lanes = lanes_of(points, weights, n_points, dim);
  const std::int64_t n_seed = std::min(n_points, kSeedPointsPerCode * options.n_codes);
  KMeansResult result{{dim, options.n_codes, {}}, 0, 0, 0};
  std::vector<float>& centres = result.codebook.values;
  if (n_seed == n_points) {
    ASSAY_TRY(centres, seed_centres(lanes, options.n_codes, options.seed, pool, hooks));
  } else {
    std::vector<float> x, w;
    for (std::int64_t s = 0; s < n_seed; ++s) {
      const std::int64_t p = s * n_points / n_seed * dim;
      x.insert(x.end(), points + p, points + p + dim);
      w.insert(w.end(), weights + p, weights + p + dim);
    }
    ASSAY_TRY(centres, seed_centres(lanes_of(x.data(), w.data(), n_seed, dim), options.n_codes,
                                    options.seed, pool, hooks));
  }

  Assignment assignment;
  assignment.index.resize(static_cast<std::size_t>(n_points));
  assignment.cost.resize(static_cast<std::size_t>(n_points));
  std::vector<std::int64_t> n_members(static_cast<std::size_t>(options.n_codes));
  double before = std::numeric_limits<double>::infinity();
  while (result.n_iterations < options.max_iterations) {
    show(hooks, "iteration", result.n_iterations, options.max_iterations);
    ASSAY_TRY_VOID(assign(lanes, centres, options.n_codes, assignment, pool, hooks.stop));
    ++result.n_iterations;
    update_centres(lanes, assignment, centres, n_members, pool);
    const int n_reseeded = reseed_empty(lanes, assignment, n_members, centres);
    result.n_reseeded += n_reseeded;
    if (n_reseeded == 0 && before - assignment.total <= options.tolerance * assignment.total) break;
    before = assignment.total;
  }
  for (float& value : centres) value = round_to_f16(value);
  ASSAY_TRY_VOID(assign(lanes, centres, options.n_codes, assignment, pool, hooks.stop));
  result.cost = assignment.total;
  return result;
}

CodebookRefit::CodebookRefit(const Codebook& codebook)
    : before_(codebook),
      numerator_(codebook.values.size(), 0.0),
      denominator_(codebook.values.size(), 0.0) {}

void CodebookRefit::add(const float* values, int n_rows, int n_cols, const std::uint16_t* indices,
                        const std::uint16_t* scales, int group, const double* diagonal) {
  const int dim = before_.dim, n_groups = (n_cols + group - 1) / group;
  CHECK(n_cols % dim == 0) << n_cols << " columns, dim " << dim;
  for (std::int64_t row = 0; row < n_rows; ++row)
    for (int col = 0; col < n_cols; ++col) {
      const std::size_t code = indices[row * (n_cols / dim) + col / dim];
      const auto scale =
          static_cast<double>(kernels::f16_to_f32(scales[row * n_groups + col / group]));
      const std::size_t at =
          code * static_cast<std::size_t>(dim) + static_cast<std::size_t>(col % dim);
      numerator_[at] += diagonal[col] * scale * static_cast<double>(values[row * n_cols + col]);
      denominator_[at] += diagonal[col] * scale * scale;
    }
}

Codebook CodebookRefit::codebook() const {
  Codebook result = before_;
  for (std::size_t i = 0; i < result.values.size(); ++i)
    if (denominator_[i] > 0)
      result.values[i] = round_to_f16(static_cast<float>(numerator_[i] / denominator_[i]));
  return result;
}

}  // namespace assay::engine
