// The model on one GPU, in float32 activations straight from the codes: kernels of kernels/*_cuda.h
// on a stream of the executor's own. Asked for, rows of prompt chunks are rounded to bfloat16 where
// they meet a matrix, for tensor cores, and attention takes halves; router and index weights, which
// choose, stay in float32. Launches of one step follow each other without a look at their values;
// only tokens, positions and cache addresses go up, in one copy, only samples come down, or logits.
#include "engine/backend/cuda_backend.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "base/check.h"
#include "engine/backend/act_width.h"
#include "engine/backend/cuda_products.h"
#include "engine/comm/comm.h"
#include "kernels/indexer_cuda.h"
#include "kernels/layer_cuda.h"
#include "kernels/mla_attention_cuda.h"
#include "kernels/project_cuda.h"
#include "kernels/sample_cuda.h"
#include "kernels/step_upload.h"

namespace assay::engine {
namespace {

using kernels::CudaStream;
using kernels::DeviceArray;
using kernels::StepUpload;

constexpr int kLeastKeys = 256;  // that scratch and launches are made for

class CudaBackend final : public CudaExecutor {
 public:
  explicit CudaBackend(std::shared_ptr<const CudaModel> model)
      : model_(std::move(model)),
        m_(*model_),
        c_(m_.c),
        products_(m_, stream_.get()),
        sampler_(c_.vocab) {}

  std::unique_ptr<KvCache> new_cache() override { return std::make_unique<CudaCache>(c_); }

  void begin_step(const StepRows& rows) override {
    rows_ = rows;
    n_ = rows.n_rows();
    int n_keys = kLeastKeys;
    for (const Segment& s : rows_.segments) n_keys = std::max(n_keys, s.first_position + s.n_rows);
    max_keys_ = static_cast<int>(std::bit_ceil(static_cast<unsigned>(n_keys)));
    const std::vector<int> runs = runs_of(rows_.segments, kernels::mla_rows_of_run(c_.n_heads));
    n_runs_ = static_cast<int>(runs.size()) - 1;
    const std::vector<int> index_runs =
        runs_of(rows_.segments, kernels::index_rows_of_run(std::max(1, c_.index_n_heads)));
    n_index_runs_ = static_cast<int>(index_runs.size()) - 1;
    reserve(n_, max_keys_);
    products_.begin_step(rows_.segments);

    const auto n = static_cast<std::size_t>(n_), half = static_cast<std::size_t>(c_.qk_rope / 2),
               n_tables = n * static_cast<std::size_t>(c_.n_layers);
    upload_.clear();
    const auto kv = upload_.add(n_tables, kv_);
    const auto index = upload_.add(n_tables, index_cache_);
    const auto cosine = upload_.add(n * half, cosine_), sine = upload_.add(n * half, sine_);
    const auto position = upload_.add(n, position_), tokens = upload_.add(n, tokens_);
    const auto run = upload_.add(runs.size(), run_);
    const auto index_run = upload_.add(index_runs.size(), index_run_);
    std::copy(runs.begin(), runs.end(), run.begin());
    std::copy(index_runs.begin(), index_runs.end(), index_run.begin());
    std::copy(rows_.tokens.begin(), rows_.tokens.end(), tokens.begin());
    for (const Segment& s : rows_.segments) {
      auto* cache = static_cast<CudaCache*>(s.cache);
      cache->reserve(s.first_position + s.n_rows);
      for (int i = 0; i < s.n_rows; ++i) {
        const auto row = static_cast<std::size_t>(s.first_row) + static_cast<std::size_t>(i);
        position[row] = s.first_position + i;
        m_.rope.angles(position[row], &cosine[row * half], &sine[row * half]);
        for (int l = 0; l < c_.n_layers; ++l) {
          kv[static_cast<std::size_t>(l) * n + row] = cache->kv(l);
          index[static_cast<std::size_t>(l) * n + row] = cache->index_keys(l);
        }
      }
    }
    upload_.send(stream());
  }

  CudaStepShape step_shape() const override { return {n_, max_keys_, epoch_}; }
  CudaStream stream() const override { return stream_.get(); }

