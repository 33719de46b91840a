#include <algorithm>

#include "kernels/cuda_check.cuh"
#include "kernels/gemm_cuda.h"
#include "kernels/gemm_kernel.cuh"

namespace assay::kernels {
namespace {

constexpr int kThreads = 256;

__global__ void round_to_bf16(const float* x, int x_stride, int n_cols, Bf16* out, int out_stride) {
  const int c = (blockIdx.x * kThreads + threadIdx.x) * 2;
  if (c >= n_cols) return;
  const float* row = x + static_cast<size_t>(blockIdx.y) * x_stride;
  // An odd row's last pair reaches into its stride.
  reinterpret_cast<unsigned*>(out + static_cast<size_t>(blockIdx.y) * out_stride)[c / 2] =
      bf16_pair(row[c], c + 1 < n_cols ? row[c + 1] : 0);
}

constexpr int kSortWarps = kThreads / 32;

// A block to an expert: counts the slots of those before it, then writes its own in order.
__global__ void sort_by_expert(const int* expert, int n_slots, int* order, int* first) {
  __shared__ int of_warp[kSortWarps];
  const int e = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int at = 0;
  for (int base = 0; base < n_slots; base += kThreads) {
    const int i = base + static_cast<int>(threadIdx.x);
    at += __syncthreads_count(i < n_slots && expert[i] < e);
  }
  if (threadIdx.x == 0) first[e] = at;
  if (threadIdx.x == 0 && blockIdx.x == gridDim.x - 1) first[e + 1] = n_slots;
  for (int base = 0; base < n_slots; base += kThreads) {
    const int i = base + static_cast<int>(threadIdx.x);
    const bool is_mine = i < n_slots && expert[i] == e;
    const unsigned found = __ballot_sync(0xFFFFFFFFu, is_mine);
    if (lane == 0) of_warp[warp] = __popc(found);
    __syncthreads();
    int before = at;
    for (int w = 0; w < kSortWarps; ++w) {
      if (w < warp) before += of_warp[w];
      at += of_warp[w];
    }
    if (is_mine) order[before + __popc(found & ((1u << lane) - 1))] = i;
    __syncthreads();  // before of_warp is written again
  }
}

__global__ void combine_experts(MoeGemmArgs a) {
  const int c = blockIdx.x * kThreads + threadIdx.x, token = blockIdx.y;
  if (c >= a.hidden) return;
  float sum = 0;
  for (int k = 0; k < a.top_k; ++k) {
    const int slot = token * a.top_k + k;
    sum = fmaf(a.weight[slot], a.y[static_cast<size_t>(slot) * a.hidden + c], sum);
  }
  const size_t i = static_cast<size_t>(token) * a.hidden + c;
  a.residual[i] = a.residual[i] + sum + a.shared[i];
}

int blocks_of(int n, int of_block) { return (n + of_block - 1) / of_block; }

// Of one expert's rows on average, or all of them: a tile that they fill and, where it is large,
// that leaves no multiprocessor idle. Which it is changes no bit.
int tile_for(int n_rows, int n_column_tiles) {
  for (const int tile_m : {128, 64})
    if (n_rows > tile_m / 2 && blocks_of(n_rows, tile_m) * n_column_tiles >= n_multiprocessors())
      return tile_m;
  return 32;
}

template <int kTileM, bool kPaired, bool kCopied>
void launch(const GemmArgs& a, int n_tiles, int n_column_tiles, CudaStream stream) {
  constexpr int kBytes = kStages * stage_bytes(kTileM);
  const auto kernel = gemm<kTileM, kPaired, kCopied>;
  static OncePerDevice prepare;
  prepare([&] {
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes))
        << kBytes << " bytes";
    // Just what its blocks need, of 228 KiB with one for each: codebooks are read through the rest.
    constexpr int kPercent =
        gemm_blocks_at_once(kTileM, kCopied) * (kBytes + 1024) * 100 / (228 * 1024) + 1;
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                    std::min(kPercent, 100)));
  });
  kernel<<<dim3(n_tiles, n_column_tiles), gemm_threads(kCopied), kBytes, stream>>>(a);
  CUDA_CHECK(cudaGetLastError()) << n_tiles << " x " << n_column_tiles << " tiles of " << kTileM
                                 << ", " << a.n_cols << " columns";
}

template <int kTileM, bool kCopied>
void launch(const GemmArgs& a, bool paired, int n_tiles, int n_column_tiles, CudaStream stream) {
  if (paired) launch<kTileM, true, kCopied>(a, n_tiles, n_column_tiles, stream);
  if (!paired) launch<kTileM, false, kCopied>(a, n_tiles, n_column_tiles, stream);
}

