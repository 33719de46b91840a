// The model's weights on one GPU, and a sequence's cache there: what cuda_backend.cc computes with.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "engine/backend/backend.h"
#include "kernels/device_matrix.h"
#include "kernels/moe_cuda.h"
#include "kernels/rope.h"

namespace assay::engine {

using kernels::DeviceMatrix;

// What may be asked for as a kernel. Decode steps are recorded graphs, or go launch by launch; rows
// of prompt chunks are multiplied as all others are, in float32, or on tensor cores with operands
// rounded to bfloat16.
struct CudaKernel {
  std::string_view name;
  bool records_steps, bf16_chunks;
};
inline constexpr CudaKernel kCudaKernels[] = {  // the first is the default
    {"graph", true, false},
    {"stream", false, false},
    {"bf16", true, true},
    {"bf16-stream", false, true}};

struct CudaMlp {
  DeviceMatrix gate, up, down;
};

struct CudaLayer {
  const float *input_norm = nullptr, *q_a_norm = nullptr, *kv_a_norm = nullptr,
              *post_attention_norm = nullptr;
  DeviceMatrix q_a, q_b, kv_a, o;
  const float* absorbed_k = nullptr;  // (n_heads, kv_lora, qk_nope): kv_b's key rows, transposed
  const float* value_up = nullptr;    // (n_heads, v_head, kv_lora)
  DeviceMatrix index_q, index_k, index_weights;
  const float *index_norm_weight = nullptr, *index_norm_bias = nullptr;
  CudaMlp mlp;  // dense layers: the MLP. Sparse layers: the shared experts
  DeviceMatrix router;
  const float* router_bias = nullptr;
  const DeviceMatrix* experts = nullptr;  // (n_experts, 3), in device memory
  int n_experts = 0;
  bool experts_copied = false;  // MoeGemmArgs::all_copied
  kernels::MoePlan moe;
};

class CudaModel final : public BackendModel, public std::enable_shared_from_this<CudaModel> {
 public:
  CudaModel(const ModelConfig& config, const ModelWeights& w, const CudaKernel& kernel);

  std::string_view backend() const override { return "cuda"; }
  // "sm_90 f32, graph, attention: split keys, tensor cores, indexer: tensor cores, experts: vq
  // partial sums + codewords", or "sm_90 bf16, graph, chunks: mma, attention: …": how prompt chunks
  // are multiplied, whether decode steps are recorded, and every design that attention and the
  // indexer use, and a layer's experts in float32. Says how many matrices tensor cores get decoded
  // value by value, if any.
  std::string kernel() const override;
  bool samples_on_device() const override { return true; }
  std::size_t weight_bytes() const override { return memory.bytes(); }
  std::unique_ptr<Backend> new_executor(int n_threads) const override;
  Result<std::shared_ptr<const BackendModel>> with(const ModelConfig& other,
                                                   const ModelWeights& weights) const override {
    return load_cuda_model(other, weights, how.name);
  }

  const ModelConfig c;
  const CudaKernel how;
  const kernels::RopeTable rope;
  const kernels::CudaDevice device;
  kernels::DeviceWeights memory;
  DeviceMatrix embed, lm_head;
  const float* final_norm = nullptr;
  std::vector<CudaLayer> layers;

 private:
  CudaLayer upload_layer(const LayerWeights& w);
  void count_by_value(const DeviceMatrix& m);
  void upload_kv_b(const std::vector<float>& kv_b, CudaLayer& l);

  int n_by_value_ = 0;  // matrices of prompt chunks that are decoded value by value
};

// Per layer the normed latents and rotated rope keys, 22 bits of each value (MlaAttentionCuda), per
// full layer the indexer's keys in float32.
// Grows by allocating, between steps, when no executor writes it.
class CudaCache final : public KvCache {
 public:
  explicit CudaCache(const ModelConfig& c) : c_(&c), kv_(size(c)), index_(size(c)) {}

  int n_tokens() const override { return n_tokens_; }
  void truncate(int n_tokens) override {
    CHECK(n_tokens >= 0 && n_tokens <= n_tokens_) << n_tokens << " of " << n_tokens_;
    n_tokens_ = n_tokens;
  }
  std::unique_ptr<KvCache> fork() const override {
    auto copy = std::make_unique<CudaCache>(*c_);
    copy->grow_from(*this, std::max(n_tokens_, 1));
    copy->n_tokens_ = n_tokens_;
    return copy;
  }
  std::size_t bytes() const override {
    std::size_t total = 0;
    for (const auto& array : kv_) total += array.size() * sizeof(std::uint16_t);
    for (const auto& array : index_) total += array.size() * sizeof(float);
    return total;
  }

  void reserve(int n_tokens) {
    if (n_tokens > capacity_) grow_from(*this, std::max(n_tokens, capacity_ + capacity_ / 2));
  }
  void set_n_tokens(int n) { n_tokens_ = n; }
  std::uint16_t* kv(int layer) { return kv_[static_cast<std::size_t>(layer)].data(); }
  float* index_keys(int layer) { return index_[static_cast<std::size_t>(layer)].data(); }

 private:
  static std::size_t size(const ModelConfig& c) { return static_cast<std::size_t>(c.n_layers); }

  // Room for n tokens, and the rows of `from` that are in the cache.
  void grow_from(const CudaCache& from, int n);

  const ModelConfig* c_;
  int n_tokens_ = 0, capacity_ = 0;
  std::vector<kernels::DeviceArray<std::uint16_t>> kv_;  // per layer
  std::vector<kernels::DeviceArray<float>> index_;       // per layer
};

}  // namespace assay::engine
