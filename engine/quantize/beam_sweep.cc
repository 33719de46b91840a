#include "engine/quantize/beam_sweep.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include "base/check.h"
#include "engine/quantize/block_table.h"
#include "engine/quantize/column_sweep.h"
#include "engine/quantize/sweep_cpu.h"

namespace assay::engine {
namespace {

constexpr int kLanes = ColumnSweep::kLanes;
constexpr int kBandLanes = 4096;  // codings that exist at a time

std::size_t size(int n) { return static_cast<std::size_t>(n); }

// Rows of a matrix, each `width` times in a row: the lanes of its codings.
std::vector<float> repeated(const BeamArgs& a, int first_row, int n_rows) {
  std::vector<float> out;
  out.reserve(size(n_rows) * size(a.width) * size(a.n_cols));
  for (int r = first_row; r < first_row + n_rows; ++r)
    for (int i = 0; i < a.width; ++i) {
      const float* row = a.w + size(r) * size(a.n_cols);
      out.insert(out.end(), row, row + a.n_cols);
    }
  return out;
}

// What the codings of one chunk propose: their best codewords, best first.
struct Proposals {
  int n;  // for each lane
  float y[ColumnSweep::kMaxDim * kLanes];
  float score[kLanes * kLanes], code[kLanes * kLanes];  // (n, kLanes)
};

// What goes on: a lane's coding is that of lane `from`, and this code.
struct Successors {
  std::array<std::uint8_t, kLanes> from;
  std::array<std::uint16_t, kLanes> code;
};

class Band {
 public:
  Band(const BeamArgs& args, int first_row, int n_rows, const Codebook& book,
       const HessianFactor& factor, BlockTables& tables, ThreadPool& pool)
      : args_(args),
        first_row_(first_row),
        n_rows_(n_rows),
        book_(book),
        factor_(factor),
        tables_(tables),
        sweep_(repeated(args, first_row, n_rows).data(), n_rows * args.width, args.n_cols, factor,
               pool, args.stop),
        n_live_(size(n_rows), 1),
        steps_(size(sweep_.n_chunks()) * size(n_blocks())) {}

  // Into codes (n_rows, n_cols / dim) of the band.
  Result<void> run(std::uint16_t* codes) {
    ASSAY_TRY_VOID(sweep_.run(
        book_.dim, [&](int first, int end) { tables_.prepare(first, end); },
        [&](const ColumnSweep::Block& b) { extend(b); }));
    for (int r = 0; r < n_rows_; ++r) trace_back(r, codes + size(r) * size(n_blocks()));
    return {};
  }

 private:
  int n_blocks() const { return args_.n_cols / book_.dim; }
  int row_of(int chunk, int lane) const { return (chunk * kLanes + lane) / args_.width; }
  float scale(int row, int col) const {
    const int n_groups = (args_.n_cols + args_.group - 1) / args_.group;
    return args_.scales[size(first_row_ + row) * size(n_groups) + size(col / args_.group)];
  }
  double error(int chunk, int lane) const {
    return sweep_.row_error()[size(chunk) * kLanes + size(lane)];
  }

  void extend(const ColumnSweep::Block& b) {
    const int n = sweep_.n_rows_of(b.chunk), dim = book_.dim;
    Proposals proposals;
    propose(b, proposals);
    Successors& next = steps_[size(b.chunk) * size(n_blocks()) + size(b.col / dim)];
    for (int lane = 0; lane < kLanes; ++lane) {
      next.from[size(lane)] = static_cast<std::uint8_t>(lane);
      next.code[size(lane)] = 0;
    }
    for (int lane = 0; lane < n; lane += args_.width) choose(b, lane, proposals, next);
    sweep_.inherit(b, next.from.data());
    for (int lane = 0; lane < kLanes; ++lane) {
      const float s = lane < n ? scale(row_of(b.chunk, lane), b.column) : 0.0f;
      const float* c = &book_.values[size(next.code[size(lane)]) * size(dim)];
      for (int i = 0; i < dim; ++i) b.q[i * kLanes + lane] = s * c[i];
    }
  }