// n_results of y's columns.
void launch(const GemmArgs& a, bool paired, bool copied, int n_results, CudaStream stream) {
  const int n_column_tiles = blocks_of(n_results, paired ? kTileN / 2 : kTileN);
  CHECK(n_column_tiles < 65536 && a.n_rows > 0) << n_column_tiles << ", " << a.n_rows << " rows";
  const int n_experts = std::max(a.n_experts, 1), n_used = std::min(n_experts, a.n_rows);
  // What is decoded by tile is experts', of few rows each: no instance of 128, which is a third of
  // what this file takes to compile.
  const int tile_m = std::min(tile_for(blocks_of(a.n_rows, n_experts), n_column_tiles * n_used),
                              copied ? 128 : 64);
  // Each expert's last tile may be incomplete: that many at most.
  const int n_tiles = a.n_experts == 0 ? blocks_of(a.n_rows, tile_m) : a.n_rows / tile_m + n_used;
  if (tile_m == 128) launch<128, true>(a, paired, n_tiles, n_column_tiles, stream);
  if (tile_m == 64 && copied) launch<64, true>(a, paired, n_tiles, n_column_tiles, stream);
  if (tile_m == 64 && !copied) launch<64, false>(a, paired, n_tiles, n_column_tiles, stream);
  if (tile_m == 32 && copied) launch<32, true>(a, paired, n_tiles, n_column_tiles, stream);
  if (tile_m == 32 && !copied) launch<32, false>(a, paired, n_tiles, n_column_tiles, stream);
}

bool is_aligned(const void* p, std::size_t to) {
  return reinterpret_cast<std::uintptr_t>(p) % to == 0;
}

// Of a slab of rows from `first` on, eight columns a thread.
template <WeightForm kForm>
__global__ void decode_rows(const __grid_constant__ DeviceMatrix m, int first, int n, Bf16* out) {
  const int octets = m.n_cols / 8;
  const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= static_cast<long long>(n) * octets) return;
  const int row = first + static_cast<int>(i / octets), col = static_cast<int>(i % octets) * 8;
  reinterpret_cast<uint4*>(out)[i] =
      decode_codes<kForm>(m, row, col, fetch_codes<kForm>(m, row, col));
}

constexpr std::size_t kMostDecoded = std::size_t{64} << 20;  // values: 128 MiB

bool may_be_decoded_at_once(const DeviceMatrix& m) {
  const WeightForm form = form_of(m);
  return form == WeightForm::kGptq4 || form == WeightForm::kGptq8 || form == WeightForm::kFp8;
}

// The slab in bfloat16, at `to`.
DeviceMatrix decoded(const DeviceMatrix& m, int first, int n, Bf16* to, CudaStream stream) {
  const long long n_octets = static_cast<long long>(n) * (m.n_cols / 8);
  const auto grid = static_cast<unsigned>((n_octets + kThreads - 1) / kThreads);
  switch (form_of(m)) {
    case WeightForm::kGptq4:
      decode_rows<WeightForm::kGptq4><<<grid, kThreads, 0, stream>>>(m, first, n, to);
      break;
    case WeightForm::kGptq8:
      decode_rows<WeightForm::kGptq8><<<grid, kThreads, 0, stream>>>(m, first, n, to);
      break;
    default:
      CHECK(form_of(m) == WeightForm::kFp8) << "a matrix that is never decoded at once";
      decode_rows<WeightForm::kFp8><<<grid, kThreads, 0, stream>>>(m, first, n, to);
  }
  CUDA_CHECK(cudaGetLastError()) << n << " of " << m.n_rows << " x " << m.n_cols;
  return {.kind = DeviceMatrix::Kind::kBf16, .n_rows = n, .n_cols = m.n_cols, .values = to};
}

// Rows of each of `together` matrices that are decoded at once, in tiles; none where there is no
// room for them, or nothing that would be.
int slab_rows(const DeviceMatrix& m, int together, const DecodeRoom& room) {
  if (!may_be_decoded_at_once(m)) return 0;
  const auto rows =
      static_cast<int>(std::min(room.n_values / static_cast<std::size_t>(m.n_cols * together),
                                static_cast<std::size_t>(m.n_rows)));
  return rows >= m.n_rows ? rows : rows / kTileN * kTileN;
}

}  // namespace

std::size_t decode_room(const DeviceMatrix& m) {
  const std::size_t n = static_cast<std::size_t>(m.n_rows) * static_cast<std::size_t>(m.n_cols);
  return may_be_decoded_at_once(m) ? std::min(n, kMostDecoded) : 0;
}
std::size_t decode_room(const DeviceMatrix& gate, const DeviceMatrix& up) {
  return std::min(decode_room(gate) + decode_room(up), kMostDecoded);
}

bool is_copied(const DeviceMatrix& m) { return form_of(m) == WeightForm::kBf16; }
bool is_decoded_by_value(const DeviceMatrix& m) { return form_of(m) == WeightForm::kValues; }

