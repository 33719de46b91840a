#include "engine/backend/tensor_parallel.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/thread_pool.h"

namespace assay::engine {
namespace {

// Every rank caches the same latents: they are of all heads.
class ShardedCache final : public KvCache {
 public:
  // `room`: of the executor, which is kept as every rank's own is.
  ShardedCache(std::shared_ptr<Ranks> ranks, std::shared_ptr<CacheRoom> room, Command making,
               int n_tokens)
      : for_tokens_(making.n),
        room_(std::move(room)),
        on_ranks_(std::move(ranks), std::move(making)),
        n_tokens_(n_tokens) {
    if (room_->n_tokens != kUnlimited) room_->n_free -= taken();
  }
  ~ShardedCache() override {
    if (room_->n_tokens != kUnlimited) room_->n_free += taken();
  }
  ShardedCache(const ShardedCache&) = delete;
  ShardedCache& operator=(const ShardedCache&) = delete;

  int n_tokens() const override { return n_tokens_; }
  void truncate(int n_tokens) override {
    on_ranks_.ranks()->run({.kind = Command::Kind::kTruncate, .id = on_ranks_.id(), .n = n_tokens});
    n_tokens_ = n_tokens;
  }
  std::unique_ptr<KvCache> fork(int n_tokens) const override {
    return std::make_unique<ShardedCache>(on_ranks_.ranks(), room_,
                                          Command{.kind = Command::Kind::kFork,
                                                  .of = on_ranks_.id(),
                                                  .n = n_tokens > 0 ? n_tokens : for_tokens_},
                                          n_tokens_);
  }
  std::size_t bytes() const override {
    std::int64_t total = 0;
    for (const Reply& r :
         on_ranks_.ranks()->run({.kind = Command::Kind::kCountBytes, .id = on_ranks_.id()}))
      total += r.n_bytes;
    return static_cast<std::size_t>(total);
  }
  int id() const { return on_ranks_.id(); }
  void set_n_tokens(int n_tokens) { n_tokens_ = n_tokens; }

 private:
  int taken() const { return static_cast<int>(room_->taken_by(for_tokens_)); }

