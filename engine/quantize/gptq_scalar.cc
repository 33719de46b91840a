#include "engine/quantize/gptq_scalar.h"

#include <algorithm>
#include <cmath>

#include "engine/quantize/binary16.h"
#include "engine/quantize/column_sweep.h"

namespace assay::engine {
namespace {

constexpr int kLanes = ColumnSweep::kLanes;

// value = (q − zero) scale, q from 0 to n_levels − 1, zero from 1 on (v1 stores zero − 1).
struct Grid {
  float scale = 0;
  int zero = 1;
  int n_levels = 256;
  int nearest(float x) const {
    if (scale == 0) return zero;
    return std::clamp(static_cast<int>(std::lround(x / scale)) + zero, 0, n_levels - 1);
  }
  float value(int q) const { return static_cast<float>(q - zero) * scale; }
};

Grid spanning(float low, float high, int n_levels) {
  Grid g{.n_levels = n_levels};
  g.scale = round_to_f16((high - low) / static_cast<float>(n_levels - 1));
  if (g.scale > 0)
    g.zero = std::clamp(static_cast<int>(std::lround(-low / g.scale)), 1, n_levels - 1);
  return g;
}

// Of the ranges that clip the extremes more and more, the one with the least squared error.
Grid fit_grid(const float* w, int n, int n_levels) {
  const float low = std::min(0.0f, *std::min_element(w, w + n));
  const float high = std::max(0.0f, *std::max_element(w, w + n));
  Grid best;
  double least = std::numeric_limits<double>::infinity();
  for (int clip = 0; clip < 12; ++clip) {
    const float share = 1.0f - 0.04f * static_cast<float>(clip);
    const Grid g = spanning(low * share, high * share, n_levels);
    double error = 0;
    for (int i = 0; i < n; ++i) {
      const double d = static_cast<double>(w[i] - g.value(g.nearest(w[i])));
      error += d * d;
    }
    if (error < least) {
      least = error;
      best = g;
    }
  }
  return best;
}

}  // namespace

Result<void> check_packable(int n_rows, int n_cols, int bits, std::string_view name) {
  if (bits != 4 && bits != 8) return fail("{}: {} bits, expected 4 or 8", name, bits);
  const int per_word = 32 / bits;
  if (n_rows % per_word != 0 || n_cols % per_word != 0)
    return fail("{}: [{}, {}] cannot be packed {} values to a word: keep this matrix in 16 bits",
                name, n_rows, n_cols, per_word);
  return {};
}

Result<ScalarEncoding> gptq_scalar(const float* w, int n_rows, int n_cols,
                                   const HessianFactor& factor, const GptqScalarOptions& options,
                                   ThreadPool& pool, std::string_view name) {
  const int bits = options.bits;
  ASSAY_TRY_VOID(check_packable(n_rows, n_cols, bits, name));
  const int per_word = 32 / bits;
  ASSAY_TRY_VOID(check_sweep(w, n_rows, n_cols, factor, name, options.stop));

  const int n_groups = (n_cols + options.group - 1) / options.group;
  std::vector<Grid> grids(static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(n_groups));
  const auto grid = [&](int row, int group) -> Grid& {
    return grids[static_cast<std::size_t>(row) * static_cast<std::size_t>(n_groups) +
                 static_cast<std::size_t>(group)];
  };
  ASSAY_TRY_VOID(parallel_for(pool, options.stop, n_rows, [&](int r) {
    for (int g = 0; g < n_groups; ++g)
      grid(r, g) = fit_grid(w + static_cast<std::ptrdiff_t>(r) * n_cols + g * options.group,
                            std::min(options.group, n_cols - g * options.group), 1 << bits);
  }));

  std::vector<std::uint8_t> q(static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(n_cols));
  ColumnSweep sweep(w, n_rows, n_cols, factor, pool, options.stop);
  ASSAY_TRY_VOID(sweep.run(
      1, [](int, int) {},
      [&](const ColumnSweep::Block& b) {
        const float inverse = 1 / factor.at(b.col, b.col);
        for (int lane = 0; lane < kLanes; ++lane) b.q[lane] = 0;
        for (int lane = 0; lane < sweep.n_rows_of(b.chunk); ++lane) {
          const int row = b.chunk * kLanes + lane;
          const Grid& g = grid(row, b.column / options.group);
          const int level = g.nearest(b.w[lane] + b.s[lane] * inverse);
          b.q[lane] = g.value(level);
          q[static_cast<std::size_t>(row) * static_cast<std::size_t>(n_cols) +
            static_cast<std::size_t>(b.column)] = static_cast<std::uint8_t>(level);
        }
      }));

  ScalarEncoding out;
  out.qweight.resize(static_cast<std::size_t>(n_cols / per_word) *
                     static_cast<std::size_t>(n_rows));
  out.qzeros.resize(static_cast<std::size_t>(n_groups) *
                    static_cast<std::size_t>(n_rows / per_word));
  ASSAY_TRY_VOID(parallel_for(pool, options.stop, (n_rows + kLanes - 1) / kLanes, [&](int chunk) {
    for (int r = chunk * kLanes; r < std::min(n_rows, (chunk + 1) * kLanes); ++r)
      for (int c = 0; c < n_cols; ++c)
        out.qweight[static_cast<std::size_t>(c / per_word) * static_cast<std::size_t>(n_rows) +
                    static_cast<std::size_t>(r)] |=
            static_cast<std::uint32_t>(
                q[static_cast<std::size_t>(r) * static_cast<std::size_t>(n_cols) +
                  static_cast<std::size_t>(c)])
            << (bits * (c % per_word));
  }));
  for (int g = 0; g < n_groups; ++g)
    for (int r = 0; r < n_rows; ++r) {
      out.qzeros[static_cast<std::size_t>(g) * static_cast<std::size_t>(n_rows / per_word) +
                 static_cast<std::size_t>(r / per_word)] |=
          static_cast<std::uint32_t>(grid(r, g).zero - 1) << (bits * (r % per_word));
      out.scales.push_back(f32_to_f16(grid(r, g).scale));
    }
  double error = 0, energy = 0;
  for (const double e : sweep.row_error()) error += e;
  ASSAY_TRY(const std::vector<double> row_energy, sweep.row_energy());
  for (const double e : row_energy) energy += e;
  out.relative_error = energy > 0 ? error / energy : 0;
  return out;
}

}  // namespace assay::engine
