// The model on one GPU, in float32 activations straight from the codes: kernels of kernels/*_cuda.h
// on a stream of the executor's own. Launches of one step follow each other without a look at their
// values; only tokens, positions and cache addresses go up, only logits come down.
#include <algorithm>
#include <array>
#include <cmath>

#include "base/check.h"
#include "engine/backend/act_width.h"
#include "engine/backend/backend.h"
#include "engine/backend/matrix_view.h"
#include "kernels/layer_cuda.h"
#include "kernels/project_cuda.h"
#include "kernels/rope.h"

namespace assay::engine {
namespace {

using kernels::CudaStream;
using kernels::DeviceArray;
using kernels::DeviceMatrix;

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
};

DeviceMatrix upload(const Matrix& m, kernels::DeviceWeights& memory) {
  if (m.empty()) return {};
  if (const auto* vq = std::get_if<kernels::VqMatrix>(&m.codes)) return memory.add(*vq);
  if (const auto* scaled = std::get_if<kernels::ScaledMatrix>(&m.codes)) return memory.add(*scaled);
  return memory.add(view(m));
}

const float* upload_floats(const Matrix& m, kernels::DeviceWeights& memory) {
  return m.empty() ? nullptr : memory.add(to_floats(m));
}

CudaMlp upload(const MlpWeights& w, kernels::DeviceWeights& memory) {
  return {upload(w.gate, memory), upload(w.up, memory), upload(w.down, memory)};
}

class CudaModel final : public BackendModel, public std::enable_shared_from_this<CudaModel> {
 public:
  CudaModel(const ModelConfig& config, const ModelWeights& w)
      : c(config), rope(config.rope_theta, config.qk_rope), device(kernels::cuda_device()) {
    embed = upload(w.embed, memory);
    // A tied head is the embedding.
    lm_head = w.lm_head.name == w.embed.name ? embed : upload(w.lm_head, memory);
    final_norm = upload_floats(w.final_norm, memory);
    for (const LayerWeights& layer : w.layers) layers.push_back(upload_layer(layer));
  }

  std::string_view backend() const override { return "cuda"; }
  std::string kernel() const override {
    return fmt::format("sm_{}{} f32", device.major, device.minor);
  }
  std::size_t weight_bytes() const override { return memory.bytes(); }
  std::unique_ptr<Backend> new_executor(int n_threads) const override;
  Result<std::shared_ptr<const BackendModel>> with(const ModelConfig& other,
                                                   const ModelWeights& weights) const override {
    return load_cuda_model(other, weights, "");
  }

  const ModelConfig c;
  const kernels::RopeTable rope;
  const kernels::CudaDevice device;
  kernels::DeviceWeights memory;
  DeviceMatrix embed, lm_head;
  const float* final_norm = nullptr;
  std::vector<CudaLayer> layers;

 private:
  CudaLayer upload_layer(const LayerWeights& w) {
    CudaLayer l;
    l.input_norm = upload_floats(w.input_norm, memory);
    l.q_a_norm = upload_floats(w.q_a_norm, memory);
    l.kv_a_norm = upload_floats(w.kv_a_norm, memory);
    l.post_attention_norm = upload_floats(w.post_attention_norm, memory);
    l.q_a = upload(w.q_a, memory);
    l.q_b = upload(w.q_b, memory);
    l.kv_a = upload(w.kv_a, memory);
    l.o = upload(w.o, memory);
    upload_kv_b(to_floats(w.kv_b), l);
    l.index_q = upload(w.indexer.wq_b, memory);
    l.index_k = upload(w.indexer.wk, memory);
    l.index_weights = upload(w.indexer.weights_proj, memory);
    l.index_norm_weight = upload_floats(w.indexer.k_norm_weight, memory);
    l.index_norm_bias = upload_floats(w.indexer.k_norm_bias, memory);
    l.mlp = upload(w.mlp, memory);
    l.router = upload(w.router, memory);
    l.router_bias = upload_floats(w.router_bias, memory);
    std::vector<DeviceMatrix> experts;
    for (const MlpWeights& e : w.experts) {
      const CudaMlp mlp = upload(e, memory);
      experts.insert(experts.end(), {mlp.gate, mlp.up, mlp.down});
    }
    l.n_experts = static_cast<int>(w.experts.size());
    if (!experts.empty()) l.experts = memory.add_array(experts);
    return l;
  }

