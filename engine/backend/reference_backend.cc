// The backend that defines correct: scalar kernels, double accumulation, weights read as the file
// has them. Threads share out rows and tokens, never a sum.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "base/thread_pool.h"
#include "engine/backend/act_width.h"
#include "engine/backend/backend.h"
#include "engine/backend/matrix_view.h"
#include "engine/comm/comm.h"
#include "kernels/indexer.h"
#include "kernels/mla_attention.h"
#include "kernels/norm.h"
#include "kernels/project.h"
#include "kernels/rope.h"
#include "kernels/route.h"
#include "kernels/swiglu.h"

namespace assay::engine {
namespace {

using kernels::WeightMatrix;
using kernels::WeightType;
using Floats = std::vector<float>;

struct Layer {
  Floats input_norm, q_a_norm, kv_a_norm, post_attention_norm, index_norm_weight, index_norm_bias,
      router_bias, kv_b;
  std::vector<Floats> absorbed_k;      // per head, (kv_lora, qk_nope): kv_b's key rows, transposed
  std::vector<WeightMatrix> value_up;  // per head, (v_head, kv_lora)
};

class ReferenceModel final : public BackendModel,
                             public std::enable_shared_from_this<ReferenceModel> {
 public:
  ReferenceModel(const ModelConfig& config, const ModelWeights& weights)
      : c(config),
        w(weights),
        rope(config.rope_theta, config.qk_rope),
        final_norm(to_floats(weights.final_norm)) {
    for (const LayerWeights& lw : w.layers) {
      Layer l{.input_norm = to_floats(lw.input_norm),
              .q_a_norm = to_floats(lw.q_a_norm),
              .kv_a_norm = to_floats(lw.kv_a_norm),
              .post_attention_norm = to_floats(lw.post_attention_norm),
              .index_norm_weight = {},
              .index_norm_bias = {},
              .router_bias = {},
              .kv_b = {},
              .absorbed_k = {},
              .value_up = {}};
      if (!lw.indexer.wk.empty()) {
        l.index_norm_weight = to_floats(lw.indexer.k_norm_weight);
        l.index_norm_bias = to_floats(lw.indexer.k_norm_bias);
      }
      if (!lw.router_bias.empty()) l.router_bias = to_floats(lw.router_bias);
      // Sliced by head, so a quantised one is expanded.
      if (!lw.kv_b.is_dense()) l.kv_b = to_floats(lw.kv_b);
      const WeightMatrix kv_b = lw.kv_b.is_dense() ? view(lw.kv_b)
                                                   : WeightMatrix{l.kv_b.data(), WeightType::kF32,
                                                                  lw.kv_b.n_rows, lw.kv_b.n_cols};
      for (int h = 0; h < c.n_heads; ++h) {
        const int first = h * (c.qk_nope + c.v_head);
        Floats t(static_cast<std::size_t>(c.kv_lora) * c.qk_nope);
        for (int d = 0; d < c.qk_nope; ++d)
          for (int i = 0; i < c.kv_lora; ++i)
            t[static_cast<std::size_t>(i) * c.qk_nope + d] =
                kernels::weight_at(kv_b, static_cast<std::int64_t>(first + d) * c.kv_lora + i);
        l.absorbed_k.push_back(std::move(t));
        l.value_up.push_back(rows_of(kv_b, first + c.qk_nope, c.v_head));
      }
      layers.push_back(std::move(l));
    }
  }

  std::string_view backend() const override { return "reference"; }
  std::string kernel() const override { return "scalar"; }
  bool samples_on_device() const override { return false; }
  std::size_t weight_bytes() const override { return 0; }  // the mapped file's own pages
  Result<std::unique_ptr<Backend>> new_executor(int n_threads, const StepLimits&) const override;
  Result<std::shared_ptr<const BackendModel>> with(const ModelConfig& other,
                                                   const ModelWeights& weights) const override {
    return std::make_shared<const ReferenceModel>(other, weights);
  }

  const ModelConfig c;
  const ModelWeights w;
  const kernels::RopeTable rope;
  const Floats final_norm;
  std::vector<Layer> layers;
};

struct ReferenceCache final : KvCache {
  explicit ReferenceCache(const ModelConfig& config)
      : c(&config), kv(static_cast<std::size_t>(config.n_layers)), index_k(kv.size()) {}
  int n_tokens() const override { return n; }
  void truncate(int n_tokens) override {
    CHECK(n_tokens >= 0 && n_tokens <= n) << n_tokens << " of " << n;
    n = n_tokens;
  }
  std::unique_ptr<KvCache> fork(int) const override {
    return std::make_unique<ReferenceCache>(*this);
  }
  std::size_t bytes() const override {
    std::size_t total = 0;
    for (const auto* part : {&kv, &index_k})
      for (const Floats& v : *part) total += v.capacity() * sizeof(float);
    return total;
  }