void to_bf16_cuda(const float* x, int x_stride, int n_rows, int n_cols, Bf16* out,
                  CudaStream stream) {
  CHECK(n_rows > 0 && n_rows < 65536) << n_rows;
  round_to_bf16<<<dim3(blocks_of(n_cols, 2 * kThreads), n_rows), kThreads, 0, stream>>>(
      x, x_stride, n_cols, out, bf16_stride(n_cols));
  CUDA_CHECK(cudaGetLastError()) << n_rows << " x " << n_cols;
}

void gemm_cuda(const DeviceMatrix& m, const Bf16* x, int n_rows, float* y, int y_stride,
               bool accumulate, const DecodeRoom& room, CudaStream stream) {
  CHECK(is_aligned(x, 16) && is_aligned(room.values, 16));
  const auto multiply = [&](const DeviceMatrix& part, float* to) {
    launch({.matrix = {part, {}},
            .x = x,
            .n_rows = n_rows,
            .n_cols = m.n_cols,
            .x_stride = bf16_stride(m.n_cols),
            .y = to,
            .y_stride = y_stride,
            .accumulate = accumulate,
            .y_in_pairs = y_stride % 2 == 0 && is_aligned(to, 8)},
           false, is_copied(part), part.n_rows, stream);
  };
  const int slab = slab_rows(m, 1, room);
  if (slab == 0) return multiply(m, y);
  for (int first = 0; first < m.n_rows; first += slab)
    multiply(decoded(m, first, std::min(slab, m.n_rows - first), room.values, stream), y + first);
}

void gemm_swiglu_cuda(const DeviceMatrix& gate, const DeviceMatrix& up, const Bf16* x, int n_rows,
                      Bf16* h, const DecodeRoom& room, CudaStream stream) {
  CHECK(is_aligned(x, 16) && is_aligned(h, 16) && is_aligned(room.values, 16));
  CHECK(gate.n_rows == up.n_rows && gate.n_cols == up.n_cols)
      << gate.n_rows << " x " << gate.n_cols << ", " << up.n_rows << " x " << up.n_cols;
  const auto multiply = [&](const DeviceMatrix& g, const DeviceMatrix& u, Bf16* to) {
    launch({.matrix = {g, u},
            .x = x,
            .n_rows = n_rows,
            .n_cols = g.n_cols,
            .x_stride = bf16_stride(g.n_cols),
            .y = to,
            .y_stride = bf16_stride(gate.n_rows)},
           true, is_copied(g) && is_copied(u), g.n_rows, stream);
  };
  const int slab = std::min(slab_rows(gate, 2, room), slab_rows(up, 2, room));
  if (slab == 0) return multiply(gate, up, h);
  for (int first = 0; first < gate.n_rows; first += slab) {
    const int n = std::min(slab, gate.n_rows - first);
    Bf16* const of_up = room.values + static_cast<std::size_t>(n) * gate.n_cols;
    multiply(decoded(gate, first, n, room.values, stream), decoded(up, first, n, of_up, stream),
             h + first);
  }
}

void moe_gemm_cuda(const MoeGemmArgs& a, CudaStream stream) {
  CHECK(a.n_tokens > 0 && a.n_tokens < 65536) << a.n_tokens;
  CHECK(is_aligned(a.x, 16) && is_aligned(a.h, 16));
  const int n_slots = a.n_tokens * a.top_k;
  sort_by_expert<<<a.n_experts, kThreads, 0, stream>>>(a.expert, n_slots, a.order, a.first);
  CUDA_CHECK(cudaGetLastError()) << a.n_experts << " experts, " << n_slots << " slots";
  launch({.experts = a.experts,
          .part = 0,
          .x = a.x,
          .n_rows = n_slots,
          .n_cols = a.hidden,
          .x_stride = bf16_stride(a.hidden),
          .order = a.order,
          .first = a.first,
          .n_experts = a.n_experts,
          .slots_per_row = a.top_k,
          .x_by_slot = true,
          .y = a.h,
          .y_stride = bf16_stride(a.width)},
         true, a.all_copied, a.width, stream);
  launch({.experts = a.experts,
          .part = 2,
          .x = a.h,
          .n_rows = n_slots,
          .n_cols = a.width,
          .x_stride = bf16_stride(a.width),
          .order = a.order,
          .first = a.first,
          .n_experts = a.n_experts,
          .y_by_slot = true,
          .y = a.y,
          .y_stride = a.hidden,
          .y_in_pairs = a.hidden % 2 == 0 && is_aligned(a.y, 8)},
         false, a.all_copied, a.hidden, stream);
  combine_experts<<<dim3(blocks_of(a.hidden, kThreads), a.n_tokens), kThreads, 0, stream>>>(a);
  CUDA_CHECK(cudaGetLastError()) << a.n_tokens << " x " << a.hidden;
}

}  // namespace assay::kernels
