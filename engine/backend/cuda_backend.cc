// The model on one GPU, in float32 activations straight from the codes: kernels of kernels/*_cuda.h
// on a stream of the executor's own. Asked for, rows of prompt chunks are rounded to bfloat16 where
// they meet a matrix, for tensor cores, and attention takes halves; router and index weights, which
// choose, stay in float32. Launches of one step follow each other without a look at their values;
// only tokens, positions and cache addresses go up, in one copy, only samples come down, or logits.
#include "engine/backend/cuda_backend.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/check.h"
#include "engine/backend/cuda_cache.h"
#include "engine/backend/cuda_scratch.h"
#include "engine/backend/logit_places.h"
#include "engine/comm/comm.h"
#include "kernels/indexer_cuda.h"
#include "kernels/layer_cuda.h"
#include "kernels/mla_attention_cuda.h"
#include "kernels/project_cuda.h"

namespace assay::engine {
namespace {

using kernels::CudaStream;

class CudaBackend final : public CudaExecutor {
 public:
  CudaBackend(std::shared_ptr<const CudaModel> model, const StepLimits& limits)
      : model_(std::move(model)),
        m_(*model_),
        c_(m_.c),
        limits_(limits),
        budget_(kernels::DeviceBudget::Mode::kAllocate),
        s_(m_, limits_, stream_.get(), budget_),
        caches_(std::make_shared<CudaCachePool>(c_, limits_.cache_tokens, budget_)) {}

  std::unique_ptr<KvCache> new_cache(int n_tokens) override { return caches_->new_cache(n_tokens); }
  CacheRoom cache_room() const override { return caches_->room(); }
  StepCounts step_counts() const override {
    return {.n_direct = n_steps_, .n_logit_rows = n_logit_rows_};
  }

  void begin_step(const StepRows& rows) override {
    ++n_steps_;
    attention_input_of_ = -1;
    logit_places_.clear();
    rows_ = rows;
    n_ = rows.n_rows();
    int n_keys = 0;
    for (const Segment& s : rows_.segments) n_keys = std::max(n_keys, s.first_position + s.n_rows);
    max_keys_ = CudaScratch::bucket(n_keys);
    CHECK(n_ <= limits_.n_rows && max_keys_ <= s_.max_keys &&
          std::cmp_less_equal(rows_.segments.size(), limits_.n_sequences))
        << n_ << " rows of " << rows_.segments.size() << " sequences, " << n_keys << " keys";
    const std::vector<int> runs = runs_of(rows_.segments, kernels::mla_rows_of_run(c_.n_heads),
                                          kernels::mla_run_limit(c_.n_heads));
    n_runs_ = static_cast<int>(runs.size()) - 1;
    const std::vector<int> index_runs = cut_index_passes(
        runs_of(rows_.segments, kernels::index_rows_of_run(std::max(1, c_.index_n_heads))));
    s_.products.begin_step(rows_.segments);

    const auto n = static_cast<std::size_t>(n_), half = static_cast<std::size_t>(c_.qk_rope / 2),
               n_tables = n * static_cast<std::size_t>(c_.n_layers);
    s_.upload.clear();
    const auto kv = s_.upload.add(n_tables, kv_);
    const auto index = s_.upload.add(n_tables, index_cache_);
    const auto cosine = s_.upload.add(n * half, cosine_), sine = s_.upload.add(n * half, sine_);
    const auto position = s_.upload.add(n, position_), tokens = s_.upload.add(n, tokens_);
    const auto run = s_.upload.add(runs.size(), run_);
    const auto index_run = s_.upload.add(index_runs.size(), index_run_);
    std::copy(runs.begin(), runs.end(), run.begin());
    std::copy(index_runs.begin(), index_runs.end(), index_run.begin());
    std::copy(rows_.tokens.begin(), rows_.tokens.end(), tokens.begin());
    for (const Segment& s : rows_.segments) {
      const auto* cache = static_cast<const CudaCache*>(s.cache);
      CHECK(s.first_position + s.n_rows <= cache->capacity())
          << s.first_position << " + " << s.n_rows << " > " << cache->capacity();
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
    s_.upload.send(stream());
  }

  CudaStepShape step_shape() const override { return {n_, max_keys_}; }
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
    if (out == Act::kNormed) attention_input_of_ = -1;
    kernels::rms_norm_cuda(act(in), width, weight, eps, width, n_, act(out), width, stream());
  }

