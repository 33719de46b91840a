#include "engine/planted_fault.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "base/rng.h"
#include "engine/backend/backend.h"
#include "kernels/elementary.h"

namespace assay::engine {
namespace {

using Kind = PlantedFault::Kind;

// Counts what its owner believes; `inner` may hold fewer rows.
class FaultyCache final : public KvCache {
 public:
  explicit FaultyCache(std::unique_ptr<KvCache> inner) : inner_(std::move(inner)) {}

  int n_tokens() const override { return n_tokens_; }
  void truncate(int n) override {
    inner_->truncate(std::min(n, inner_->n_tokens()));
    n_tokens_ = n;
  }
  std::unique_ptr<KvCache> fork(int n_tokens) const override {
    auto copy = std::make_unique<FaultyCache>(inner_->fork(n_tokens));
    copy->n_tokens_ = n_tokens_;
    copy->n_lost_ = n_lost_;
    return copy;
  }
  std::size_t bytes() const override { return inner_->bytes(); }

  KvCache& inner() { return *inner_; }
  int n_lost() const { return n_lost_; }
  void lose_row() {
    inner_->truncate(inner_->n_tokens() - 1);
    ++n_lost_;
  }
  void set_n_tokens(int n) { n_tokens_ = n; }

 private:
  std::unique_ptr<KvCache> inner_;
  int n_tokens_ = 0, n_lost_ = 0;
};

class FaultyBackend final : public Backend {
 public:
  FaultyBackend(std::unique_ptr<Backend> inner, const PlantedFault& fault, int vocab)
      : inner_(std::move(inner)), fault_(fault), vocab_(vocab) {}

  std::unique_ptr<KvCache> new_cache(int n_tokens) override {
    return std::make_unique<FaultyCache>(inner_->new_cache(n_tokens));
  }
  CacheRoom cache_room() const override { return inner_->cache_room(); }
  StepCounts step_counts() const override { return inner_->step_counts(); }
  bool may_record() const override { return inner_->may_record(); }
  void begin_step(const StepRows& rows) override {
    rows_ = rows;
    StepRows shown = rows;
    for (Segment& s : shown.segments) {
      auto& cache = static_cast<FaultyCache&>(*s.cache);
      const bool due = fault_.kind == Kind::kLostRowEveryStep ||
                       (fault_.kind == Kind::kLostRowOnce && cache.n_lost() == 0);
      if (due && s.first_position >= fault_.from && cache.inner().n_tokens() > 0) cache.lose_row();
      s.cache = &cache.inner();
      s.first_position = cache.inner().n_tokens();
    }
    inner_->begin_step(shown);
  }
  void end_step() override {
    inner_->end_step();
    for (const Segment& s : rows_.segments)
      static_cast<FaultyCache&>(*s.cache).set_n_tokens(s.first_position + s.n_rows);
  }
  void logits(std::span<const int> rows, std::span<float> out) override {
    inner_->logits(rows, out);
    if (fault_.kind != Kind::kNanLogit || rows.empty()) return;
    const std::size_t vocab = out.size() / rows.size();
    for (std::size_t i = 0; i < rows.size(); ++i)
      for (const Segment& s : rows_.segments) {
        const int row = rows[i] - s.first_row;
        if (row >= 0 && row < s.n_rows && s.first_position + row >= fault_.from)
          out[i * vocab] = std::numeric_limits<float>::quiet_NaN();
      }
  }
  // A logit that is NaN is so on the host only.
  void sample(std::span<const int> rows, std::span<const SampleRequest> requests,
              std::span<Sampled> out) override {
    if (fault_.kind == Kind::kNanLogit)
      sample_on_host(*this, vocab_, rows, requests, out);
    else
      inner_->sample(rows, requests, out);
  }

