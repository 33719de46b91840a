// The model's weights on one GPU, and a sequence's cache there: what cuda_backend.cc computes with.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/memory_promise.h"
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
  // units, tables ×4", or "sm_90 bf16, graph, chunks: mma, attention: …": how prompt chunks
  // are multiplied, whether decode steps are recorded, and every design that attention and the
  // indexer use, and a layer's experts in float32, ", laid out for memory" where a faster layout
  // would leave too little of it. Says how many matrices tensor cores get decoded value by value,
  // how many of GPTQ go by the row, and how many by the piece, if any.
  std::string kernel() const override;
  bool samples_on_device() const override { return true; }
  std::size_t weight_bytes() const override { return memory.bytes(); }
  Result<std::vector<DeviceRoof>> measure_roofs() const override;
  Result<MemoryPlan> plan(const MemoryNeeds& needs) const override;
  Result<std::unique_ptr<Backend>> new_executor(int n_threads,
                                                const StepLimits& limits) const override;
  Result<std::shared_ptr<const BackendModel>> with(const ModelConfig& other,
                                                   const ModelWeights& weights) const override {
    return load_cuda_model(other, weights, how.name);
  }

  const ModelConfig c;
  const CudaKernel how;
  const kernels::RopeTable rope;
  const kernels::CudaDevice device;
  const kernels::MoeLayout layout;
  mutable MemoryPromise promise;  // what was planned, and what of it executors have
  kernels::DeviceWeights memory;
  DeviceMatrix embed, lm_head;
  const float* final_norm = nullptr;
  std::vector<CudaLayer> layers;

 private:
  CudaLayer upload_layer(const LayerWeights& w);
  void count_slow(const DeviceMatrix& m, bool is_dense);
  void upload_kv_b(const Matrix& kv_b, CudaLayer& l);

  std::int64_t routed_bytes_ = 0;  // of memory.bytes(): all routed experts
  std::int64_t embed_bytes_ = 0;   // and the embedding, where it is no head
  std::int64_t index_bytes_ = 0;   // and what an indexer multiplies and norms with
  int n_by_value_ = 0;             // matrices of prompt chunks that are decoded value by value
  int n_by_row_ = 0;               // dense GPTQ matrices that no unit fits, which are slower
  int n_by_piece_ = 0;             // layers' dense matrices that are slower yet (project_cuda.h)
};

}  // namespace assay::engine