  // What multiplies a layer's normed input is one piece of work, by whichever comes first.
  void project(int layer, Projection p, Act in, Act out) override {
    const bool makes_latents = (p == Projection::kQueryA && out == Act::kQueryLora) ||
                               (p == Projection::kKvA && out == Act::kKvLora);
    if (makes_latents && in == Act::kNormed)
      project_attention_input(layer);
    else
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
    CHECK(indexes(layer)) << layer;
    project_attention_input(layer);
    kernels::append_index_cuda({.in = s_.index_k.data(),
                                .norm_weight = l.index_norm_weight,
                                .norm_bias = l.index_norm_bias,
                                .eps = ModelConfig::kIndexerLayerNormEps,
                                .dim = dim,
                                .n_rows = n_,
                                .cache = of_layer(index_cache_, layer),
                                .position = position_},
                               rope(c_.indexer_rope_interleave), stream());
    if (max_keys_ > c_.index_topk) {
      s_.products.multiply(l.index_q, act(Act::kQueryResid), s_.index_q.data(), false);
      kernels::rope_cuda(rope(c_.indexer_rope_interleave), {s_.index_q.data(), heads * dim, dim},
                         {s_.index_q.data(), heads * dim, dim}, heads, n_, stream());
    }
    for (const IndexPass& pass : index_passes_) {
      const auto of = [&](int width) { return static_cast<std::ptrdiff_t>(pass.first) * width; };
      kernels::index_cuda({.q = s_.index_q.data() + of(heads * dim),
                           .weights = s_.index_weights.data() + of(heads),
                           .cache = of_layer(index_cache_, layer) + pass.first,
                           .position = position_ + pass.first,
                           .run = index_run_ + pass.first_run,
                           .n_runs = pass.n_runs,
                           .n_rows = pass.n_rows,
                           .n_heads = heads,
                           .dim = dim,
                           .top_k = c_.index_topk,
                           .max_keys = max_keys_,
                           .scores = s_.scores.data(),
                           .keys = s_.selected.data() + of(c_.index_topk),
                           .n_keys = s_.n_selected.data() + pass.first,
                           .margin = s_.selection_margin.data() + pass.first},
                          stream());
    }
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
                                 .y = s_.absorbed.data(),
                                 .y_token_stride = heads * row,
                                 .y_head_stride = row,
                                 .n_tokens = n_},
                                stream());
    kernels::rope_cuda(rope(c_.rope_interleave),
                       {act(Act::kQuery) + c_.qk_nope, heads * c_.qk_head(), c_.qk_head()},
                       {s_.absorbed.data() + c_.kv_lora, heads * row, row}, heads, n_, stream());
    const std::size_t n_parts = attention_parts(sparse);
    CHECK(n_parts <= s_.attention_parts.size()) << n_parts;
    // A run's rows see the same keys; chosen keys are each row's own.
    const bool shares_keys = !sparse && n_runs_ < n_;
    kernels::mla_attention_cuda(
        {.q = s_.absorbed.data(),
         .cache = of_layer(kv_, layer),
         .position = position_,
         .keys = sparse ? s_.selected.data() : nullptr,
         .n_keys = sparse ? s_.n_selected.data() : nullptr,
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
         .parts = n_parts > 0 ? s_.attention_parts.data() : nullptr,
         .out = s_.latent.data()},
        stream());
    kernels::project_heads_cuda({.w = l.value_up,
                                 .n_heads = heads,
                                 .n_rows = c_.v_head,
                                 .n_cols = c_.kv_lora,
                                 .x = s_.latent.data(),
                                 .x_token_stride = heads * c_.kv_lora,
                                 .x_head_stride = c_.kv_lora,
                                 .y = act(Act::kAttention),
                                 .y_token_stride = heads * c_.v_head,
                                 .y_head_stride = c_.v_head,
                                 .n_tokens = n_},
                                stream());
  }