  const int for_tokens_;
  const std::shared_ptr<CacheRoom> room_;
  const OfRanks on_ranks_;
  int n_tokens_;  // as every rank's
};

// Of a model: what its ranks said when they had loaded it.
struct Loaded {
  std::string kernel;
  std::int64_t weight_bytes = 0;
  bool samples_on_device = false;  // rank 0
};

class TensorParallelModel final : public BackendModel,
                                  public std::enable_shared_from_this<TensorParallelModel> {
 public:
  // `id`: what the ranks have it under.
  TensorParallelModel(const RankKind& kind, std::shared_ptr<Ranks> ranks, int id,
                      const ModelConfig& config, std::vector<int> vocab_cuts,
                      std::string_view kernel, Loaded loaded)
      : kind_(kind),
        config_(config),
        vocab_cuts_(std::move(vocab_cuts)),
        kernel_(kernel),
        loaded_(std::move(loaded)),
        on_ranks_(std::move(ranks), id) {}

  static Result<std::shared_ptr<const BackendModel>> load(const RankKind& kind,
                                                          const std::shared_ptr<Ranks>& ranks,
                                                          const ModelConfig& config,
                                                          const Sharding& sharding,
                                                          const ShardSource& source);

  std::string_view backend() const override { return kind_.name; }
  std::string kernel() const override { return loaded_.kernel; }
  std::size_t weight_bytes() const override {
    return static_cast<std::size_t>(loaded_.weight_bytes);
  }
  bool samples_on_device() const override { return loaded_.samples_on_device; }
  Result<std::vector<DeviceRoof>> measure_roofs() const override;
  Result<MemoryPlan> plan(const MemoryNeeds& needs) const override;
  Result<std::unique_ptr<Backend>> new_executor(int n_threads,
                                                const StepLimits& limits) const override;
  // Laid out anew as a whole: the parts of what both have are not kept.
  Result<std::shared_ptr<const BackendModel>> with(const ModelConfig& config,
                                                   const ModelWeights& weights) const override {
    if (ranks()->are_processes())
      return fail(
          "a mixture of two models is made in the memory of one process, and the ranks are {} "
          "processes: run it without mpirun, where --tp {} shares a model between threads",
          ranks()->size(), ranks()->size());
    ASSAY_TRY(const Sharding sharding, Sharding::plan(config, weights, ranks()->size()));
    return load(kind_, ranks(), config, sharding, {.kernel = kernel_});
  }

  const std::shared_ptr<Ranks>& ranks() const { return on_ranks_.ranks(); }
  int id() const { return on_ranks_.id(); }
  const ModelConfig& config() const { return config_; }
  // Rank r computes the logits [vocab_cuts[r], vocab_cuts[r + 1]).
  const std::vector<int>& vocab_cuts() const { return vocab_cuts_; }

 private:
  const RankKind kind_;
  const ModelConfig config_;  // of the whole
  const std::vector<int> vocab_cuts_;
  const std::string kernel_;  // as it was asked for
  const Loaded loaded_;
  const OfRanks on_ranks_;
};

// Kernels rank by rank where they differ: shapes decide how a shard is multiplied.
Result<Loaded> loaded_from(const std::vector<Reply>& replies) {
  Loaded loaded;
  std::vector<std::string> kernels;
  for (std::size_t rank = 0; rank < replies.size(); ++rank) {
    const Reply& r = replies[rank];
    if (!r.error.empty()) return fail("rank {} of {}: {}", rank, replies.size(), r.error);
    if (kernels.empty() || r.kernel != kernels.back()) kernels.push_back(r.kernel);
    loaded.weight_bytes += r.n_bytes;
  }
  loaded.samples_on_device = replies[0].samples_on_device;
  loaded.kernel = fmt::format("{}, tp {}", fmt::join(kernels, " | "), replies.size());
  return loaded;
}

Result<std::shared_ptr<const BackendModel>> TensorParallelModel::load(
    const RankKind& kind, const std::shared_ptr<Ranks>& ranks, const ModelConfig& config,
    const Sharding& sharding, const ShardSource& source) {
  const int id = Ranks::new_id();
  const auto replies =
      ranks->load({.kind = Command::Kind::kLoad, .id = id, .source = source},
                  [&](int rank) { return load_shard(sharding, rank, kind.load, source.kernel); });
  auto loaded = loaded_from(replies);
  if (!loaded) {
    ranks->run({.kind = Command::Kind::kDrop, .id = id});  // by those that could
    return tl::unexpected<Error>(loaded.error());
  }
  return std::make_shared<const TensorParallelModel>(kind, ranks, id, config, sharding.vocab_cuts(),
                                                     source.kernel, *std::move(loaded));
}

// Queues a step's operations and lets every rank run them in one go when a value is asked for:
// nothing in between depends on one.
class TensorParallelBackend final : public Backend {
 public:
  // `id`: what the ranks have their executors under.
  TensorParallelBackend(std::shared_ptr<const TensorParallelModel> model, int id)
      : model_(std::move(model)),
        m_(*model_),
        on_ranks_(m_.ranks(), id),
        room_(std::make_shared<CacheRoom>(count().room)) {}

  std::unique_ptr<KvCache> new_cache(int n_tokens) override {
    return std::make_unique<ShardedCache>(
        m_.ranks(), room_,
        Command{.kind = Command::Kind::kNewCache, .of = on_ranks_.id(), .n = std::max(n_tokens, 1)},
        0);
  }
  CacheRoom cache_room() const override { return *room_; }
  StepCounts step_counts() const override { return count().steps; }
  bool may_record() const override { return may_record_; }

