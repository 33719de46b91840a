#include "engine/backend/cuda_products.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/moe_input_cuda.h"
#include "kernels/project_cuda.h"

namespace assay::engine {
namespace {

constexpr int kSumsTokens = 16;  // whose experts' partial sums are kept at a time

}  // namespace

CudaProducts::CudaProducts(const CudaModel& model, int max_rows, kernels::CudaStream stream,
                           kernels::DeviceBudget& budget)
    : m_(model), c_(model.c), stream_(stream) {
  const auto rows = [&](int width) {
    return static_cast<std::size_t>(max_rows) * static_cast<std::size_t>(width);
  };
  const int k = c_.n_experts_per_token;
  int widest_mlp = c_.moe_intermediate * std::max(1, c_.n_shared_experts);
  std::size_t sums = 0;
  for (const CudaLayer& l : m_.layers) {
    widest_mlp = std::max(widest_mlp, l.mlp.gate.n_rows);
    sums = std::max(sums, l.moe.sums_per_token(c_.hidden, c_.moe_intermediate));
  }
  mlp_hidden_ = budget.array<float>(rows(widest_mlp));
  shared_ = budget.array<float>(rows(c_.hidden));
  expert_hidden_ = budget.array<float>(rows(k * c_.moe_intermediate));
  sums_tokens_ = std::min(max_rows, kSumsTokens);
  expert_sums_ = budget.array<float>(sums * static_cast<std::size_t>(sums_tokens_));
  if (!m_.how.bf16_chunks) return;
  const int widest = std::max({c_.hidden, c_.q_lora, c_.n_heads * c_.v_head});
  rounded_ = budget.array<kernels::Bf16>(rows(kernels::bf16_stride(widest)));
  rounded_hidden_ = budget.array<kernels::Bf16>(rows(
      std::max(kernels::bf16_stride(widest_mlp), k * kernels::bf16_stride(c_.moe_intermediate))));
  expert_out_ = budget.array<float>(rows(k * c_.hidden));
  std::size_t room = 0;
  for (const CudaLayer& l : m_.layers) {
    room = std::max(room, kernels::decode_room(l.mlp.gate, l.mlp.up));
    for (const DeviceMatrix* m :
         {&l.q_a, &l.q_b, &l.kv_a, &l.o, &l.index_q, &l.index_k, &l.mlp.down})
      room = std::max(room, kernels::decode_room(*m));
  }
  decoded_ = budget.array<kernels::Bf16>(room);
  slots_ = budget.array<int>(rows(k));
  first_slot_ = budget.array<int>(static_cast<std::size_t>(c_.n_experts) + 1);
}

// How a row is multiplied is a function of its request, not of its batch: chunks of a prompt have
// more than one row.
void CudaProducts::begin_step(std::span<const Segment> segments) {
  ranges_.clear();
  routed_ = nullptr;
  for (const Segment& s : segments) {
    const bool on_tensor_cores = m_.how.bf16_chunks && s.n_rows > 1;
    if (ranges_.empty() || ranges_.back().on_tensor_cores != on_tensor_cores)
      ranges_.push_back({s.first_row, 0, on_tensor_cores});
    ranges_.back().n += s.n_rows;
  }
}

kernels::Bf16* CudaProducts::rounded(const float* x, int width, int n_rows) {
  kernels::to_bf16_cuda(x, width, n_rows, width, rounded_.data(), stream_);
  return rounded_.data();
}

void CudaProducts::multiply(const DeviceMatrix& m, const float* in, float* out, bool accumulate) {
  for (const RowRange& r : ranges_) {
    const float* x = in + static_cast<std::ptrdiff_t>(r.first) * m.n_cols;
    float* y = out + static_cast<std::ptrdiff_t>(r.first) * m.n_rows;
    if (r.on_tensor_cores)
      kernels::gemm_cuda(m, rounded(x, m.n_cols, r.n), r.n, y, m.n_rows, accumulate, room(),
                         stream_);
    else
      kernels::project_cuda(m, x, m.n_cols, r.n, y, m.n_rows, accumulate, stream_);
  }
}

void CudaProducts::multiply(std::span<const Product> products, const float* in) {
  const int n_cols = products[0].matrix->n_cols;
  std::vector<kernels::DeviceProduct> by_row;
  for (const RowRange& r : ranges_) {
    const float* x = in + static_cast<std::ptrdiff_t>(r.first) * n_cols;
    const kernels::Bf16* half = r.on_tensor_cores ? rounded(x, n_cols, r.n) : nullptr;
    by_row.clear();
    for (const Product& p : products) {
      const int n_out = p.matrix->n_rows;
      float* y = p.out + static_cast<std::ptrdiff_t>(r.first) * n_out;
      if (r.on_tensor_cores && !p.chooses)
        kernels::gemm_cuda(*p.matrix, half, r.n, y, n_out, false, room(), stream_);
      else
        by_row.push_back({p.matrix, y, n_out});
    }
    if (!by_row.empty()) kernels::project_cuda(by_row, x, n_cols, r.n, stream_);
  }
}

void CudaProducts::mlp_on_tensor_cores(const CudaMlp& w, const RowRange& r, const float* in,
                                       float* out, bool accumulate) {
  const auto row = static_cast<std::ptrdiff_t>(r.first) * c_.hidden;
  kernels::gemm_swiglu_cuda(w.gate, w.up, rounded(in + row, c_.hidden, r.n), r.n,
                            rounded_hidden_.data(), room(), stream_);
  kernels::gemm_cuda(w.down, rounded_hidden_.data(), r.n, out + row, c_.hidden, accumulate, room(),
                     stream_);
}

void CudaProducts::mlp(const CudaMlp& w, const float* in, float* out, bool accumulate) {
  for (const RowRange& r : ranges_) {
    if (r.on_tensor_cores) {
      mlp_on_tensor_cores(w, r, in, out, accumulate);
      continue;
    }
    const auto row = static_cast<std::ptrdiff_t>(r.first) * c_.hidden;
    float* h = hidden_of(w, r.first);
    kernels::swiglu_cuda(w.gate, w.up, in + row, c_.hidden, r.n, h, stream_);
    kernels::project_cuda(w.down, h, w.gate.n_rows, r.n, out + row, c_.hidden, accumulate, stream_);
  }
}

void CudaProducts::route(const CudaLayer& l, const float* in, const Choice& to) {
  for (const RowRange& r : ranges_) {
    const auto slot = static_cast<std::ptrdiff_t>(r.first) * c_.n_experts_per_token;
    const bool by_row = !r.on_tensor_cores;
    kernels::moe_input_cuda(
        {.router = &l.router,
         .gate = by_row ? &l.mlp.gate : nullptr,
         .up = by_row ? &l.mlp.up : nullptr,
         .x = in + static_cast<std::ptrdiff_t>(r.first) * c_.hidden,
         .x_stride = c_.hidden,
         .n_tokens = r.n,
         .logits = to.logits + static_cast<std::ptrdiff_t>(r.first) * c_.n_experts,
         .route = {.logits = nullptr,
                   .bias = l.router_bias,
                   .n_rows = r.n,
                   .n_experts = c_.n_experts,
                   .top_k = c_.n_experts_per_token,
                   .normalise = c_.norm_topk_prob,
                   .scaling = c_.routed_scaling,
                   .expert = to.expert + slot,
                   .weight = to.weight + slot,
                   .margin = to.margin + r.first},
         .h = by_row ? hidden_of(l.mlp, r.first) : nullptr},
        stream_);
  }
  routed_ = &l;
}

void CudaProducts::moe(const CudaLayer& l, const float* in, const Choice& of, float* residual) {
  CHECK(routed_ == &l) << "route comes first";
  for (const RowRange& r : ranges_) {
    const auto slot = static_cast<std::ptrdiff_t>(r.first) * c_.n_experts_per_token,
               row = static_cast<std::ptrdiff_t>(r.first) * c_.hidden;
    if (r.on_tensor_cores) {
      mlp_on_tensor_cores(l.mlp, r, in, shared_.data(), false);
      kernels::moe_gemm_cuda({.experts = l.experts,
                              .n_experts = l.n_experts,
                              .all_copied = l.experts_copied,
                              .expert = of.expert + slot,
                              .weight = of.weight + slot,
                              .n_tokens = r.n,
                              .top_k = c_.n_experts_per_token,
                              .hidden = c_.hidden,
                              .width = c_.moe_intermediate,
                              .x = rounded(in + row, c_.hidden, r.n),
                              .order = slots_.data(),
                              .first = first_slot_.data(),
                              .h = rounded_hidden_.data(),
                              .y = expert_out_.data(),
                              .shared = shared_.data() + row,
                              .residual = residual + row},
                             stream_);
    } else {
      kernels::moe_cuda(
          {.plan = &l.moe,
           .experts = l.experts,
           .expert = of.expert + slot,
           .weight = of.weight + slot,
           .n_tokens = r.n,
           .top_k = c_.n_experts_per_token,
           .hidden = c_.hidden,
           .width = c_.moe_intermediate,
           .x = in + row,
           .h = expert_hidden_.data(),
           .shared = nullptr,
           .residual = residual + row,
           .sums = expert_sums_.data(),
           .sums_tokens = sums_tokens_,
           .shared_down = {&l.mlp.down, hidden_of(l.mlp, r.first), shared_.data() + row}},
          stream_);
    }
  }
}

}  // namespace assay::engine