  const ModelConfig* c;
  std::vector<Floats> kv;       // per layer, (positions, kv_lora + qk_rope)
  std::vector<Floats> index_k;  // per full layer, (positions, index_head_dim)
  int n = 0;
};

class ReferenceBackend final : public Backend {
 public:
  ReferenceBackend(std::shared_ptr<const ReferenceModel> model, int n_threads)
      : model_(std::move(model)), m_(*model_), c_(m_.c), pool_(n_threads) {}

  std::unique_ptr<KvCache> new_cache(int) override { return std::make_unique<ReferenceCache>(c_); }

  void begin_step(const StepRows& rows) override {
    rows_ = rows;
    n_ = rows.n_rows();
    for (int a = 0; a < kNumActs; ++a)
      acts_[a].assign(static_cast<std::size_t>(n_) * act_width(static_cast<Act>(a), c_), 0.0f);
    const int half = c_.qk_rope / 2;
    cosine_.resize(static_cast<std::size_t>(n_) * half);
    sine_.resize(cosine_.size());
    cache_of_.resize(static_cast<std::size_t>(n_));
    position_of_.resize(static_cast<std::size_t>(n_));
    for (const Segment& s : rows_.segments)
      for (int i = 0; i < s.n_rows; ++i) {
        const int row = s.first_row + i;
        cache_of_[row] = static_cast<ReferenceCache*>(s.cache);
        position_of_[row] = s.first_position + i;
        m_.rope.angles(position_of_[row], &cosine_[row * half], &sine_[row * half]);
      }
  }

  void embed() override {
    const WeightMatrix table = view(m_.w.embed);
    for (int r = 0; r < n_; ++r)
      for (int i = 0; i < c_.hidden; ++i)
        act(Act::kResidual, r)[i] =
            kernels::weight_at(table, static_cast<std::int64_t>(rows_.tokens[r]) * c_.hidden + i);
  }

  void set_residual(std::span<const float> rows) override {
    CHECK(rows.size() == acts_[static_cast<int>(Act::kResidual)].size()) << rows.size();
    acts_[static_cast<int>(Act::kResidual)].assign(rows.begin(), rows.end());
  }

  void rms_norm(int layer, Norm norm, Act in, Act out) override {
    const Floats& weight = norm == Norm::kFinal       ? m_.final_norm
                           : norm == Norm::kInput     ? m_.layers[layer].input_norm
                           : norm == Norm::kQueryLora ? m_.layers[layer].q_a_norm
                                                      : m_.layers[layer].post_attention_norm;
    const float eps = norm == Norm::kQueryLora ? ModelConfig::kLoraRmsEps : c_.rms_eps;
    for (int r = 0; r < n_; ++r)
      kernels::rms_norm_reference(act(in, r), weight.data(), eps, act_width(in, c_), act(out, r));
  }

  void project(int layer, Projection p, Act in, Act out) override {
    project(layer, p, in, out, false);
  }
  void project_add(int layer, Projection p, Act in, Act out) override {
    project(layer, p, in, out, true);
  }

  void append_kv(int layer) override {
    for (int r = 0; r < n_; ++r) {
      Floats& kv = cache_of_[r]->kv[layer];
      const std::size_t row = c_.kv_row();
      kv.resize(std::max(kv.size(), (position_of_[r] + 1) * row));
      float* out = &kv[position_of_[r] * row];
      const float* in = act(Act::kKvLora, r);
      kernels::rms_norm_reference(in, m_.layers[layer].kv_a_norm.data(), ModelConfig::kLoraRmsEps,
                                  c_.kv_lora, out);
      std::copy(in + c_.kv_lora, in + row, out + c_.kv_lora);
      rotate(r, c_.rope_interleave, out + c_.kv_lora);
    }
  }

