#include <algorithm>

#include "kernels/gptq_cuda.h"
#include "kernels/gptq_kernel.cuh"

namespace assay::kernels {
namespace {

int unit_bytes(const DeviceMatrix& m) { return 4 * GptqUnits{m.lane_shift}.words(); }
int tiles_of(const DeviceMatrix& m) { return (m.n_rows + kUnitRows - 1) / kUnitRows; }

// How a launch uses a block's shared memory.
struct Plan {
  int n_warps, tokens, n_stages, fold_tiles, sums_tiles, n_bytes;
};

int bytes_of(const DeviceMatrix& m, const Plan& p) {
  return gptq_shared(p.n_warps, unit_bytes(m), p.n_stages, m.n_cols, m.group, p.tokens,
                     p.sums_tiles)
      .total;
}

// Measured on an H200: four stages of groups of 128 are as good as more, and two are not.
int stages_wanted(const DeviceMatrix& m) { return std::min(kMostStages, 4 * 128 / m.group); }

// As many tokens as fit beside two stages, as many tiles folded at once as fit then, and of stages
// as many as there is room and use for. No block has more than tiles_of_block.
Plan plan_of(const DeviceMatrix& m, const GptqCudaArgs& a, int n_warps, int tiles_of_block) {
  const int together = a.swiglu ? 2 : 1, n_groups = m.n_cols / m.group;
  const auto fits = [&](Plan& p) {
    p.sums_tiles = std::min(2 * p.fold_tiles, std::max(tiles_of_block, together));
    p.n_bytes = bytes_of(m, p);
    return static_cast<std::size_t>(p.n_bytes) <= a.shared_bytes;
  };
  Plan p = {n_warps, std::min(a.n_tokens, kMostTokens), 2, together, 0, 0};
  while (p.tokens > 1 && !fits(p)) --p.tokens;
  const int wanted_tiles = std::max(together, 8 / p.tokens / together * together);
  for (p.fold_tiles = wanted_tiles; p.fold_tiles > together && !fits(p); p.fold_tiles -= together) {
  }
  const int stages_of_block = tiles_of_block * ((n_groups + n_warps - 1) / n_warps);
  for (p.n_stages = std::min(stages_wanted(m), stages_of_block); p.n_stages > 1 && !fits(p);)
    --p.n_stages;
  CHECK(fits(p)) << m.n_rows << " x " << m.n_cols << ": " << p.n_bytes << " bytes of "
                 << a.shared_bytes;
  return p;
}

template <int kBits, int kGroup, int kWarps>
void launch(const GptqLaunch& l, CudaStream stream) {
  const auto kernel = multiply_gptq<kBits, kGroup, kWarps>;
  static OncePerDevice prepare;
  prepare([&] { prefer_shared_memory(reinterpret_cast<const void*>(kernel), max_shared_bytes()); });
  overlapped(kernel, dim3(l.args.n_shares, l.n_passes), dim3(32, kWarps + 1), l.n_bytes, stream,
             l.args);
}

template <int kBits, int kGroup>
void launch(const GptqLaunch& l, CudaStream stream) {
  if (l.n_warps == 16) return launch<kBits, kGroup, 16>(l, stream);
  launch<kBits, kGroup, 8>(l, stream);
}

template <int kBits>
void launch(const GptqLaunch& l, int group, CudaStream stream) {
  if (group == 32) launch<kBits, 32>(l, stream);
  if (group == 64) launch<kBits, 64>(l, stream);
  if (group == 128) launch<kBits, 128>(l, stream);
}

void check(const GptqCudaArgs& a) {
  CHECK(!a.products.empty() && a.products.size() <= kMostProducts) << a.products.size();
  CHECK(a.n_tokens > 0 && a.n_tokens < 65536) << a.n_tokens;
  const DeviceMatrix& first = *a.products[0].matrix;
  for (const DeviceProduct& p : a.products)
    CHECK(are_alike(first, *p.matrix)) << p.matrix->n_rows << " x " << p.matrix->n_cols;
  CHECK(!a.swiglu || (a.products.size() == 2 && first.n_rows == a.products[1].matrix->n_rows))
      << a.products.size() << " products";
}

}  // namespace

bool are_alike(const DeviceMatrix& a, const DeviceMatrix& b) {
  return a.in_units() && b.in_units() && a.bits == b.bits && a.group == b.group &&
         a.n_cols == b.n_cols;
}

int gptq_warps(const DeviceMatrix& m, std::size_t shared_bytes, bool swiglu) {
  const int together = swiglu ? 2 : 1;
  for (const int n_warps : {16, 8}) {
    const Plan least = {n_warps, 1, 2, together, 2 * together, 0};
    if (static_cast<std::size_t>(bytes_of(m, least)) <= shared_bytes) return n_warps;
  }
  return 0;
}

bool is_for_gptq_cuda(const DeviceMatrix& m, std::size_t shared_bytes, bool swiglu) {
  return m.in_units() && gptq_warps(m, shared_bytes, swiglu) > 0;
}

GptqLaunch plan_gptq(const GptqCudaArgs& a) {
  check(a);
  const DeviceMatrix& like = *a.products[0].matrix;
  GptqArgs args{.n_matrices = static_cast<int>(a.products.size()),
                .swiglu = a.swiglu,
                .accumulate = a.accumulate,
                .x = a.x,
                .x_stride = a.x_stride,
                .n_cols = like.n_cols,
                .n_tokens = a.n_tokens,
                .arrivals = arrivals_of_warp()};
  int i = 0;
  for (const DeviceProduct& p : a.products) {
    args.of[i++] = {static_cast<const unsigned char*>(p.matrix->values), p.y, p.matrix->n_rows,
                    p.y_stride, args.n_tiles};
    args.n_tiles += tiles_of(*p.matrix);
  }
  const int together = a.swiglu ? 2 : 1, n_sets = args.n_tiles / together;
  const int n_shares = std::clamp(n_multiprocessors() - a.spare_blocks, 1, n_sets);
  args.n_shares = n_shares;
  const int n_warps = gptq_warps(like, a.shared_bytes, a.swiglu);
  CHECK(n_warps > 0) << like.n_cols << " columns do not fit " << a.shared_bytes
                     << " bytes of shared memory: ask is_for_gptq_cuda";
  const Plan p = plan_of(like, a, n_warps, (n_sets + n_shares - 1) / n_shares * together);
  args.tokens_of_pass = p.tokens;
  args.n_stages = p.n_stages;
  args.fold_tiles = p.fold_tiles;
  args.sums_tiles = p.sums_tiles;
  return {args, n_warps, (a.n_tokens + p.tokens - 1) / p.tokens, p.n_bytes};
}

void gptq_cuda(const GptqCudaArgs& a, CudaStream stream) {
  const GptqLaunch l = plan_gptq(a);
  const DeviceMatrix& like = *a.products[0].matrix;
  if (like.bits == 4)
    launch<4>(l, like.group, stream);
  else
    launch<8>(l, like.group, stream);
}

}  // namespace assay::kernels