  void embed() override {
    kernels::embed_cuda(m_.embed, tokens_, n_, act(Act::kResidual), stream());
  }

  void set_residual(std::span<const float> rows) override {
    CHECK(rows.size() == residual_size()) << rows.size();
    kernels::copy_to_device(act(Act::kResidual), rows.data(), rows.size_bytes(), stream());
  }

  void rms_norm(int layer, Norm norm, Act in, Act out) override {
    const CudaLayer& l = m_.layers[static_cast<std::size_t>(layer)];
    const float* weight = norm == Norm::kFinal       ? m_.final_norm
                          : norm == Norm::kInput     ? l.input_norm
                          : norm == Norm::kQueryLora ? l.q_a_norm
                                                     : l.post_attention_norm;
    const float eps = norm == Norm::kQueryLora ? ModelConfig::kLoraRmsEps : c_.rms_eps;
    const int width = act_width(in, c_);
    kernels::rms_norm_cuda(act(in), width, weight, eps, width, n_, act(out), width, stream());
  }

  void project(int layer, Projection p, Act in, Act out) override {
    project(layer, p, in, out, false);
  }
  void project_add(int layer, Projection p, Act in, Act out) override {
    project(layer, p, in, out, true);
  }

  void append_kv(int layer) override {
    const CudaLayer& l = m_.layers[static_cast<std::size_t>(layer)];
    kernels::append_kv_cuda({.in = act(Act::kKvLora),
                             .norm_weight = l.kv_a_norm,
                             .eps = ModelConfig::kLoraRmsEps,
                             .kv_lora = c_.kv_lora,
                             .n_rows = n_,
                             .cache = of_layer(kv_, layer),
                             .position = position_},
                            rope(c_.rope_interleave), stream());
  }

  void index(int layer) override {
    const CudaLayer& l = m_.layers[static_cast<std::size_t>(layer)];
    const int heads = c_.index_n_heads, dim = c_.index_head_dim;
    products_.multiply(l.index_k, act(Act::kNormed), index_k_.data(), false);
    kernels::append_index_cuda({.in = index_k_.data(),
                                .norm_weight = l.index_norm_weight,
                                .norm_bias = l.index_norm_bias,
                                .eps = ModelConfig::kIndexerLayerNormEps,
                                .dim = dim,
                                .n_rows = n_,
                                .cache = of_layer(index_cache_, layer),
                                .position = position_},
                               rope(c_.indexer_rope_interleave), stream());
    if (max_keys_ > c_.index_topk) {
      products_.multiply(l.index_q, act(Act::kQueryResid), index_q_.data(), false);
      kernels::rope_cuda(rope(c_.indexer_rope_interleave), {index_q_.data(), heads * dim, dim},
                         {index_q_.data(), heads * dim, dim}, heads, n_, stream());
      kernels::project_cuda(l.index_weights, act(Act::kNormed), c_.hidden, n_,
                            index_weights_.data(), heads, false, stream());
    }
    kernels::index_cuda({.q = index_q_.data(),
                         .weights = index_weights_.data(),
                         .cache = of_layer(index_cache_, layer),
                         .position = position_,
                         .run = index_run_,
                         .n_runs = n_index_runs_,
                         .n_rows = n_,
                         .n_heads = heads,
                         .dim = dim,
                         .top_k = c_.index_topk,
                         .max_keys = max_keys_,
                         .scores = scores_.data(),
                         .keys = selected_.data(),
                         .n_keys = n_selected_.data(),
                         .margin = selection_margin_.data()},
                        stream());
  }