  void mlp(int layer) override {
    s_.products.mlp(m_.layers[static_cast<std::size_t>(layer)].mlp, act(Act::kNormed),
                    act(Act::kResidual), true);
  }

  void route(int layer) override {
    s_.products.route(m_.layers[static_cast<std::size_t>(layer)], act(Act::kNormed), choice());
  }

  void moe(int layer) override {
    s_.products.moe(m_.layers[static_cast<std::size_t>(layer)], act(Act::kNormed), choice(),
                    act(Act::kResidual));
  }

  void logits(std::span<const int> rows, std::span<float> out) override {
    const auto vocab = static_cast<std::size_t>(c_.vocab);
    CHECK(out.size() == rows.size() * vocab) << out.size();
    if (rows.empty()) {
      // Scratch of sums is all ranks' executors': the next must not find this step's in use.
      if (is_rank_) kernels::synchronise(stream());
      return;
    }
    const auto at_a_time = static_cast<std::size_t>(limits_.n_sequences);
    for (std::size_t i = 0; i < rows.size(); i += at_a_time) {
      const std::size_t n = std::min(at_a_time, rows.size() - i);
      copy_rows(project_logits(rows.subspan(i, n)), out.subspan(i * vocab, n * vocab));
    }
  }

  void sample(std::span<const int> rows, std::span<const SampleRequest> requests,
              std::span<Sampled> out) override {
    CHECK(!rows.empty() && rows.size() == requests.size() && rows.size() == out.size())
        << rows.size() << " rows, " << requests.size() << " requests, room for " << out.size();
    const std::vector<int> places = project_logits(rows);
    sample_from(s_.logits, places, requests, out);
  }
  void clear_residual() override {
    kernels::clear_cuda(act(Act::kResidual), residual_size(), stream());
  }
  void sum_residual(Comm& comm) override {
    is_rank_ = true;
    comm.sum(act(Act::kResidual), residual_size(), stream());
  }
  void sample_of_ranks(Comm& comm, std::span<const int> vocab_cuts, std::span<const int> rows,
                       std::span<const SampleRequest> requests, std::span<Sampled> out) override {
    std::vector<const float*> parts;
    for (const int place : project_logits(rows)) parts.push_back(logits_at(place));
    comm.gather(parts, vocab_cuts, s_.gathered_logits.data(), stream());
    if (comm.rank() == 0)
      sample_from(s_.gathered_logits, {}, requests, out);
    else
      kernels::synchronise(stream());  // as logits of none
  }

  // Between steps nothing computes: caches may be copied, and move.
  void end_step() override {
    kernels::synchronise(stream());
    for (const Segment& s : rows_.segments)
      static_cast<CudaCache*>(s.cache)->set_n_tokens(s.first_position + s.n_rows);
  }

  std::vector<float> read(Act a) const override {
    return s_.acts[static_cast<std::size_t>(a)].host(
        static_cast<std::size_t>(n_) * static_cast<std::size_t>(act_width(a, c_)), stream());
  }
  Routing read_routing() const override {
    const auto n = static_cast<std::size_t>(n_),
               k = static_cast<std::size_t>(c_.n_experts_per_token);
    return {s_.expert.host(n * k, stream()), s_.expert_weight.host(n * k, stream()),
            s_.routing_margin.host(n, stream())};
  }
  Selection read_selection() const override {
    const auto n = static_cast<std::size_t>(n_), k = static_cast<std::size_t>(c_.index_topk);
    const std::vector<int> keys = s_.selected.host(n * k, stream()),
                           n_keys = s_.n_selected.host(n, stream());
    Selection out;
    out.margin = s_.selection_margin.host(n, stream());
    for (std::size_t r = 0; r < n; ++r) {
      const auto first = keys.begin() + static_cast<std::ptrdiff_t>(r * k);
      out.keys.emplace_back(first, first + n_keys[r]);
    }
    return out;
  }