  void begin_step(const StepRows& rows) override {
    CHECK(queue_.operations.empty())
        << queue_.operations.size() << " operations of a step that has not ended";
    rows_ = rows;
    queue_.may_replay = rows.may_replay;
    queue_.may_record = rows.may_record;
    queue_.tokens = rows.tokens;
    for (const Segment& s : rows.segments)
      queue_.segments.push_back({cache_of(s).id(), s.first_row, s.n_rows, s.first_position});
    add({.kind = Kind::kBeginStep});
  }
  void embed() override { add({.kind = Kind::kEmbed}); }
  void set_residual(std::span<const float> rows) override {
    queue_.residual.assign(rows.begin(), rows.end());
    add({.kind = Kind::kSetResidual});
    run_queue();
  }
  void rms_norm(int layer, Norm norm, Act in, Act out) override {
    add({.kind = Kind::kRmsNorm, .layer = layer, .norm = norm, .in = in, .out = out});
  }
  void project(int layer, Projection p, Act in, Act out) override {
    add({.kind = Kind::kProject, .layer = layer, .projection = p, .in = in, .out = out});
  }
  void project_add(int layer, Projection p, Act in, Act out) override {
    CHECK(p == Projection::kOutput && out == Act::kResidual);
    add({.kind = Kind::kProjectAdd, .layer = layer, .projection = p, .in = in, .out = out});
  }
  void append_kv(int layer) override { add({.kind = Kind::kAppendKv, .layer = layer}); }
  void index(int layer) override { add({.kind = Kind::kIndex, .layer = layer}); }
  void mla_attention(int layer, bool sparse) override {
    add({.kind = Kind::kMlaAttention, .layer = layer, .sparse = sparse});
  }
  void mlp(int layer) override { add({.kind = Kind::kMlp, .layer = layer}); }
  void route(int layer) override { add({.kind = Kind::kRoute, .layer = layer}); }
  void moe(int layer) override { add({.kind = Kind::kMoe, .layer = layer}); }
  void clear_residual() override { CHECK(false) << "ranks of ranks"; }
  void sum_residual(Comm&) override { CHECK(false) << "ranks of ranks"; }
  void sample_of_ranks(Comm&, std::span<const int>, std::span<const int>,
                       std::span<const SampleRequest>, std::span<Sampled>) override {
    CHECK(false) << "ranks of ranks";
  }

  // Of no rows it asks for no value, so that it waits for what does.
  void logits(std::span<const int> rows, std::span<float> out) override {
    const auto vocab = static_cast<std::size_t>(m_.config().vocab);
    CHECK(out.size() == rows.size() * vocab) << out.size();
    add({.kind = Kind::kLogits, .of_rows = !rows.empty()});
    if (rows.empty()) return;
    queue_.logit_rows.assign(rows.begin(), rows.end());
    const std::vector<Reply> parts = run_queue();
    for (std::size_t r = 0; r < parts.size(); ++r) {
      const auto first = static_cast<std::size_t>(m_.vocab_cuts()[r]),
                 n = static_cast<std::size_t>(m_.vocab_cuts()[r + 1]) - first;
      for (std::size_t i = 0; i < rows.size(); ++i)
        std::copy_n(parts[r].values.data() + i * n, n, out.data() + i * vocab + first);
    }
  }
  void sample(std::span<const int> rows, std::span<const SampleRequest> requests,
              std::span<Sampled> out) override {
    CHECK(requests.size() == rows.size() && out.size() == rows.size())
        << rows.size() << " rows, " << requests.size() << " requests, room for " << out.size();
    add({.kind = Kind::kSample});
    queue_.sampled_rows.assign(rows.begin(), rows.end());
    queue_.requests = requests;
    std::ranges::move(run_queue()[0].sampled, out.begin());
  }
  void end_step() override {
    add({.kind = Kind::kEndStep});
    run_queue();
    for (const Segment& s : rows_.segments) cache_of(s).set_n_tokens(s.first_position + s.n_rows);
  }

  // What is by head lies side by side; all else every rank has.
  std::vector<float> read(Act act) const override {
    const std::vector<Reply> parts = ask({.kind = Kind::kRead, .in = act});
    if (!is_by_head(act)) return parts[0].values;
    std::vector<float> whole;
    const auto n_rows = static_cast<std::size_t>(rows_.n_rows());
    const std::size_t width = parts[0].values.size() / n_rows;
    for (std::size_t row = 0; row < n_rows; ++row)
      for (const Reply& part : parts) {
        const auto first = part.values.begin() + static_cast<std::ptrdiff_t>(row * width);
        whole.insert(whole.end(), first, first + static_cast<std::ptrdiff_t>(width));
      }
    return whole;
  }
  Routing read_routing() const override { return ask({.kind = Kind::kReadRouting})[0].routing; }
  Selection read_selection() const override {
    return ask({.kind = Kind::kReadSelection})[0].selection;
  }

 private:
  using Kind = Operation::Kind;