  // Sliced by head, and the key part transposed, so that queries meet the latent itself.
  void upload_kv_b(const std::vector<float>& kv_b, CudaLayer& l) {
    const auto nope = static_cast<std::size_t>(c.qk_nope), v = static_cast<std::size_t>(c.v_head),
               lora = static_cast<std::size_t>(c.kv_lora),
               heads = static_cast<std::size_t>(c.n_heads);
    std::vector<float> keys(heads * lora * nope), values(heads * v * lora);
    for (std::size_t h = 0; h < heads; ++h) {
      const float* head = kv_b.data() + h * (nope + v) * lora;
      for (std::size_t d = 0; d < nope; ++d)
        for (std::size_t i = 0; i < lora; ++i) keys[(h * lora + i) * nope + d] = head[d * lora + i];
      std::copy_n(head + nope * lora, v * lora,
                  values.begin() + static_cast<std::ptrdiff_t>(h * v * lora));
    }
    l.absorbed_k = memory.add(keys);
    l.value_up = memory.add(values);
  }
};

constexpr int kGrowTokens = 256;

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
    for (const auto* part : {&kv_, &index_})
      for (const auto& array : *part) total += array.size() * sizeof(float);
    return total;
  }

  void reserve(int n_tokens) {
    if (n_tokens > capacity_) grow_from(*this, std::max(n_tokens, capacity_ + capacity_ / 2));
  }
  void set_n_tokens(int n) { n_tokens_ = n; }
  float* kv(int layer) { return kv_[static_cast<std::size_t>(layer)].data(); }
  float* index_keys(int layer) { return index_[static_cast<std::size_t>(layer)].data(); }

 private:
  static std::size_t size(const ModelConfig& c) { return static_cast<std::size_t>(c.n_layers); }

  // Room for n tokens, and the rows of `from` that are in the cache.
  void grow_from(const CudaCache& from, int n) {
    const int capacity = (n + kGrowTokens - 1) / kGrowTokens * kGrowTokens;
    const auto grown = [&](const DeviceArray<float>& old, int width) {
      DeviceArray<float> next(static_cast<std::size_t>(capacity) * static_cast<std::size_t>(width));
      const std::size_t kept =
          static_cast<std::size_t>(from.n_tokens_) * static_cast<std::size_t>(width);
      if (kept > 0) kernels::copy_on_device(next.data(), old.data(), kept * sizeof(float), nullptr);
      return next;
    };
    // What an executor's stream still writes must be there before it is copied.
    kernels::synchronise_device();
    for (std::size_t l = 0; l < kv_.size(); ++l) {
      kv_[l] = grown(from.kv_[l], c_->kv_row());
      if (c_->index_topk > 0 && c_->indexer_full[l])
        index_[l] = grown(from.index_[l], c_->index_head_dim);
    }
    kernels::synchronise_device();
    capacity_ = capacity;
  }

  const ModelConfig* c_;
  int n_tokens_ = 0, capacity_ = 0;
  std::vector<DeviceArray<float>> kv_, index_;  // per layer
};

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(std::shared_ptr<const CudaModel> model)
      : model_(std::move(model)), m_(*model_), c_(m_.c) {}

  std::unique_ptr<KvCache> new_cache() override { return std::make_unique<CudaCache>(c_); }

  void begin_step(const StepRows& rows) override {
    rows_ = rows;
    n_ = rows.n_rows();
    const auto n = static_cast<std::size_t>(n_);
    if (n_ > capacity_) reserve_rows(n_);
    const int half = c_.qk_rope / 2;
    std::vector<float> cosine(n * static_cast<std::size_t>(half)), sine(cosine.size());
    std::vector<int> position(n);
    std::vector<float*> kv(n * static_cast<std::size_t>(c_.n_layers)), index(kv.size());
    max_keys_ = 0;
    for (const Segment& s : rows_.segments) {
      auto* cache = static_cast<CudaCache*>(s.cache);
      cache->reserve(s.first_position + s.n_rows);
      for (int i = 0; i < s.n_rows; ++i) {
        const auto row = static_cast<std::size_t>(s.first_row + i);
        position[row] = s.first_position + i;
        max_keys_ = std::max(max_keys_, position[row] + 1);
        m_.rope.angles(position[row], &cosine[row * static_cast<std::size_t>(half)],
                       &sine[row * static_cast<std::size_t>(half)]);
        for (int l = 0; l < c_.n_layers; ++l) {
          kv[static_cast<std::size_t>(l) * n + row] = cache->kv(l);
          index[static_cast<std::size_t>(l) * n + row] = cache->index_keys(l);
        }
      }
    }
    put(cosine, cosine_);
    put(sine, sine_);
    put(position, position_);
    put(kv, kv_);
    put(index, index_cache_);
    put(rows_.tokens, tokens_);
  }

  void embed() override {
    kernels::embed_cuda(m_.embed, tokens_.data(), n_, act(Act::kResidual), stream());
  }

  void set_residual(std::span<const float> rows) override {
    CHECK(rows.size() == static_cast<std::size_t>(n_) * static_cast<std::size_t>(c_.hidden))
        << rows.size();
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
                             .position = position_.data()},
                            rope(c_.rope_interleave), stream());
  }

  void index(int layer) override {
    const CudaLayer& l = m_.layers[static_cast<std::size_t>(layer)];
    const int heads = c_.index_n_heads, dim = c_.index_head_dim;
    kernels::project_cuda(l.index_k, act(Act::kNormed), c_.hidden, n_, index_k_.data(), dim, false,
                          stream());
    kernels::append_index_cuda({.in = index_k_.data(),
                                .norm_weight = l.index_norm_weight,
                                .norm_bias = l.index_norm_bias,
                                .eps = ModelConfig::kIndexerLayerNormEps,
                                .dim = dim,
                                .n_rows = n_,
                                .cache = of_layer(index_cache_, layer),
                                .position = position_.data()},
                               rope(c_.indexer_rope_interleave), stream());
    const auto n_scores = static_cast<std::size_t>(n_) * static_cast<std::size_t>(max_keys_);
    if (max_keys_ > c_.index_topk) {
      kernels::project_cuda(l.index_q, act(Act::kQueryResid), c_.q_lora, n_, index_q_.data(),
                            heads * dim, false, stream());
      kernels::rope_cuda(rope(c_.indexer_rope_interleave), index_q_.data(), heads * dim, dim, heads,
                         n_, stream());
      kernels::project_cuda(l.index_weights, act(Act::kNormed), c_.hidden, n_,
                            index_weights_.data(), heads, false, stream());
      if (scores_.size() < n_scores) {
        kernels::synchronise(stream());
        scores_ = DeviceArray<float>(n_scores);
      }
    }
    kernels::index_cuda({.q = index_q_.data(),
                         .weights = index_weights_.data(),
                         .cache = of_layer(index_cache_, layer),
                         .position = position_.data(),
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
    kernels::copy_heads_cuda(act(Act::kQuery) + c_.qk_nope, heads * c_.qk_head(), c_.qk_head(),
                             absorbed_.data() + c_.kv_lora, heads * row, row, c_.qk_rope, heads, n_,
                             stream());
    kernels::rope_cuda(rope(c_.rope_interleave), absorbed_.data() + c_.kv_lora, heads * row, row,
                       heads, n_, stream());
    kernels::mla_attention_cuda(
        {.q = absorbed_.data(),
         .cache = of_layer(kv_, layer),
         .position = position_.data(),
         .keys = sparse ? selected_.data() : nullptr,
         .n_keys = sparse ? n_selected_.data() : nullptr,
         .keys_stride = c_.index_topk,
         .n_rows = n_,
         .n_heads = heads,
         .kv_lora = c_.kv_lora,
         .rope = c_.qk_rope,
         .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c_.qk_head()))),
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
    mlp_into(m_.layers[static_cast<std::size_t>(layer)].mlp, act(Act::kResidual), true);
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
    const CudaLayer& l = m_.layers[static_cast<std::size_t>(layer)];
    mlp_into(l.mlp, shared_.data(), false);
    kernels::moe_cuda({.experts = l.experts,
                       .expert = expert_.data(),
                       .weight = expert_weight_.data(),
                       .n_tokens = n_,
                       .top_k = c_.n_experts_per_token,
                       .hidden = c_.hidden,
                       .width = c_.moe_intermediate,
                       .x = act(Act::kNormed),
                       .h = expert_hidden_.data(),
                       .shared = shared_.data(),
                       .residual = act(Act::kResidual)},
                      stream());
  }

  void logits(std::span<const int> rows, std::span<float> out) override {
    const auto vocab = static_cast<std::size_t>(c_.vocab);
    CHECK(out.size() == rows.size() * vocab) << out.size();
    if (rows.empty()) return;
    if (logits_.size() < out.size()) {
      kernels::synchronise(stream());
      logits_ = DeviceArray<float>(out.size());
    }
    // Runs of consecutive rows are one product.
    for (std::size_t i = 0, n = 0; i < rows.size(); i += n) {
      for (n = 1; i + n < rows.size() && rows[i + n] == rows[i] + static_cast<int>(n);) ++n;
      kernels::project_cuda(
          m_.lm_head, act(Act::kFinal) + static_cast<std::ptrdiff_t>(rows[i]) * c_.hidden,
          c_.hidden, static_cast<int>(n), logits_.data() + i * vocab, c_.vocab, false, stream());
    }
    kernels::copy_to_host(out.data(), logits_.data(), out.size_bytes(), stream());
  }

  void end_step() override {
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
  CudaStream stream() const { return stream_.get(); }
  float* act(Act a) const { return acts_[static_cast<std::size_t>(a)].data(); }
  kernels::RopeCuda rope(bool interleaved) const {
    return {cosine_.data(), sine_.data(), c_.qk_rope, interleaved};
  }
  float* const* of_layer(const DeviceArray<float*>& table, int layer) const {
    return table.data() + static_cast<std::ptrdiff_t>(layer) * n_;
  }
  template <class T>
  void put(const std::vector<T>& host, DeviceArray<T>& device) const {
    CHECK(host.size() <= device.size()) << host.size() << " of " << device.size();
    kernels::copy_to_device(device.data(), host.data(), host.size() * sizeof(T), stream());
  }

  void project(int layer, Projection p, Act in, Act out, bool accumulate) {
    const CudaLayer& l = m_.layers[static_cast<std::size_t>(layer)];
    const DeviceMatrix& matrix = p == Projection::kQueryA   ? l.q_a
                                 : p == Projection::kQueryB ? l.q_b
                                 : p == Projection::kKvA    ? l.kv_a
                                                            : l.o;
    kernels::project_cuda(matrix, act(in), act_width(in, c_), n_, act(out), act_width(out, c_),
                          accumulate, stream());
  }

  void mlp_into(const CudaMlp& w, float* out, bool accumulate) {
    kernels::swiglu_cuda(w.gate, w.up, act(Act::kNormed), c_.hidden, n_, mlp_hidden_.data(),
                         stream());
    kernels::project_cuda(w.down, mlp_hidden_.data(), w.gate.n_rows, n_, out, c_.hidden, accumulate,
                          stream());
  }

  void reserve_rows(int n_rows) {
    kernels::synchronise(stream());
    capacity_ = n_rows;
    const auto rows = [&](int width) {
      return static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(width);
    };
    for (int a = 0; a < kNumActs; ++a)
      acts_[static_cast<std::size_t>(a)] =
          DeviceArray<float>(rows(act_width(static_cast<Act>(a), c_)));
    int widest_mlp = c_.moe_intermediate * std::max(1, c_.n_shared_experts);
    for (const CudaLayer& l : m_.layers) widest_mlp = std::max(widest_mlp, l.mlp.gate.n_rows);
    const int k = c_.n_experts_per_token;
    for (auto& [array, width] :
         {std::pair{&cosine_, c_.qk_rope / 2}, std::pair{&sine_, c_.qk_rope / 2},
          std::pair{&absorbed_, c_.n_heads * c_.kv_row()},
          std::pair{&latent_, c_.n_heads * c_.kv_lora}, std::pair{&mlp_hidden_, widest_mlp},
          std::pair{&shared_, c_.hidden}, std::pair{&router_logits_, c_.n_experts},
          std::pair{&expert_hidden_, k * c_.moe_intermediate}, std::pair{&expert_weight_, k},
          std::pair{&routing_margin_, 1}, std::pair{&selection_margin_, 1},
          std::pair{&index_q_, c_.index_n_heads * c_.index_head_dim},
          std::pair{&index_weights_, c_.index_n_heads}, std::pair{&index_k_, c_.index_head_dim}})
      *array = DeviceArray<float>(rows(width));
    for (auto& [array, width] :
         {std::pair{&tokens_, 1}, std::pair{&position_, 1}, std::pair{&expert_, k},
          std::pair{&selected_, c_.index_topk}, std::pair{&n_selected_, 1}})
      *array = DeviceArray<int>(rows(width));
    kv_ = DeviceArray<float*>(rows(c_.n_layers));
    index_cache_ = DeviceArray<float*>(rows(c_.n_layers));
  }

  const std::shared_ptr<const CudaModel> model_;
  const CudaModel& m_;
  const ModelConfig& c_;
  kernels::CudaStreamOwner stream_;
  StepRows rows_;
  int n_ = 0, capacity_ = 0, max_keys_ = 0;
  std::array<DeviceArray<float>, kNumActs> acts_;
  DeviceArray<float> cosine_, sine_, absorbed_, latent_, mlp_hidden_, shared_, router_logits_,
      expert_hidden_, expert_weight_, routing_margin_, selection_margin_, index_q_, index_weights_,
      index_k_, scores_, logits_;
  DeviceArray<int> tokens_, position_, expert_, selected_, n_selected_;
  DeviceArray<float*> kv_, index_cache_;  // (n_layers, n_rows)
};

std::unique_ptr<Backend> CudaModel::new_executor(int) const {
  return std::make_unique<CudaBackend>(shared_from_this());
}

// What a matrix takes on the device, at most.
std::size_t bytes_of(const Matrix& m) {
  const auto values = static_cast<std::size_t>(m.n_rows) * static_cast<std::size_t>(m.n_cols);
  if (const auto* vq = std::get_if<kernels::VqMatrix>(&m.codes))
    return static_cast<std::size_t>(m.n_rows) *
           static_cast<std::size_t>(4 * vq->row_words() + 2 * vq->n_groups());
  if (!m.is_dense()) return values + values / 4;
  return values * (m.dtype == DType::kF32 ? 4 : 2);
}

}  // namespace