  void mla_attention(int layer, bool sparse) override {
    const CudaLayer& l = m_.layers[static_cast<std::size_t>(layer)];
    const int row = c_.kv_row(), heads = c_.n_heads;
    // q_nope into latent space, and the rope part, rotated, beside it.
    kernels::project_heads_cuda({.w = l.absorbed_k,
                                 .n_heads = heads,
                                 .n_rows = c_.kv_lora,
                                 .n_cols = c_.qk_nope,
                                 .x = act(Act::kQuery),
                                 .x_token_stride = heads * c_.qk_head(),
                                 .x_head_stride = c_.qk_head(),
                                 .y = absorbed_.data(),
                                 .y_token_stride = heads * row,
                                 .y_head_stride = row,
                                 .n_tokens = n_},
                                stream());
    kernels::rope_cuda(rope(c_.rope_interleave),
                       {act(Act::kQuery) + c_.qk_nope, heads * c_.qk_head(), c_.qk_head()},
                       {absorbed_.data() + c_.kv_lora, heads * row, row}, heads, n_, stream());
    // A run's rows see the same keys; chosen keys are each row's own.
    const bool shares_keys = !sparse && n_runs_ < n_;
    kernels::mla_attention_cuda(
        {.q = absorbed_.data(),
         .cache = of_layer(kv_, layer),
         .position = position_,
         .keys = sparse ? selected_.data() : nullptr,
         .n_keys = sparse ? n_selected_.data() : nullptr,
         .keys_stride = c_.index_topk,
         .run = shares_keys ? run_ : nullptr,
         .n_runs = n_runs_,
         .n_rows = n_,
         .n_heads = heads,
         .kv_lora = c_.kv_lora,
         .rope = c_.qk_rope,
         .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c_.qk_head()))),
         .max_keys = attended_keys(sparse),
         .half = m_.how.bf16_chunks,
         .parts = attention_parts(sparse) > 0 ? attention_parts_.data() : nullptr,
         .out = latent_.data()},
        stream());
    kernels::project_heads_cuda({.w = l.value_up,
                                 .n_heads = heads,
                                 .n_rows = c_.v_head,
                                 .n_cols = c_.kv_lora,
                                 .x = latent_.data(),
                                 .x_token_stride = heads * c_.kv_lora,
                                 .x_head_stride = c_.kv_lora,
                                 .y = act(Act::kAttention),
                                 .y_token_stride = heads * c_.v_head,
                                 .y_head_stride = c_.v_head,
                                 .n_tokens = n_},
                                stream());
  }

  void mlp(int layer) override {
    products_.mlp(m_.layers[static_cast<std::size_t>(layer)].mlp, act(Act::kNormed),
                  act(Act::kResidual), true);
  }

  void route(int layer) override {
    const CudaLayer& l = m_.layers[static_cast<std::size_t>(layer)];
    kernels::project_cuda(l.router, act(Act::kNormed), c_.hidden, n_, router_logits_.data(),
                          c_.n_experts, false, stream());
    kernels::route_cuda({.logits = router_logits_.data(),
                         .bias = l.router_bias,
                         .n_rows = n_,
                         .n_experts = c_.n_experts,
                         .top_k = c_.n_experts_per_token,
                         .normalise = c_.norm_topk_prob,
                         .scaling = c_.routed_scaling,
                         .expert = expert_.data(),
                         .weight = expert_weight_.data(),
                         .margin = routing_margin_.data()},
                        stream());
  }

  void moe(int layer) override {
    products_.moe(m_.layers[static_cast<std::size_t>(layer)], act(Act::kNormed), expert_.data(),
                  expert_weight_.data(), act(Act::kResidual));
  }

  void logits(std::span<const int> rows, std::span<float> out) override {
    const auto vocab = static_cast<std::size_t>(c_.vocab);
    CHECK(out.size() == rows.size() * vocab) << out.size();
    if (rows.empty()) {
      // Scratch of sums is all ranks' executors': the next must not find this step's in use.
      if (is_rank_) kernels::synchronise(stream());
      return;
    }
    project_logits(rows);
    kernels::copy_to_host(out.data(), logits_.data(), out.size_bytes(), stream());
  }

  void sample(std::span<const int> rows, std::span<const SampleRequest> requests,
              std::span<Sampled> out) override {
    CHECK(!rows.empty() && rows.size() == requests.size() && rows.size() == out.size())
        << rows.size() << " rows, " << requests.size() << " requests, room for " << out.size();
    sampler_.prepare(requests, stream());
    project_logits(rows);
    sampler_.launch(logits_.data(), stream());
    kernels::synchronise(stream());
    sampler_.collect(out);
  }
  void clear_residual() override {
    kernels::clear_cuda(act(Act::kResidual), residual_size(), stream());
  }
  void sum_residual(Comm& comm) override {
    is_rank_ = true;
    comm.sum(act(Act::kResidual), residual_size(), stream());
  }

  // Between steps nothing computes: caches may be copied and scratch may move.
  void end_step() override {
    kernels::synchronise(stream());
    for (const Segment& s : rows_.segments)
      static_cast<CudaCache*>(s.cache)->set_n_tokens(s.first_position + s.n_rows);
  }

  std::vector<float> read(Act a) const override {
    return acts_[static_cast<std::size_t>(a)].host(
        static_cast<std::size_t>(n_) * static_cast<std::size_t>(act_width(a, c_)), stream());
  }
  Routing read_routing() const override {
    const auto n = static_cast<std::size_t>(n_),
               k = static_cast<std::size_t>(c_.n_experts_per_token);
    return {expert_.host(n * k, stream()), expert_weight_.host(n * k, stream()),
            routing_margin_.host(n, stream())};
  }
  Selection read_selection() const override {
    const auto n = static_cast<std::size_t>(n_), k = static_cast<std::size_t>(c_.index_topk);
    const std::vector<int> keys = selected_.host(n * k, stream()),
                           n_keys = n_selected_.host(n, stream());
    Selection out;
    out.margin = selection_margin_.host(n, stream());
    for (std::size_t r = 0; r < n; ++r) {
      const auto first = keys.begin() + static_cast<std::ptrdiff_t>(r * k);
      out.keys.emplace_back(first, first + n_keys[r]);
    }
    return out;
  }

 private:
  // The logits of kFinal's `rows`, one behind the other in logits_.
  void project_logits(std::span<const int> rows) {
    const auto vocab = static_cast<std::size_t>(c_.vocab);
    if (logits_.size() < rows.size() * vocab) logits_ = DeviceArray<float>(rows.size() * vocab);
    // Runs of consecutive rows are one product.
    for (std::size_t i = 0, n = 0; i < rows.size(); i += n) {
      for (n = 1; i + n < rows.size() && rows[i + n] == rows[i] + static_cast<int>(n);) ++n;
      kernels::project_cuda(
          m_.lm_head, act(Act::kFinal) + static_cast<std::ptrdiff_t>(rows[i]) * c_.hidden,
          c_.hidden, static_cast<int>(n), logits_.data() + i * vocab, c_.vocab, false, stream());
    }
  }

  std::size_t residual_size() const {
    return static_cast<std::size_t>(n_) * static_cast<std::size_t>(c_.hidden);
  }
  float* act(Act a) const { return acts_[static_cast<std::size_t>(a)].data(); }
  kernels::RopeCuda rope(bool interleaved) const {
    return {cosine_, sine_, c_.qk_rope, interleaved};
  }
  template <class T>
  T* const* of_layer(T* const* table, int layer) const {
    return table + static_cast<std::ptrdiff_t>(layer) * n_;
  }

  // Of these segments, as MlaAttentionCuda::run and IndexCuda::run have them.
  std::vector<int> runs_of(std::span<const Segment> segments, int rows_of_run) const {
    std::vector<int> first_rows;
    for (const Segment& s : segments)
      for (int i = 0; i < s.n_rows; i += rows_of_run) first_rows.push_back(s.first_row + i);
    first_rows.push_back(n_);
    return first_rows;
  }
  int attended_keys(bool sparse) const {
    return sparse ? std::min(max_keys_, c_.index_topk) : max_keys_;
  }
  std::size_t attention_parts(bool sparse) const {
    return kernels::mla_parts(n_, sparse ? n_ : n_runs_, c_.n_heads, c_.kv_lora, c_.qk_rope,
                              attended_keys(sparse));
  }

  void project(int layer, Projection p, Act in, Act out, bool accumulate) {
    const CudaLayer& l = m_.layers[static_cast<std::size_t>(layer)];
    const DeviceMatrix& matrix = p == Projection::kQueryA   ? l.q_a
                                 : p == Projection::kQueryB ? l.q_b
                                 : p == Projection::kKvA    ? l.kv_a
                                                            : l.o;
    products_.multiply(matrix, act(in), act(out), accumulate);
  }

  void reserve(int n_rows, int max_keys) {
    if (n_rows > capacity_) {
      reserve_rows(n_rows);
      ++epoch_;
    }
    const auto n_scores = static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(max_keys);
    if (c_.index_topk > 0 && max_keys > c_.index_topk && scores_.size() < n_scores) {
      scores_ = DeviceArray<float>(n_scores);
      ++epoch_;
    }
    const std::size_t n_parts = std::max(attention_parts(false), attention_parts(true));
    if (attention_parts_.size() < n_parts) {
      attention_parts_ = DeviceArray<float>(n_parts);
      ++epoch_;
    }
  }

  void reserve_rows(int n_rows) {
    capacity_ = n_rows;
    const auto rows = [&](int width) {
      return static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(width);
    };
    for (int a = 0; a < kNumActs; ++a)
      acts_[static_cast<std::size_t>(a)] =
          DeviceArray<float>(rows(act_width(static_cast<Act>(a), c_)));
    products_.reserve(n_rows);
    const int k = c_.n_experts_per_token;
    for (auto& [array, width] :
         {std::pair{&absorbed_, c_.n_heads * c_.kv_row()},
          std::pair{&latent_, c_.n_heads * c_.kv_lora}, std::pair{&router_logits_, c_.n_experts},
          std::pair{&expert_weight_, k}, std::pair{&routing_margin_, 1},
          std::pair{&selection_margin_, 1},
          std::pair{&index_q_, c_.index_n_heads * c_.index_head_dim},
          std::pair{&index_weights_, c_.index_n_heads}, std::pair{&index_k_, c_.index_head_dim}})
      *array = DeviceArray<float>(rows(width));
    for (auto& [array, width] :
         {std::pair{&expert_, k}, std::pair{&selected_, c_.index_topk}, std::pair{&n_selected_, 1}})
      *array = DeviceArray<int>(rows(width));
    // Two tables of pointers, two of angles, positions, tokens and two of runs, each aligned.
    upload_.reserve(2 * sizeof(float*) * rows(c_.n_layers) + sizeof(float) * rows(c_.qk_rope) +
                    4 * sizeof(int) * (rows(1) + 1) + 8 * std::size_t{16});
  }

  const std::shared_ptr<const CudaModel> model_;
  const CudaModel& m_;
  const ModelConfig& c_;
  kernels::CudaStreamOwner stream_;
  StepRows rows_;
  int n_ = 0, n_runs_ = 0, n_index_runs_ = 0, capacity_ = 0, max_keys_ = 0, epoch_ = 0;
  std::array<DeviceArray<float>, kNumActs> acts_;
  DeviceArray<float> absorbed_, latent_, router_logits_, expert_weight_, routing_margin_,
      selection_margin_, index_q_, index_weights_, index_k_, scores_, attention_parts_, logits_;
  DeviceArray<int> expert_, selected_, n_selected_;
  CudaProducts products_;
  bool is_rank_ = false;  // of several
  kernels::CudaSampler sampler_;
  StepUpload upload_;                                  // of which, on the device:
  std::uint16_t* const* kv_ = nullptr;                 // (n_layers, n_rows)
  float* const* index_cache_ = nullptr;                // (n_layers, n_rows)
  const float *cosine_ = nullptr, *sine_ = nullptr;    // (n_rows, qk_rope / 2)
  const int *position_ = nullptr, *tokens_ = nullptr;  // (n_rows)
  const int *run_ = nullptr, *index_run_ = nullptr;    // (n_runs + 1), (n_index_runs + 1)
};

}  // namespace

std::unique_ptr<CudaExecutor> new_cuda_executor(std::shared_ptr<const CudaModel> model) {
  return std::make_unique<CudaBackend>(std::move(model));
}

std::unique_ptr<Backend> CudaModel::new_executor(int) const {
  auto executor = new_cuda_executor(shared_from_this());
  if (how.records_steps) return with_recorded_steps(std::move(executor));
  return executor;
}

}  // namespace assay::engine