  void index(int layer) override {
    const IndexerWeights& w = m_.w.layers[layer].indexer;
    const Layer& l = m_.layers[layer];
    const int dim = c_.index_head_dim, heads = c_.index_n_heads;
    Floats q(static_cast<std::size_t>(n_) * heads * dim),
        weights(static_cast<std::size_t>(n_) * heads), k(static_cast<std::size_t>(n_) * dim);
    matmul(w.wq_b, act(Act::kQueryResid, 0), c_.q_lora, q.data(), heads * dim);
    matmul(w.weights_proj, act(Act::kNormed, 0), c_.hidden, weights.data(), heads);
    matmul(w.wk, act(Act::kNormed, 0), c_.hidden, k.data(), dim);
    const double head_scale = 1.0 / std::sqrt(static_cast<double>(heads));
    for (float& v : weights) v = static_cast<float>(v * head_scale);
    for (int r = 0; r < n_; ++r) {
      for (int h = 0; h < heads; ++h)
        rotate(r, c_.indexer_rope_interleave, &q[(static_cast<std::size_t>(r) * heads + h) * dim]);
      Floats& cached = cache_of_[r]->index_k[layer];
      cached.resize(std::max(cached.size(), static_cast<std::size_t>(position_of_[r] + 1) * dim));
      float* out = &cached[static_cast<std::size_t>(position_of_[r]) * dim];
      kernels::layer_norm_reference(&k[static_cast<std::size_t>(r) * dim],
                                    l.index_norm_weight.data(), l.index_norm_bias.data(),
                                    ModelConfig::kIndexerLayerNormEps, dim, out);
      rotate(r, c_.indexer_rope_interleave, out);
    }
    selection_.keys.resize(static_cast<std::size_t>(n_));
    selection_.margin.assign(static_cast<std::size_t>(n_), std::numeric_limits<float>::infinity());
    pool_.parallel_for(n_, [&](int r) {
      const int n_keys = position_of_[r] + 1;
      Floats scores(static_cast<std::size_t>(n_keys));
      // Where every key is selected the scores decide nothing.
      if (n_keys > c_.index_topk)
        kernels::index_scores_reference({.q = &q[static_cast<std::size_t>(r) * heads * dim],
                                         .weights = &weights[static_cast<std::size_t>(r) * heads],
                                         .k = cache_of_[r]->index_k[layer].data(),
                                         .n_keys = n_keys,
                                         .n_heads = heads,
                                         .head_dim = dim,
                                         .scores = scores.data()});
      kernels::select_top_k(scores.data(), n_keys, c_.index_topk, &selection_.keys[r],
                            &selection_.margin[r]);
    });
  }