 private:
  // Where the logits of kFinal's `rows` lie: those that this step has not made yet are made.
  std::vector<int> project_logits(std::span<const int> rows) {
    std::vector<LogitPlaces::Missing> missing;
    std::vector<int> places = logit_places_.put(rows, missing);
    for (const LogitPlaces::Missing& m : missing) {
      kernels::project_cuda(m_.lm_head,
                            act(Act::kFinal) + static_cast<std::ptrdiff_t>(m.row) * c_.hidden,
                            c_.hidden, m.n, logits_at(m.place), c_.vocab, false, stream());
      n_logit_rows_ += m.n;
    }
    return places;
  }
  // From logits of `places`; none: one row behind the other.
  void sample_from(const kernels::DeviceArray<float>& logits, std::span<const int> places,
                   std::span<const SampleRequest> requests, std::span<Sampled> out) {
    s_.sampler->prepare(requests, places, stream());
    s_.sampler->launch(logits.data(), stream());
    kernels::synchronise(stream());
    s_.sampler->collect(out);
  }
  // Places that follow each other are one copy.
  void copy_rows(std::span<const int> places, std::span<float> out) {
    const auto vocab = static_cast<std::size_t>(c_.vocab);
    for (std::size_t i = 0, n = 0; i < places.size(); i += n) {
      for (n = 1; i + n < places.size() && places[i + n] == places[i] + static_cast<int>(n);) ++n;
      kernels::copy_to_host(out.data() + i * vocab, logits_at(places[i]), n * vocab * sizeof(float),
                            stream());
    }
  }
  float* logits_at(int place) const {
    return s_.logits.data() + static_cast<std::ptrdiff_t>(place) * c_.vocab;
  }

  CudaProducts::Choice choice() const {
    return {s_.router_logits.data(), s_.expert.data(), s_.expert_weight.data(),
            s_.routing_margin.data()};
  }
  std::size_t residual_size() const {
    return static_cast<std::size_t>(n_) * static_cast<std::size_t>(c_.hidden);
  }
  float* act(Act a) const { return s_.acts[static_cast<std::size_t>(a)].data(); }
  kernels::RopeCuda rope(bool interleaved) const {
    return {cosine_, sine_, c_.qk_rope, interleaved};
  }
  template <class T>
  T* const* of_layer(T* const* table, int layer) const {
    return table + static_cast<std::ptrdiff_t>(layer) * n_;
  }

  // Of these segments, as MlaAttentionCuda::run and IndexCuda::run have them: with positions from
  // one side of a multiple of `limit` each.
  std::vector<int> runs_of(std::span<const Segment> segments, int rows_of_run,
                           int limit = std::numeric_limits<int>::max()) const {
    std::vector<int> first_rows;
    for (const Segment& s : segments)
      for (int i = 0; i < s.n_rows;) {
        first_rows.push_back(s.first_row + i);
        i += std::min(rows_of_run, limit - (s.first_position + i) % limit);
      }
    first_rows.push_back(n_);
    return first_rows;
  }
  // Rows that are scored at a time, as many as there is room for: of a decode step all.
  struct IndexPass {
    int first, n_rows;      // rows
    int first_run, n_runs;  // where its own lie in index_run_
  };
  // The runs of every pass, counted from its own first row.
  std::vector<int> cut_index_passes(std::span<const int> runs) {
    std::vector<int> of_passes;
    index_passes_.clear();
    for (std::size_t i = 0; i + 1 < runs.size(); ++i) {
      if (index_passes_.empty() || runs[i + 1] - index_passes_.back().first > s_.score_rows) {
        index_passes_.push_back({runs[i], 0, static_cast<int>(of_passes.size()), 0});
        of_passes.push_back(0);
      }
      IndexPass& pass = index_passes_.back();
      pass.n_rows = runs[i + 1] - pass.first;
      ++pass.n_runs;
      of_passes.push_back(pass.n_rows);
    }
    return of_passes;
  }
  int attended_keys(bool sparse) const {
    return sparse ? std::min(max_keys_, c_.index_topk) : max_keys_;
  }
  std::size_t attention_parts(bool sparse) const {
    return kernels::mla_parts(n_, sparse ? n_ : n_runs_, c_.n_heads, c_.kv_lora, c_.qk_rope,
                              attended_keys(sparse));
  }

