#include "engine/engine.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "base/check.h"
#include "base/thread_pool.h"
#include "engine/backend/backend.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/inspect.h"
#include "engine/checkpoint/weights.h"
#include "engine/forward.h"
#include "engine/model.h"

namespace assay::engine {

struct Sequence::Impl {
  std::unique_ptr<KvCache> cache;
  std::vector<int> pending;
  bool keep_all = false;
  std::optional<SampleRequest> request;
  int vocab = 0;
  std::vector<float> logits;  // (n_logit_rows, vocab)
  std::optional<Sampled> sampled;
};

Sequence::Sequence(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Sequence::~Sequence() = default;
Sequence::Sequence(Sequence&&) noexcept = default;
Sequence& Sequence::operator=(Sequence&&) noexcept = default;

void Sequence::feed(std::span<const int> tokens) {
  impl_->pending.insert(impl_->pending.end(), tokens.begin(), tokens.end());
}
void Sequence::keep_all_logits(bool keep) { impl_->keep_all = keep; }
void Sequence::ask(const SampleRequest& request) {
  CHECK(request.n_top <= kernels::kMaxTop &&
        request.watched.size() <= static_cast<std::size_t>(kernels::kMaxWatched))
      << request.n_top << " and " << request.watched.size();
  impl_->request = request;
}
int Sequence::n_tokens() const { return impl_->cache->n_tokens(); }
int Sequence::n_pending() const { return static_cast<int>(impl_->pending.size()); }
std::span<const float> Sequence::logits() const { return impl_->logits; }
const std::optional<Sampled>& Sequence::sampled() const { return impl_->sampled; }
int Sequence::n_logit_rows() const { return static_cast<int>(impl_->logits.size()) / impl_->vocab; }

Sequence Sequence::fork(int n_tokens) const {
  auto copy = std::make_unique<Impl>();
  copy->cache = impl_->cache->fork(n_tokens);
  copy->pending = impl_->pending;
  copy->keep_all = impl_->keep_all;
  copy->request = impl_->request;
  copy->vocab = impl_->vocab;
  copy->logits = impl_->logits;
  copy->sampled = impl_->sampled;
  return Sequence(std::move(copy));
}

// Steps of engines that are gone, of all that were shared from one. From any thread.
class StepTally {
 public:
  void add(const StepCounts& counts) {
    const std::lock_guard lock(mutex_);
    total_ += counts;
  }
  StepCounts total() const {
    const std::lock_guard lock(mutex_);
    return total_;
  }

 private:
  mutable std::mutex mutex_;
  StepCounts total_;
};

struct Engine::Impl {
  ~Impl() {
    if (backend) tally->add(backend->step_counts());
  }

  // What one forward pass advances.
  struct Pass {
    struct Part {
      Sequence::Impl* sequence;
      int n_rows, n_logits;
      bool samples;
    };

    bool has_room(const StepLimits& limits, int n_rows) const {
      return std::cmp_less(parts.size(), limits.n_sequences) &&
             rows.n_rows() <= limits.n_rows - n_rows;
    }
    void add(Sequence::Impl& q, int n_rows);
    void hand_out(const std::vector<float>& logits, std::vector<Sampled> sampled);

    StepRows rows;
    std::vector<int> logit_rows, sample_rows;
    std::vector<SampleRequest> requests;
    std::vector<Part> parts;
  };

  void run(Pass& pass, Observer* observer);

  std::shared_ptr<const LoadedModel> model;
  std::unique_ptr<Backend> backend;
  EngineInfo info;
  bool sparse = false;
  std::shared_ptr<StepTally> tally = std::make_shared<StepTally>();
};

// The next n_rows of its pending tokens.
void Engine::Impl::Pass::add(Sequence::Impl& q, int n_rows) {
  rows.segments.push_back({.cache = q.cache.get(),
                           .first_row = rows.n_rows(),
                           .n_rows = n_rows,
                           .first_position = q.cache->n_tokens()});
  rows.tokens.insert(rows.tokens.end(), q.pending.begin(), q.pending.begin() + n_rows);
  const bool finished = n_rows == static_cast<int>(q.pending.size());
  const bool samples = finished && q.request.has_value();
  const int n_logits = q.keep_all ? n_rows : finished && !samples ? 1 : 0;
  for (int i = rows.n_rows() - n_logits; i < rows.n_rows(); ++i) logit_rows.push_back(i);
  if (samples) {
    sample_rows.push_back(rows.n_rows() - 1);
    requests.push_back(*q.request);
  }
  parts.push_back({&q, n_rows, n_logits, samples});
}

void Engine::Impl::Pass::hand_out(const std::vector<float>& logits, std::vector<Sampled> sampled) {
  auto at = logits.begin();
  auto next_sample = sampled.begin();
  for (const Part& part : parts) {
    Sequence::Impl& q = *part.sequence;
    q.pending.erase(q.pending.begin(), q.pending.begin() + part.n_rows);
    const auto end = at + static_cast<std::ptrdiff_t>(part.n_logits) * q.vocab;
    q.logits.assign(at, end);
    at = end;
    if (!part.samples) continue;
    q.request.reset();
    q.sampled = std::move(*next_sample++);
  }
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

Result<Engine> Engine::load(const std::filesystem::path& model_dir, const EngineOptions& options) {
  if (options.prefill_chunk < 1)
    return fail("prefill chunk is {}, expected at least 1 token", options.prefill_chunk);
  if (options.n_threads < 0)
    return fail("number of threads is {}, expected 0 (every core) or more", options.n_threads);
  if (options.tensor_parallel < 1)
    return fail("tensor parallel size is {}, expected at least 1 (--tp)", options.tensor_parallel);
  if (options.context < 0)
    return fail("context is {} tokens, expected 0 (the model's positions) or more (--context)",
                options.context);
  CHECK(options.n_engines > 0 && options.n_contexts > 0)
      << options.n_engines << ", " << options.n_contexts;
  ASSAY_TRY(auto model, load_model(model_dir, options));
  return over(std::move(model), options);
}

Result<Engine> Engine::over(std::shared_ptr<const LoadedModel> model,
                            const EngineOptions& options) {
  const ModelConfig& config = model->config;
  const bool has_indexer = config.index_topk > 0;
  if (options.attention == Attention::kSparse && !has_indexer)
    return fail(
        "{}: sparse attention was asked for, but config.json has no index_topk: this model has no "
        "indexer. "
        "Use dense or auto.",
        model->info.model_dir);

  auto impl = std::make_unique<Impl>();
  impl->sparse = has_indexer && options.attention != Attention::kDense;
  impl->info = model->info;
  if (options.context > 0) impl->info.max_positions = options.context;
  ASSAY_TRY(impl->info.memory, model->backend->plan({.n_executors = options.n_engines,
                                                     .n_contexts = options.n_contexts,
                                                     .prefill_chunk = options.prefill_chunk,
                                                     .n_positions = impl->info.max_positions,
                                                     .sparse = impl->sparse,
                                                     .graph_bytes = options.graph_bytes}));
  ASSAY_TRY(impl->backend,
            model->backend->new_executor(options.n_threads, impl->info.memory.limits));
  impl->info.attention = impl->sparse ? "sparse" : "dense";
  impl->info.n_threads = options.n_threads > 0 ? options.n_threads : n_usable_cores();
  impl->info.prefill_chunk = options.prefill_chunk;
  impl->info.planted_fault = options.planted_fault;
  impl->model = std::move(model);
  return Engine(std::move(impl));
}

Result<Engine> Engine::share(int n_threads) const {
  auto impl = std::make_unique<Impl>();
  impl->model = impl_->model;
  impl->info = impl_->info;
  ASSAY_TRY(impl->backend,
            impl_->model->backend->new_executor(n_threads, impl->info.memory.limits));
  impl->info.n_threads = n_threads > 0 ? n_threads : n_usable_cores();
  impl->sparse = impl_->sparse;
  impl->tally = impl_->tally;
  return Engine(std::move(impl));
}

const EngineInfo& Engine::info() const { return impl_->info; }
const text::Tokenizer& Engine::tokenizer() const { return impl_->model->tokenizer; }
const text::ChatTemplate& Engine::chat_template() const { return impl_->model->chat_template; }

Sequence Engine::new_sequence(int n_tokens) const {
  auto sequence = std::make_unique<Sequence::Impl>();
  sequence->cache = impl_->backend->new_cache(n_tokens > 0 ? n_tokens : impl_->info.max_positions);
  sequence->vocab = impl_->info.vocab;
  return Sequence(std::move(sequence));
}

CacheRoom Engine::cache_room() const { return impl_->backend->cache_room(); }
Result<std::vector<DeviceRoof>> Engine::measure_roofs() const {
  return impl_->model->backend->measure_roofs();
}
StepCounts Engine::step_counts() const { return impl_->backend->step_counts(); }
StepCounts Engine::all_step_counts() const {
  StepCounts all = impl_->tally->total();
  all += step_counts();
  return all;
}

void Engine::step(std::span<Sequence* const> batch, Observer* observer) {
  const int chunk = impl_->info.prefill_chunk;
  Impl::Pass pass;
  for (Sequence* s : batch) {
    Sequence::Impl& q = *s->impl_;
    q.logits.clear();
    q.sampled.reset();
    // Chunks end at absolute multiples of the chunk size, so that how a prompt was fed does not
    // move them.
    const int position = q.cache->n_tokens();
    const int n = std::min(chunk - position % chunk, static_cast<int>(q.pending.size()));
    if (n == 0) continue;
    CHECK(position + n <= impl_->info.max_positions)
        << position << " + " << n << " > " << impl_->info.max_positions;
    if (!pass.has_room(impl_->info.memory.limits, n)) {
      impl_->run(pass, observer);
      pass = {};
    }
    pass.add(q, n);
  }
  impl_->run(pass, observer);
}

void Engine::Impl::run(Pass& pass, Observer* observer) {
  if (pass.parts.empty()) return;
  pass.rows.may_replay = observer == nullptr;
  pass.rows.may_record = backend->may_record();
  std::vector<float> logits(pass.logit_rows.size() * static_cast<std::size_t>(info.vocab));
  std::vector<Sampled> sampled(pass.sample_rows.size());
  forward(*backend, model->config, pass.rows, sparse,
          {.logit_rows = pass.logit_rows,
           .logits = logits,
           .sample_rows = pass.sample_rows,
           .requests = pass.requests,
           .sampled = sampled},
          observer);
  pass.hand_out(logits, std::move(sampled));
}

double EngineInfo::prefill_fma(int first, int n) const {
  double total = static_cast<double>(fma_per_token) * n + static_cast<double>(fma_lm_head);
  for (int p = first; p < first + n; ++p) {
    const bool chooses = attention == "sparse" && p + 1 > index_topk;
    total += static_cast<double>(fma_per_key) * (chooses ? index_topk : p + 1);
    if (chooses) total += static_cast<double>(fma_per_index_key) * (p + 1);
  }
  return total;
}

double EngineInfo::cache_bytes(const TokenBytes& of, int n_keys) const {
  const bool chooses = attention == "sparse" && n_keys > index_topk;
  return static_cast<double>(of.per_key * (chooses ? index_topk : n_keys) +
                             (chooses ? of.per_index_key * n_keys : 0));
}

double EngineInfo::decode_bytes(const TokenBytes& of, int n_keys) const {
  const bool chooses = attention == "sparse" && n_keys > index_topk;
  return static_cast<double>(of.weights + (chooses ? of.index_weights : 0)) +
         cache_bytes(of, n_keys);
}

Json EngineInfo::to_json() const {
  Json json = {{"model_dir", model_dir},
               {"model_type", model_type},
               {"fingerprint", fingerprint},
               {"backend", backend},
               {"kernel", kernel},
               {"attention", attention},
               {"sampling", samples_on_device ? "device" : "host"},
               {"n_threads", n_threads},
               {"tensor_parallel", tensor_parallel},
               {"vocab", vocab},
               {"max_positions", max_positions},
               {"prefill_chunk", prefill_chunk},
               {"n_parameters", n_parameters},
               {"n_active_parameters", n_active_parameters},
               {"active_bytes", active_bytes},
               {"routed_bytes", routed_bytes},
               {"stop_ids", stop_ids},
               {"recommended_sampling",
                {{"temperature", recommended.temperature},
                 {"top_p", recommended.top_p},
                 {"top_k", recommended.top_k}}}};
  if (memory.is_planned())
    json["memory"] = {{"n_engines", memory.n_executors},
                      {"weight_bytes", memory.weight_bytes},
                      {"scratch_bytes", memory.scratch_bytes},
                      {"cache_bytes", memory.cache_bytes},
                      {"cache_tokens", memory.limits.cache_tokens}};
  if (!synthetic.empty()) json["synthetic"] = synthetic;
  if (!misspelt.empty()) json["misspelt"] = misspelt;
  if (planted_fault.is_planted()) json["planted_fault"] = planted_fault.text();
  return json;
}

}  // namespace assay::engine