Result<std::shared_ptr<const BackendModel>> load_cuda_model(const ModelConfig& config,
                                                            const ModelWeights& weights,
                                                            std::string_view kernel) {
  if (!kernel.empty())
    return fail("backend cuda has no kernel '{}' to choose: leave --kernel out", kernel);
  if (kernels::n_cuda_devices() == 0)
    return fail(
        "no CUDA device here (no driver, or no GPU): run on a machine with one, or with --backend "
        "cpu");
  if (config.kv_lora > kernels::kMaxKvLoraCuda)
    return fail("kv_lora_rank is {}, backend cuda takes at most {}", config.kv_lora,
                kernels::kMaxKvLoraCuda);
  if (config.n_experts > kernels::kMaxExpertsCuda ||
      config.n_experts_per_token > kernels::kMaxTopExpertsCuda)
    return fail("{} experts, {} a token; backend cuda takes at most {} and {}", config.n_experts,
                config.n_experts_per_token, kernels::kMaxExpertsCuda, kernels::kMaxTopExpertsCuda);
  std::size_t need = 0;
  for (const Matrix* m : all_matrices(weights)) need += bytes_of(*m);
  const kernels::CudaDevice device = kernels::cuda_device();
  if (need > device.free_bytes)
    return fail(
        "the weights need {:.1f} GiB on the GPU, {} has {:.1f} of {:.1f} GiB free: use a larger or "
        "an emptier one",
        static_cast<double>(need) / 0x1p30, device.name,
        static_cast<double>(device.free_bytes) / 0x1p30,
        static_cast<double>(device.total_bytes) / 0x1p30);
  return std::make_shared<const CudaModel>(config, weights);
}

}  // namespace assay::engine