  void propose(const ColumnSweep::Block& b, Proposals& out) const {
    float u[ColumnSweep::kMaxDim * kLanes];
    tables_.targets(b, out.y);
    for (int lane = 0; lane < kLanes; ++lane) {
      const float s =
          lane < sweep_.n_rows_of(b.chunk) ? scale(row_of(b.chunk, lane), b.column) : 0.0f;
      const float inverse = s > 0 ? 1 / s : 0.0f;
      for (int j = 0; j < book_.dim; ++j) u[j * kLanes + lane] = out.y[j * kLanes + lane] * inverse;
    }
    out.n = std::min(args_.width, book_.n_codes);
    few_nearest_codewords(kernels::usable_cpu_targets().front(), {.u = u,
                                                                  .table = tables_.at(b.col),
                                                                  .score = out.score,
                                                                  .index = out.code,
                                                                  .dim = book_.dim,
                                                                  .n_codes = book_.n_codes,
                                                                  .n_best = out.n,
                                                                  .n_lanes = kLanes});
  }

  // The best `width` of what one row's codings, in the lanes from `first` on, propose. Their lists
  // are in order, so they are merged. Lanes that are left over repeat the first, and are not asked.
  void choose(const ColumnSweep::Block& b, int first, const Proposals& p, Successors& next) {
    int& n_live = n_live_[size(row_of(b.chunk, first))];
    const auto s = static_cast<double>(scale(row_of(b.chunk, first), b.column));
    const int n_proposals = s > 0 ? p.n : 1;
    double before[kLanes], cost[kLanes];
    int n_taken[kLanes] = {};
    // |y − s c|² = |y|² + 2 s² (|c|² / 2 − c y / s).
    const auto head = [&](int i) {
      return n_taken[i] == n_proposals
                 ? std::numeric_limits<double>::infinity()
                 : before[i] +
                       2 * s * s * static_cast<double>(p.score[n_taken[i] * kLanes + first + i]);
    };
    for (int i = 0; i < n_live; ++i) {
      before[i] = error(b.chunk, first + i);
      for (int j = 0; j < book_.dim; ++j) {
        const auto y = static_cast<double>(p.y[j * kLanes + first + i]);
        before[i] += y * y;
      }
      cost[i] = head(i);
    }
    const int n_next = std::min(args_.width, n_live * n_proposals);
    for (int i = 0; i < n_next; ++i) {
      const int best = static_cast<int>(std::min_element(cost, cost + n_live) - cost);
      next.from[size(first + i)] = static_cast<std::uint8_t>(first + best);
      next.code[size(first + i)] =
          static_cast<std::uint16_t>(p.code[n_taken[best] * kLanes + first + best]);
      ++n_taken[best];
      cost[best] = head(best);
    }
    for (int i = n_next; i < args_.width; ++i) {
      next.from[size(first + i)] = next.from[size(first)];
      next.code[size(first + i)] = next.code[size(first)];
    }
    n_live = n_next;
  }

  // The codes of a row's best coding, from its last to its first.
  void trace_back(int row, std::uint16_t* codes) const {
    const int chunk = row * args_.width / kLanes, first = row * args_.width % kLanes;
    int lane = first;
    for (int i = first + 1; i < first + n_live_[size(row)]; ++i)
      if (error(chunk, i) < error(chunk, lane)) lane = i;
    for (int block = n_blocks() - 1; block >= 0; --block) {
      const Successors& step = steps_[size(chunk) * size(n_blocks()) + size(block)];
      codes[factor_.column(block * book_.dim) / book_.dim] = step.code[size(lane)];
      lane = step.from[size(lane)];
    }
  }

  const BeamArgs& args_;
  int first_row_, n_rows_;
  const Codebook& book_;
  const HessianFactor& factor_;
  BlockTables& tables_;
  ColumnSweep sweep_;
  std::vector<int> n_live_;        // codings of each row
  std::vector<Successors> steps_;  // (chunk, block)
};

}  // namespace

bool is_beam_width(int width) {
  return width >= 1 && width <= kLanes && std::has_single_bit(static_cast<unsigned>(width));
}

Result<std::vector<std::uint16_t>> beam_codes(const BeamArgs& args, const Codebook& book,
                                              const HessianFactor& factor, ThreadPool& pool) {
  CHECK(is_beam_width(args.width)) << args.width;
  const int per_row = args.n_cols / book.dim, n_rows_of_band = kBandLanes / args.width;
  std::vector<std::uint16_t> codes(size(args.n_rows) * size(per_row));
  BlockTables tables(book, &factor, pool);
  for (int first = 0; first < args.n_rows; first += n_rows_of_band)
    ASSAY_TRY_VOID(
        Band(args, first, std::min(n_rows_of_band, args.n_rows - first), book, factor, tables, pool)
            .run(&codes[size(first) * size(per_row)]));
  return codes;
}

}  // namespace assay::engine