  void mla_attention(int layer, bool sparse) override {
    const Layer& l = m_.layers[layer];
    pool_.parallel_for(n_, [&](int r) {
      const std::size_t row = c_.kv_row();
      Floats q(row * c_.n_heads), latent(static_cast<std::size_t>(c_.n_heads) * c_.kv_lora);
      for (int h = 0; h < c_.n_heads; ++h) {
        const float* head = act(Act::kQuery, r) + h * c_.qk_head();
        const WeightMatrix w_k{l.absorbed_k[h].data(), WeightType::kF32, c_.kv_lora, c_.qk_nope};
        kernels::project_reference(w_k, head, 1, c_.qk_nope, &q[h * row], c_.kv_lora, false);
        std::copy(head + c_.qk_nope, head + c_.qk_head(), &q[h * row + c_.kv_lora]);
        rotate(r, c_.rope_interleave, &q[h * row + c_.kv_lora]);
      }
      const std::vector<int>* keys = sparse ? &selection_.keys[r] : nullptr;
      kernels::mla_attention_reference(
          {.q = q.data(),
           .kv = cache_of_[r]->kv[layer].data(),
           .keys = keys != nullptr ? keys->data() : nullptr,
           .n_keys = keys != nullptr ? static_cast<int>(keys->size()) : position_of_[r] + 1,
           .n_heads = c_.n_heads,
           .kv_lora = c_.kv_lora,
           .rope = c_.qk_rope,
           .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c_.qk_head()))),
           .out = latent.data()});
      for (int h = 0; h < c_.n_heads; ++h)
        kernels::project_reference(l.value_up[h], &latent[static_cast<std::size_t>(h) * c_.kv_lora],
                                   1, c_.kv_lora, act(Act::kAttention, r) + h * c_.v_head,
                                   c_.v_head, false);
    });
  }

  void mlp(int layer) override { mlp_into_residual(m_.w.layers[layer].mlp); }

  void route(int layer) override {
    const LayerWeights& w = m_.w.layers[layer];
    const int k = c_.n_experts_per_token;
    Floats logits(static_cast<std::size_t>(n_) * c_.n_experts);
    matmul(w.router, act(Act::kNormed, 0), c_.hidden, logits.data(), c_.n_experts);
    routing_.expert.resize(static_cast<std::size_t>(n_) * k);
    routing_.weight.resize(routing_.expert.size());
    routing_.margin.resize(static_cast<std::size_t>(n_));
    for (int r = 0; r < n_; ++r)
      kernels::route_reference({.logits = &logits[static_cast<std::size_t>(r) * c_.n_experts],
                                .bias = m_.layers[layer].router_bias.data(),
                                .n_experts = c_.n_experts,
                                .top_k = k,
                                .normalise = c_.norm_topk_prob,
                                .scaling = c_.routed_scaling,
                                .expert = &routing_.expert[static_cast<std::size_t>(r) * k],
                                .weight = &routing_.weight[static_cast<std::size_t>(r) * k],
                                .margin = &routing_.margin[r]});
  }

  void moe(int layer) override {
    const LayerWeights& w = m_.w.layers[layer];
    const int k = c_.n_experts_per_token;
    std::vector<double> sum(static_cast<std::size_t>(n_) * c_.hidden, 0.0);
    for (int e = 0; e < c_.n_experts; ++e) {  // ascending, so that a row's sum has one order
      std::vector<int> slots;
      for (std::size_t s = 0; s < routing_.expert.size(); ++s)
        if (routing_.expert[s] == e) slots.push_back(static_cast<int>(s));
      if (slots.empty()) continue;
      Floats x(slots.size() * c_.hidden), y(x.size());
      for (std::size_t i = 0; i < slots.size(); ++i)
        std::copy_n(act(Act::kNormed, slots[i] / k), c_.hidden, &x[i * c_.hidden]);
      swiglu_mlp(w.experts[e], x.data(), static_cast<int>(slots.size()), y.data());
      for (std::size_t i = 0; i < slots.size(); ++i)
        for (int j = 0; j < c_.hidden; ++j)
          sum[static_cast<std::size_t>(slots[i] / k) * c_.hidden + j] +=
              static_cast<double>(routing_.weight[slots[i]]) *
              static_cast<double>(y[i * c_.hidden + j]);
    }
    for (std::size_t i = 0; i < sum.size(); ++i) {
      float& x = acts_[static_cast<int>(Act::kResidual)][i];
      x = static_cast<float>(static_cast<double>(x) + sum[i]);
    }
    mlp_into_residual(w.mlp);
  }

  void logits(std::span<const int> rows, std::span<float> out) override {
    CHECK(out.size() == rows.size() * c_.vocab) << out.size();
    Floats x(rows.size() * c_.hidden);
    for (std::size_t i = 0; i < rows.size(); ++i)
      std::copy_n(act(Act::kFinal, rows[i]), c_.hidden, &x[i * c_.hidden]);
    matmul(m_.w.lm_head, x.data(), c_.hidden, out.data(), c_.vocab, static_cast<int>(rows.size()));
  }

  void sample(std::span<const int> rows, std::span<const SampleRequest> requests,
              std::span<Sampled> out) override {
    sample_on_host(*this, c_.vocab, rows, requests, out);
  }
  void clear_residual() override {
    Floats& x = acts_[static_cast<int>(Act::kResidual)];
    std::fill(x.begin(), x.end(), 0.0f);
  }
  void sum_residual(Comm& comm) override {
    Floats& x = acts_[static_cast<int>(Act::kResidual)];
    comm.sum(x.data(), x.size(), nullptr);
  }
  void sample_of_ranks(Comm& comm, std::span<const int> vocab_cuts, std::span<const int> rows,
                       std::span<const SampleRequest> requests, std::span<Sampled> out) override {
    sample_of_ranks_on_host(*this, comm, vocab_cuts, rows, requests, out);
  }

  void end_step() override {
    for (const Segment& s : rows_.segments)
      static_cast<ReferenceCache*>(s.cache)->n = s.first_position + s.n_rows;
  }

  std::vector<float> read(Act a) const override { return acts_[static_cast<int>(a)]; }
  Routing read_routing() const override { return routing_; }
  Selection read_selection() const override { return selection_; }

 private:
  float* act(Act a, int row) {
    return acts_[static_cast<int>(a)].data() + static_cast<std::ptrdiff_t>(row) * act_width(a, c_);
  }

  void rotate(int row, bool interleaved, float* x) {
    const int half = c_.qk_rope / 2;
    kernels::rope_reference(&cosine_[row * half], &sine_[row * half], c_.qk_rope, interleaved, x);
  }

  // y (n, m.n_rows) = x (n, x_stride) mᵀ; threads share out output rows.
  void matmul(const Matrix& m, const float* x, int x_stride, float* y, int y_stride, int n = -1,
              bool accumulate = false) {
    const int n_tokens = n < 0 ? n_ : n;
    const auto by_rows = [&](const auto& w) {
      const int part = std::max(1, m.n_rows / (4 * pool_.n_threads()));
      pool_.parallel_for((m.n_rows + part - 1) / part, [&](int i) {
        const int first = i * part, count = std::min(part, m.n_rows - first);
        kernels::project_reference(rows_of(w, first, count), x, n_tokens, x_stride, y + first,
                                   y_stride, accumulate);
      });
    };
    if (m.is_dense()) by_rows(view(m));
    if (const auto* vq = std::get_if<kernels::VqMatrix>(&m.codes)) by_rows(*vq);
    if (const auto* scaled = std::get_if<kernels::ScaledMatrix>(&m.codes))
      pool_.parallel_for(n_tokens, [&](int t) {
        kernels::project_reference(*scaled, x + std::ptrdiff_t{t} * x_stride, 1, x_stride,
                                   y + std::ptrdiff_t{t} * y_stride, y_stride, accumulate);
      });
  }

  void project(int layer, Projection p, Act in, Act out, bool accumulate) {
    const LayerWeights& w = m_.w.layers[layer];
    const Matrix& matrix = p == Projection::kQueryA   ? w.q_a
                           : p == Projection::kQueryB ? w.q_b
                           : p == Projection::kKvA    ? w.kv_a
                                                      : w.o;
    matmul(matrix, act(in, 0), act_width(in, c_), act(out, 0), act_width(out, c_), n_, accumulate);
  }

  void swiglu_mlp(const MlpWeights& w, const float* x, int n, float* y) {
    const int width = w.gate.n_rows;
    Floats gate(static_cast<std::size_t>(n) * width), up(gate.size());
    matmul(w.gate, x, c_.hidden, gate.data(), width, n);
    matmul(w.up, x, c_.hidden, up.data(), width, n);
    kernels::swiglu_reference(gate.data(), up.data(), n * width, gate.data());
    matmul(w.down, gate.data(), width, y, c_.hidden, n);
  }

  void mlp_into_residual(const MlpWeights& w) {
    Floats y(static_cast<std::size_t>(n_) * c_.hidden);
    swiglu_mlp(w, act(Act::kNormed, 0), n_, y.data());
    Floats& x = acts_[static_cast<int>(Act::kResidual)];
    for (std::size_t i = 0; i < y.size(); ++i) x[i] += y[i];
  }

  const std::shared_ptr<const ReferenceModel> model_;
  const ReferenceModel& m_;
  const ModelConfig& c_;
  ThreadPool pool_;
  StepRows rows_;
  int n_ = 0;
  std::array<Floats, kNumActs> acts_;
  Floats cosine_, sine_;  // (n_rows, qk_rope / 2)
  std::vector<ReferenceCache*> cache_of_;
  std::vector<int> position_of_;
  Routing routing_;
  Selection selection_;
};

Result<std::unique_ptr<Backend>> ReferenceModel::new_executor(int n_threads,
                                                              const StepLimits&) const {
  return std::make_unique<ReferenceBackend>(shared_from_this(), n_threads);
}

}  // namespace

Result<std::shared_ptr<const BackendModel>> load_reference_model(const ModelConfig& config,
                                                                 const ModelWeights& weights,
                                                                 std::string_view kernel) {
  if (!kernel.empty() && kernel != "scalar")
    return fail("backend reference has no kernel '{}', expected 'scalar' (or none)", kernel);
  return std::make_shared<const ReferenceModel>(config, weights);
}

}  // namespace assay::engine
