#include "kernels/cuda_check.cuh"
#include "kernels/few_rows.cuh"
#include "kernels/few_rows_cuda.h"

namespace assay::kernels {
namespace {

constexpr int kProjectWarps = 8;  // of a block

// Few long rows do not fill a GPU with a warp each. By the shape alone, so that a token's bits do
// not depend on its batch: a divisor of kProjectWarps, of 32 lanes each.
constexpr int parts_of_row(int n_rows, int n_cols) {
  constexpr int kWarpsOfGpu = 16384, kColumnsOfWarp = 768;
  int parts = 1;
  while (parts < kProjectWarps && n_rows * parts < kWarpsOfGpu &&
         n_cols >= 2 * kColumnsOfWarp * parts)
    parts *= 2;
  return parts;
}

constexpr int kMostRounds = 2;

// warps * rounds: parts of a row, of which a warp has one a round.
struct RowParts {
  int warps = 1, rounds = 1;

  bool is_one() const { return warps * rounds == 1; }
  __host__ __device__ int rows_of_block(int rows_of_warp) const {
    return kProjectWarps / warps * rows_of_warp;
  }
  __device__ RowLane lane(int round) const {
    return {(round * warps + static_cast<int>(threadIdx.y) % warps) * 32 +
                static_cast<int>(threadIdx.x),
            warps * rounds * 32};
  }
};

struct FewRowsArgs {
  struct Product {
    DeviceMatrix matrix;
    RowParts parts;
    int first_block = 0;
    float* y = nullptr;
    int y_stride = 0;
  };
  Product of[kMostProducts];
  int n = 0;
  const float* x = nullptr;
  int x_stride = 0, n_tokens = 0;
  bool accumulate = false;
};

constexpr int kTokensOfPass = 8;
// The tokens of a block, and which of the blocks along rows it is. Blocks that have the same rows
// are neighbours in the grid, so that the second-level cache still has what they read.
template <int kTokens>
struct Pass {
  int block, first = 0, n;
  __device__ explicit Pass(int n_tokens) : block(blockIdx.x), n(n_tokens) {
    if constexpr (kTokens == kTokensOfPass) {
      const int n_passes = (n_tokens + kTokens - 1) / kTokens;
      block /= n_passes;
      first = (static_cast<int>(blockIdx.x) - block * n_passes) * kTokens;
      n = min(kTokens, n_tokens - first);
    }
  }
  __device__ TokenInputs<kTokens> inputs(const float* x, int x_stride) const {
    return {x + static_cast<size_t>(first) * x_stride, x_stride, n};
  }
};

// What the warps of a block have of their rows' sums: (kTokens, kRows) of every part.
template <int kTokens, int kRows>
class PartSums {
 public:
  // By all lanes of a warp.
  template <class Rows>
  __device__ void multiply(Rows& rows, const RowParts& parts, const TokenInputs<kTokens>& x) {
#pragma unroll 1
    for (int round = 0; round < parts.rounds; ++round) {
      float sum[kSums];
      rows.multiply(parts.lane(round), x, sum);
      if (round + 1 < parts.rounds) rows.begin(parts.lane(round + 1));
      const float total = warp_sums(sum);
      const int lane = static_cast<int>(threadIdx.x);
      if (lane % (32 / kSums) == 0) of_[threadIdx.y][round][lane / (32 / kSums)] = total;
    }
  }
  // Of a token and row of the warps from first_warp on, behind a barrier: in order of rounds, then
  // of warps.
  __device__ float total(const RowParts& parts, int first_warp, int token, int row) const {
    float sum = 0;
    for (int round = 0; round < parts.rounds; ++round)
      for (int w = 0; w < parts.warps; ++w) sum += of_[first_warp + w][round][token * kRows + row];
    return sum;
  }