  // Rank 0's: all take and give back alike, and run the same steps.
  Reply count() const {
    return m_.ranks()->run({.kind = Command::Kind::kCount, .id = on_ranks_.id()})[0];
  }
  static ShardedCache& cache_of(const Segment& s) { return static_cast<ShardedCache&>(*s.cache); }
  void add(const Operation& operation) const { queue_.operations.push_back(operation); }
  std::vector<Reply> ask(const Operation& operation) const {
    add(operation);
    return run_queue();
  }
  std::vector<Reply> run_queue() const {
    queue_.kind = Command::Kind::kRun;
    queue_.id = on_ranks_.id();
    std::vector<Reply> replies = m_.ranks()->run(std::exchange(queue_, {}));
    for (const Reply& r : replies) may_record_ = may_record_ && r.may_record;
    return replies;
  }

  const std::shared_ptr<const TensorParallelModel> model_;
  const TensorParallelModel& m_;
  const OfRanks on_ranks_;
  const std::shared_ptr<CacheRoom> room_;  // its caches too
  StepRows rows_;
  mutable Command queue_;
  mutable bool may_record_ = true;  // every rank may
};

}  // namespace

Result<std::vector<DeviceRoof>> TensorParallelModel::measure_roofs() const {
  std::vector<DeviceRoof> roofs;
  const auto replies = ranks()->run({.kind = Command::Kind::kMeasureRoof, .id = id()});
  for (std::size_t r = 0; r < replies.size(); ++r) {
    if (!replies[r].error.empty())
      return fail("rank {} of {}: {}", r, replies.size(), replies[r].error);
    if (replies[r].roof.read_bytes_per_s > 0) roofs.push_back(replies[r].roof);
  }
  return roofs;
}

// The same caches for every rank: as many tokens as the one with the least memory has room for.
Result<MemoryPlan> TensorParallelModel::plan(const MemoryNeeds& needs) const {
  MemoryNeeds of_rank = needs;
  of_rank.n_ranks = ranks()->size();
  const std::vector<Reply> replies =
      ranks()->run({.kind = Command::Kind::kPlan, .id = id(), .needs = of_rank});
  MemoryPlan whole;
  for (std::size_t r = 0; r < replies.size(); ++r) {
    if (!replies[r].error.empty())
      return fail("rank {} of {}: {}", r, replies.size(), replies[r].error);
    const MemoryPlan& part = replies[r].plan;
    if (r == 0 || part.limits.cache_tokens < whole.limits.cache_tokens) whole.limits = part.limits;
    whole.n_executors = part.n_executors;
    whole.weight_bytes += part.weight_bytes;
    whole.scratch_bytes += part.scratch_bytes + part.sum_bytes;
  }
  if (!whole.is_planned()) return whole;
  for (const Reply& r : replies)
    whole.cache_bytes += r.plan.cache_bytes / static_cast<std::size_t>(r.plan.limits.cache_tokens) *
                         static_cast<std::size_t>(whole.limits.cache_tokens);
  return whole;
}

Result<std::unique_ptr<Backend>> TensorParallelModel::new_executor(int n_threads,
                                                                   const StepLimits& limits) const {
  const int total = n_threads > 0 ? n_threads : n_usable_cores(), id = Ranks::new_id();
  const std::vector<Reply> replies = ranks()->run({.kind = Command::Kind::kNewExecutor,
                                                   .id = id,
                                                   .of = on_ranks_.id(),
                                                   .n = std::max(1, total / ranks()->size()),
                                                   .limits = limits});
  for (std::size_t r = 0; r < replies.size(); ++r) {
    if (replies[r].error.empty()) continue;
    ranks()->run({.kind = Command::Kind::kDrop, .id = id});  // by those that could
    return fail("rank {} of {}: {}", r, replies.size(), replies[r].error);
  }
  return std::make_unique<TensorParallelBackend>(shared_from_this(), id);
}

Result<std::shared_ptr<const BackendModel>> load_tensor_parallel_model(
    const RankKind& kind, const ModelConfig& config, const ModelWeights& weights, int n_ranks,
    const ShardSource& source, Processes* processes) {
  ASSAY_TRY(const Sharding sharding, Sharding::plan(config, weights, n_ranks));
  ASSAY_TRY(const auto ranks, Ranks::open(kind, n_ranks, processes));
  return TensorParallelModel::load(kind, ranks, config, sharding, source);
}

}  // namespace assay::engine