  bool indexes(int layer) const {
    return limits_.sparse && c_.indexer_full[static_cast<std::size_t>(layer)];
  }
  // kNormed → kQueryLora and kKvLora, and what the index makes of it, unless they are there.
  void project_attention_input(int layer) {
    if (attention_input_of_ == layer) return;
    attention_input_of_ = layer;
    const CudaLayer& l = m_.layers[static_cast<std::size_t>(layer)];
    std::vector<CudaProducts::Product> products = {{&l.q_a, act(Act::kQueryLora)},
                                                   {&l.kv_a, act(Act::kKvLora)}};
    if (indexes(layer)) products.push_back({&l.index_k, s_.index_k.data()});
    if (indexes(layer) && max_keys_ > c_.index_topk)
      products.push_back({&l.index_weights, s_.index_weights.data(), true});
    s_.products.multiply(products, act(Act::kNormed));
  }
  void project(int layer, Projection p, Act in, Act out, bool accumulate) {
    const CudaLayer& l = m_.layers[static_cast<std::size_t>(layer)];
    const DeviceMatrix& matrix = p == Projection::kQueryA   ? l.q_a
                                 : p == Projection::kQueryB ? l.q_b
                                 : p == Projection::kKvA    ? l.kv_a
                                                            : l.o;
    s_.products.multiply(matrix, act(in), act(out), accumulate);
  }

  const std::shared_ptr<const CudaModel> model_;
  const CudaModel& m_;
  const ModelConfig& c_;
  const StepLimits limits_;
  kernels::CudaStreamOwner stream_;
  kernels::DeviceBudget budget_;
  CudaScratch s_;
  const std::shared_ptr<CudaCachePool> caches_;
  StepRows rows_;
  std::int64_t n_steps_ = 0, n_logit_rows_ = 0;
  LogitPlaces logit_places_{limits_.n_sequences};
  int n_ = 0, n_runs_ = 0, max_keys_ = 0;
  std::vector<IndexPass> index_passes_;
  int attention_input_of_ = -1;  // the layer whose products of kNormed are there
  bool is_rank_ = false;         // of several
  // On the device, of what a step uploads.
  std::uint16_t* const* kv_ = nullptr;                 // (n_layers, n_rows)
  float* const* index_cache_ = nullptr;                // (n_layers, n_rows)
  const float *cosine_ = nullptr, *sine_ = nullptr;    // (n_rows, qk_rope / 2)
  const int *position_ = nullptr, *tokens_ = nullptr;  // (n_rows)
  const int *run_ = nullptr, *index_run_ = nullptr;    // (n_runs + 1), and of each pass
  // Last: made when all memory is taken, and gone before any of it is given back.
  const MemoryPromise::Kept kept_{m_.promise};
};

}  // namespace

std::unique_ptr<CudaExecutor> new_cuda_executor(std::shared_ptr<const CudaModel> model,
                                                const StepLimits& limits) {
  return std::make_unique<CudaBackend>(std::move(model), limits);
}

}  // namespace assay::engine