 private:
  static constexpr int kSums = kTokens * kRows;
  float of_[kProjectWarps][kMostRounds][kSums];
};

// A warp has kRows rows of one product, and of each a part, or kMostRounds in turn.
template <RowForm kForm, int kRows, int kTokens, bool kCrowded>
__global__ void __launch_bounds__(32 * kProjectWarps,
                                  read_ahead(kForm, kRows, kTokens, kCrowded).blocks)
    project_few(const __grid_constant__ FewRowsArgs a) {
  __shared__ PartSums<kTokens, kRows> sums;
  const Pass<kTokens> pass(a.n_tokens);
  int which = 0;
  while (which + 1 < a.n && a.of[which + 1].first_block <= pass.block) ++which;
  const FewRowsArgs::Product& p = a.of[which];
  const RowParts parts = p.parts;
  const int lane = threadIdx.x, warp = threadIdx.y, n_rows = p.matrix.n_rows;
  const int rows_of_block = parts.rows_of_block(kRows);
  const int first_row = (pass.block - p.first_block) * rows_of_block;
  const int row = first_row + warp / parts.warps * kRows;
  const bool works = row < n_rows;
  constexpr int kAhead = read_ahead(kForm, kRows, kTokens, kCrowded).pieces;
  FewRows<kForm, 1, kRows, kTokens, kAhead> rows(works ? row : 0, p.matrix);
  if (works) rows.begin(parts.lane(0));
  await_previous();
  let_next_begin();
  if (works) sums.multiply(rows, parts, pass.inputs(a.x, a.x_stride));
  __syncthreads();
  for (int i = warp * 32 + lane; i < rows_of_block * pass.n; i += 32 * kProjectWarps) {
    const int t = i / rows_of_block, r = i % rows_of_block;
    if (first_row + r >= n_rows) continue;
    const float sum = sums.total(parts, r / kRows * parts.warps, t, r % kRows);
    float& out = p.y[static_cast<size_t>(pass.first + t) * p.y_stride + first_row + r];
    out = a.accumulate ? out + sum : sum;
  }
}

// As project_few. kRows: half of them of either. kWhole: rows are in one part.
template <RowForm kForm, int kRows, int kTokens, bool kWhole, bool kCrowded>
__global__ void __launch_bounds__(32 * kProjectWarps,
                                  read_ahead(kForm, kRows, kTokens, kCrowded).blocks)
    swiglu_few(const __grid_constant__ DeviceMatrix gate, const __grid_constant__ DeviceMatrix up,
               RowParts unless_whole, const float* x, int x_stride, int n_tokens, float* h) {
  const RowParts parts = kWhole ? RowParts{} : unless_whole;
  constexpr int kRowsOf = kRows / 2;
  __shared__ PartSums<kTokens, kRows> sums;
  const Pass<kTokens> pass(n_tokens);
  const int lane = threadIdx.x, warp = threadIdx.y, n_rows = gate.n_rows;
  const int rows_of_block = parts.rows_of_block(kRowsOf), first_row = pass.block * rows_of_block;
  const int row = first_row + warp / parts.warps * kRowsOf;
  const bool works = row < n_rows;
  constexpr int kAhead = read_ahead(kForm, kRows, kTokens, kCrowded).pieces;
  FewRows<kForm, 2, kRows, kTokens, kAhead> rows(works ? row : 0, gate, up);
  if (works) rows.begin(parts.lane(0));
  await_previous();
  let_next_begin();
  if (works) sums.multiply(rows, parts, pass.inputs(x, x_stride));
  __syncthreads();
  for (int i = warp * 32 + lane; i < rows_of_block * pass.n; i += 32 * kProjectWarps) {
    const int t = i / rows_of_block, r = i % rows_of_block;
    if (first_row + r >= n_rows) continue;
    const int first_warp = r / kRowsOf * parts.warps, of_warp = r % kRowsOf;
    const float g = sums.total(parts, first_warp, t, of_warp),
                u = sums.total(parts, first_warp, t, kRowsOf + of_warp);
    h[static_cast<size_t>(pass.first + t) * n_rows + first_row + r] = silu(g) * u;
  }
}

// x of a block's warps, side by side, should stay in the first-level cache, or each group of rows
// reads it from the second. Warps that have several parts in turn need less of it at a time, if
// there are enough of them.
RowParts parts_in_turn(int n_rows, int n_cols, int rows_of_warp, int n_tokens) {
  constexpr long long kBytesOfX = 128 << 10;
  constexpr int kWarpsOfMultiprocessor = 16;
  const int parts = parts_of_row(n_rows, n_cols);
  if (parts == 1 || 4ll * n_tokens * n_cols <= kBytesOfX) return {parts, 1};
  const long long n_warps = static_cast<long long>(n_rows) / rows_of_warp * (parts / 2);
  static_assert(kMostRounds == 2);
  if (n_warps < static_cast<long long>(kWarpsOfMultiprocessor) * n_multiprocessors())
    return {parts, 1};
  return {parts / 2, 2};
}

// Calls use(form, tokens), std::integral_constant both: as many tokens as a block has.
template <RowForm kForm, class Use>
void with_tokens(int n_tokens, const Use& use) {
  const std::integral_constant<RowForm, kForm> form;
  if (n_tokens == 1) return use(form, std::integral_constant<int, 1>());
  if (n_tokens == 2) return use(form, std::integral_constant<int, 2>());
  if (n_tokens <= 4) return use(form, std::integral_constant<int, 4>());
  use(form, std::integral_constant<int, kTokensOfPass>());
}
template <class Use>
void with_form_and_tokens(RowForm form, int n_tokens, const Use& use) {
  switch (form) {
    case RowForm::kBf16:
      return with_tokens<RowForm::kBf16>(n_tokens, use);
    case RowForm::kF16:
      return with_tokens<RowForm::kF16>(n_tokens, use);
    case RowForm::kF32:
      return with_tokens<RowForm::kF32>(n_tokens, use);
    case RowForm::kFp8:
      return with_tokens<RowForm::kFp8>(n_tokens, use);
    case RowForm::kGptq4:
      return with_tokens<RowForm::kGptq4>(n_tokens, use);
    case RowForm::kGptq8:
      return with_tokens<RowForm::kGptq8>(n_tokens, use);
    case RowForm::kOther:
      return with_tokens<RowForm::kOther>(n_tokens, use);
  }
}

int in_blocks(int n, int of_block) { return (n + of_block - 1) / of_block; }

// Of the blocks that a GPU has room for while a grid runs, as many as the grid has.
double fill(int n_blocks, int of_multiprocessor) {
  const int at_once = of_multiprocessor * n_multiprocessors();
  return static_cast<double>(n_blocks) / (in_blocks(n_blocks, at_once) * at_once);
}
// Calls use(crowded), std::bool_constant. A grid that fills both nearly as well is crowded.
template <RowForm kForm, int kRows, int kTokens, class Use>
void with_read_ahead(int n_blocks, const Use& use) {
  constexpr double kNearly = 0.1;
  constexpr int kCrowdedBlocks = read_ahead(kForm, kRows, kTokens, true).blocks,
                kDeepBlocks = read_ahead(kForm, kRows, kTokens, false).blocks;
  if constexpr (kCrowdedBlocks == kDeepBlocks)
    use(std::false_type());
  else if (fill(n_blocks, kCrowdedBlocks) + kNearly >= fill(n_blocks, kDeepBlocks))
    use(std::true_type());
  else
    use(std::false_type());
}

struct FewRowsLaunch {
  FewRowsArgs args;
  int n_blocks = 0;  // along rows
};
FewRowsLaunch plan_few_rows(std::span<const DeviceProduct> products, const ProductInput& in,
                            int rows_of_warp, int tokens_of_pass) {
  FewRowsLaunch l;
  l.args.x = in.x;
  l.args.x_stride = in.x_stride;
  l.args.n_tokens = in.n_tokens;
  l.args.accumulate = in.accumulate;
  for (const DeviceProduct& p : products) {
    CHECK(are_of_one_row_form(*products[0].matrix, *p.matrix)) << l.args.n;
    const RowParts parts =
        parts_in_turn(p.matrix->n_rows, p.matrix->n_cols, rows_of_warp, tokens_of_pass);
    l.args.of[l.args.n++] = {*p.matrix, parts, l.n_blocks, p.y, p.y_stride};
    l.n_blocks += in_blocks(p.matrix->n_rows, parts.rows_of_block(rows_of_warp));
  }
  return l;
}

template <RowForm kForm, int kRows, int kTokens>
void launch(const FewRowsLaunch& l, CudaStream stream) {
  const int n_blocks = l.n_blocks * in_blocks(l.args.n_tokens, kTokens);
  with_read_ahead<kForm, kRows, kTokens>(n_blocks, [&](auto crowded) {
    overlapped(project_few<kForm, kRows, kTokens, crowded()>, dim3(n_blocks),
               dim3(32, kProjectWarps), 0, stream, l.args);
  });
}

struct SwigluLaunch {
  const DeviceMatrix &gate, &up;
  const ProductInput& in;
  float* h;
  // Along rows and tokens.
  int n_blocks(const RowParts& parts, int rows_of_warp, int tokens_of_pass) const {
    return in_blocks(gate.n_rows, parts.rows_of_block(rows_of_warp / 2)) *
           in_blocks(in.n_tokens, tokens_of_pass);
  }
};
template <RowForm kForm, int kRows, int kTokens>
void launch(const SwigluLaunch& l, const RowParts& parts, CudaStream stream) {
  const int n_blocks = l.n_blocks(parts, kRows, kTokens);
  with_read_ahead<kForm, kRows, kTokens>(n_blocks, [&](auto crowded) {
    const auto kernel = parts.is_one() ? swiglu_few<kForm, kRows, kTokens, true, crowded()>
                                       : swiglu_few<kForm, kRows, kTokens, false, crowded()>;
    overlapped(kernel, dim3(n_blocks), dim3(32, kProjectWarps), 0, stream, l.gate, l.up, parts,
               l.in.x, l.in.x_stride, l.in.n_tokens, l.h);
  });
}

}  // namespace

bool are_of_one_row_form(const DeviceMatrix& a, const DeviceMatrix& b) {
  return row_form_of(a) == row_form_of(b);
}

bool is_of_no_row_form(const DeviceMatrix& m) { return row_form_of(m) == RowForm::kOther; }

void project_by_row(std::span<const DeviceProduct> products, const ProductInput& in,
                    CudaStream stream) {
  CHECK(!products.empty() && products.size() <= kMostProducts) << products.size();
  with_form_and_tokens(row_form_of(*products[0].matrix), in.n_tokens, [&](auto form, auto tokens) {
    if constexpr (form() == RowForm::kOther) {
      launch<form(), 1, tokens()>(plan_few_rows(products, in, 1, tokens()), stream);
    } else {
      const int n_passes = in_blocks(in.n_tokens, tokens());
      const FewRowsLaunch four = plan_few_rows(products, in, 4, tokens());
      if (four.n_blocks * n_passes >= 2 * n_multiprocessors())
        return launch<form(), 4, tokens()>(four, stream);
      const FewRowsLaunch two = plan_few_rows(products, in, 2, tokens());
      if (two.n_blocks * n_passes >= n_multiprocessors())
        return launch<form(), 2, tokens()>(two, stream);
      launch<form(), 1, tokens()>(plan_few_rows(products, in, 1, tokens()), stream);
    }
  });
}

void swiglu_by_row(const DeviceMatrix& gate, const DeviceMatrix& up, const ProductInput& in,
                   float* h, CudaStream stream) {
  const RowForm common = are_of_one_row_form(gate, up) ? row_form_of(gate) : RowForm::kOther;
  const SwigluLaunch l{gate, up, in, h};
  with_form_and_tokens(common, in.n_tokens, [&](auto form, auto tokens) {
    constexpr int kMostRows = form() == RowForm::kOther ? 2 : 4;
    const RowParts parts = parts_in_turn(2 * gate.n_rows, gate.n_cols, kMostRows, tokens());
    if constexpr (form() != RowForm::kOther)
      if (l.n_blocks(parts, 4, tokens()) >= 2 * n_multiprocessors())
        return launch<form(), 4, tokens()>(l, parts, stream);
    launch<form(), 2, tokens()>(l, parts, stream);
  });
}

}  // namespace assay::kernels