  void embed() override { inner_->embed(); }
  void set_residual(std::span<const float> rows) override { inner_->set_residual(rows); }
  void rms_norm(int layer, Norm norm, Act in, Act out) override {
    inner_->rms_norm(layer, norm, in, out);
  }
  void project(int layer, Projection projection, Act in, Act out) override {
    inner_->project(layer, projection, in, out);
  }
  void project_add(int layer, Projection projection, Act in, Act out) override {
    inner_->project_add(layer, projection, in, out);
  }
  void append_kv(int layer) override { inner_->append_kv(layer); }
  void index(int layer) override { inner_->index(layer); }
  void mla_attention(int layer, bool sparse) override { inner_->mla_attention(layer, sparse); }
  void mlp(int layer) override { inner_->mlp(layer); }
  void route(int layer) override { inner_->route(layer); }
  void moe(int layer) override { inner_->moe(layer); }
  void clear_residual() override { inner_->clear_residual(); }
  void sum_residual(Comm& comm) override { inner_->sum_residual(comm); }
  void sample_of_ranks(Comm& comm, std::span<const int> vocab_cuts, std::span<const int> rows,
                       std::span<const SampleRequest> requests, std::span<Sampled> out) override {
    inner_->sample_of_ranks(comm, vocab_cuts, rows, requests, out);
  }
  std::vector<float> read(Act act) const override { return inner_->read(act); }
  Routing read_routing() const override { return inner_->read_routing(); }
  Selection read_selection() const override { return inner_->read_selection(); }

 private:
  std::unique_ptr<Backend> inner_;
  PlantedFault fault_;
  int vocab_;
  StepRows rows_;
};

class FaultyModel final : public BackendModel {
 public:
  FaultyModel(std::shared_ptr<const BackendModel> inner, const PlantedFault& fault, int vocab)
      : inner_(std::move(inner)), fault_(fault), vocab_(vocab) {}
  std::string_view backend() const override { return inner_->backend(); }
  std::string kernel() const override { return inner_->kernel(); }
  bool samples_on_device() const override {
    return inner_->samples_on_device() && fault_.kind != Kind::kNanLogit;
  }
  std::size_t weight_bytes() const override { return inner_->weight_bytes(); }
  Result<std::vector<DeviceRoof>> measure_roofs() const override { return inner_->measure_roofs(); }
  Result<MemoryPlan> plan(const MemoryNeeds& needs) const override { return inner_->plan(needs); }
  Result<std::unique_ptr<Backend>> new_executor(int n_threads,
                                                const StepLimits& limits) const override {
    ASSAY_TRY(auto inner, inner_->new_executor(n_threads, limits));
    return std::make_unique<FaultyBackend>(std::move(inner), fault_, vocab_);
  }
  Result<std::shared_ptr<const BackendModel>> with(const ModelConfig& config,
                                                   const ModelWeights& weights) const override {
    ASSAY_TRY(auto other, inner_->with(config, weights));
    return std::make_shared<const FaultyModel>(std::move(other), fault_, config.vocab);
  }

 private:
  std::shared_ptr<const BackendModel> inner_;
  PlantedFault fault_;
  int vocab_;
};

}  // namespace

std::string PlantedFault::text() const {
  switch (kind) {
    case Kind::kNone:
      return "";
    case Kind::kLostRowOnce:
      return fmt::format("lost_row_once from {}", from);
    case Kind::kLostRowEveryStep:
      return fmt::format("lost_row_every_step from {}", from);
    case Kind::kNanLogit:
      return fmt::format("nan_logit from {}", from);
    case Kind::kBiasedDraws:
      return fmt::format("biased_draws {}", strength);
    case Kind::kStuckDraws:
      return "stuck_draws";
    case Kind::kGreedyDraws:
      return "greedy_draws";
  }
  return "";
}

std::shared_ptr<const BackendModel> with_fault(std::shared_ptr<const BackendModel> model,
                                               const PlantedFault& fault, int vocab) {
  if (!fault.is_planted() || fault.is_of_draws()) return model;
  return std::make_shared<FaultyModel>(std::move(model), fault, vocab);
}

Sampled sample_with_fault(const PlantedFault& fault, std::span<const float> logits,
                          const SampleRequest& request) {
  SamplingParams used = request.params;
  SampleKey at = request.key;
  if (fault.kind == Kind::kGreedyDraws) used.temperature = 0;
  if (fault.kind == Kind::kStuckDraws) at.position = 0;
  double u = uniform_at(at.seed, at.stream, at.position);
  if (fault.kind == Kind::kBiasedDraws && u > 0)
    u = kernels::exp_f64((1 + fault.strength) * kernels::log_f64(u));
  Sampled out = sample_at(logits, request.history, used, u, request.n_top, request.watched);
  if (out.id >= 0 && request.params.temperature > 0)
    out.place = kernels::draw_place(logits, request.history, request.params, out.id);
  return out;
}

}  // namespace assay::engine
