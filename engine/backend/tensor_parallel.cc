#include "engine/backend/tensor_parallel.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/thread_pool.h"
#include "engine/backend/shard.h"
#include "engine/comm/rank_group.h"

namespace assay::engine {
namespace {

std::size_t rank_of(const Comm& comm) { return static_cast<std::size_t>(comm.rank()); }

// Whatever belongs to a rank (a model, an executor, a cache) is made and dropped on its thread,
// where its device is.
template <class T>
class OfRanks {
 public:
  // make(comm) → std::unique_ptr<T> or std::shared_ptr<T>
  template <class Make>
  OfRanks(std::shared_ptr<RankGroup> group, const Make& make)
      : group_(std::move(group)), ranks_(static_cast<std::size_t>(group_->size())) {
    group_->run([&](Comm& comm) { ranks_[rank_of(comm)] = make(comm); });
  }
  ~OfRanks() {
    group_->run([&](Comm& comm) { ranks_[rank_of(comm)].reset(); });
  }
  OfRanks(const OfRanks&) = delete;

  RankGroup& group() const { return *group_; }
  const std::shared_ptr<RankGroup>& shared_group() const { return group_; }
  std::size_t size() const { return ranks_.size(); }
  T& operator[](std::size_t rank) const { return *ranks_[rank]; }
  T& operator[](const Comm& comm) const { return *ranks_[rank_of(comm)]; }

 private:
  const std::shared_ptr<RankGroup> group_;
  std::vector<std::shared_ptr<T>> ranks_;
};

// Every rank caches the same latents: they are of all heads.
class ShardedCache final : public KvCache {
 public:
  template <class Make>
  ShardedCache(std::shared_ptr<RankGroup> group, const Make& make)
      : ranks_(std::move(group), make) {}

  int n_tokens() const override { return ranks_[0].n_tokens(); }
  void truncate(int n_tokens) override {
    for (std::size_t r = 0; r < ranks_.size(); ++r) ranks_[r].truncate(n_tokens);
  }
  std::unique_ptr<KvCache> fork() const override {
    return std::make_unique<ShardedCache>(ranks_.shared_group(),
                                          [&](Comm& comm) { return ranks_[comm].fork(); });
  }
  std::size_t bytes() const override {
    std::size_t total = 0;
    for (std::size_t r = 0; r < ranks_.size(); ++r) total += ranks_[r].bytes();
    return total;
  }
  KvCache& of_rank(std::size_t rank) const { return ranks_[rank]; }

 private:
  OfRanks<KvCache> ranks_;
};

class TensorParallelModel final : public BackendModel,
                                  public std::enable_shared_from_this<TensorParallelModel> {
 public:
  using Ranks = OfRanks<const BackendModel>;

  // `loaded`: by rank; taken.
  TensorParallelModel(const RankKind& kind, std::shared_ptr<RankGroup> group,
                      const ModelConfig& config, std::vector<int> vocab_cuts,
                      std::string_view kernel,
                      std::vector<std::shared_ptr<const BackendModel>> loaded)
      : kind_(kind),
        config_(config),
        vocab_cuts_(std::move(vocab_cuts)),
        kernel_(kernel),
        ranks_(std::move(group), [&](Comm& comm) { return std::move(loaded[rank_of(comm)]); }) {}

  static Result<std::shared_ptr<const BackendModel>> load(const RankKind& kind,
                                                          std::shared_ptr<RankGroup> group,
                                                          const ModelConfig& config,
                                                          const Sharding& sharding,
                                                          std::string_view kernel);

  std::string_view backend() const override { return ranks_[0].backend(); }
  // Rank by rank where they differ: shapes decide how a shard is multiplied.
  std::string kernel() const override {
    std::vector<std::string> kernels;
    for (std::size_t r = 0; r < ranks_.size(); ++r)
      if (kernels.empty() || ranks_[r].kernel() != kernels.back())
        kernels.push_back(ranks_[r].kernel());
    return fmt::format("{}, tp {}", fmt::join(kernels, " | "), ranks_.size());
  }
  std::size_t weight_bytes() const override {
    std::size_t total = 0;
    for (std::size_t r = 0; r < ranks_.size(); ++r) total += ranks_[r].weight_bytes();
    return total;
  }
  bool samples_on_device() const override { return false; }
  std::unique_ptr<Backend> new_executor(int n_threads) const override;
  // Laid out anew as a whole: the parts of what both have are not kept.
  Result<std::shared_ptr<const BackendModel>> with(const ModelConfig& config,
                                                   const ModelWeights& weights) const override {
    ASSAY_TRY(const Sharding sharding,
              Sharding::plan(config, weights, static_cast<int>(ranks_.size())));
    return load(kind_, ranks_.shared_group(), config, sharding, kernel_);
  }

  const Ranks& ranks() const { return ranks_; }
  const ModelConfig& config() const { return config_; }
  // Rank r computes the logits [vocab_cuts[r], vocab_cuts[r + 1]).
  const std::vector<int>& vocab_cuts() const { return vocab_cuts_; }

 private:
  const RankKind kind_;
  const ModelConfig config_;  // of the whole
  const std::vector<int> vocab_cuts_;
  const std::string kernel_;  // as it was asked for
  const Ranks ranks_;
};

Result<std::shared_ptr<const BackendModel>> TensorParallelModel::load(
    const RankKind& kind, std::shared_ptr<RankGroup> group, const ModelConfig& config,
    const Sharding& sharding, std::string_view kernel) {
  std::vector<std::optional<Result<std::shared_ptr<const BackendModel>>>> results(
      static_cast<std::size_t>(group->size()));
  group->run([&](Comm& comm) {
    try {
      const Shard shard = sharding.of_rank(comm.rank());
      results[rank_of(comm)] = kind.load(shard.config, shard.weights, kernel);
    } catch (const std::bad_alloc&) {  // on a thread that nobody catches for
      results[rank_of(comm)] = fail("no memory for its part of the weights");
    }
  });
  std::vector<std::shared_ptr<const BackendModel>> loaded;
  for (auto& result : results) {
    if (!*result)
      return fail("rank {} of {}: {}", loaded.size(), group->size(), result->error().message);
    loaded.push_back(*std::move(*result));
    result.reset();
  }
  return std::make_shared<const TensorParallelModel>(
      kind, std::move(group), config, sharding.vocab_cuts(), kernel, std::move(loaded));
}

// Queues a step's operations and lets every rank's thread run them in one go when a value is asked
// for: nothing in between depends on one.
class TensorParallelBackend final : public Backend {
 public:
  TensorParallelBackend(std::shared_ptr<const TensorParallelModel> model, int threads_of_rank)
      : model_(std::move(model)),
        m_(*model_),
        ranks_(m_.ranks().shared_group(),
               [&](Comm& comm) { return m_.ranks()[comm].new_executor(threads_of_rank); }),
        rows_(ranks_.size()) {}

  std::unique_ptr<KvCache> new_cache() override {
    return std::make_unique<ShardedCache>(ranks_.shared_group(),
                                          [&](Comm& comm) { return ranks_[comm].new_cache(); });
  }

  void begin_step(const StepRows& rows) override {
    CHECK(queue_.empty()) << queue_.size() << " operations of a step that has not ended";
    n_ = static_cast<std::size_t>(rows.n_rows());
    for (std::size_t r = 0; r < rows_.size(); ++r) {
      rows_[r] = rows;
      for (Segment& s : rows_[r].segments)
        s.cache = &static_cast<ShardedCache&>(*s.cache).of_rank(r);
    }
    queue_.emplace_back([this](Backend& b, Comm& comm) {
      comm.reserve(n_ * static_cast<std::size_t>(m_.config().hidden));
      b.begin_step(rows_[rank_of(comm)]);
      comm.meet();  // whoever allocates does so before anybody waits on a device
    });
  }
  void embed() override {
    add([](Backend& b) { b.embed(); });
  }
  void set_residual(std::span<const float> rows) override {
    add([rows](Backend& b) { b.set_residual(rows); });
    run_queue();  // `rows` is the caller's
  }
  void rms_norm(int layer, Norm norm, Act in, Act out) override {
    add([=](Backend& b) { b.rms_norm(layer, norm, in, out); });
  }
  void project(int layer, Projection p, Act in, Act out) override {
    add([=](Backend& b) { b.project(layer, p, in, out); });
  }
  void project_add(int layer, Projection p, Act in, Act out) override {
    CHECK(p == Projection::kOutput && out == Act::kResidual);
    add_sum([=](Backend& b) { b.project_add(layer, p, in, out); });
  }
  void append_kv(int layer) override {
    add([=](Backend& b) { b.append_kv(layer); });
  }
  void index(int layer) override {
    add([=](Backend& b) { b.index(layer); });
  }
  void mla_attention(int layer, bool sparse) override {
    add([=](Backend& b) { b.mla_attention(layer, sparse); });
  }
  void mlp(int layer) override {
    add_sum([=](Backend& b) { b.mlp(layer); });
  }
  void route(int layer) override {
    add([=](Backend& b) { b.route(layer); });
  }
  void moe(int layer) override {
    add_sum([=](Backend& b) { b.moe(layer); });
  }
  void clear_residual() override { CHECK(false) << "ranks of ranks"; }
  void sum_residual(Comm&) override { CHECK(false) << "ranks of ranks"; }

  void logits(std::span<const int> rows, std::span<float> out) override {
    const auto vocab = static_cast<std::size_t>(m_.config().vocab);
    CHECK(out.size() == rows.size() * vocab) << out.size();
    queue_.emplace_back([this, rows, out, vocab](Backend& b, Comm& comm) {
      comm.meet();  // every sum is on its way on every device: what allocates now holds up none
      const int* cut = m_.vocab_cuts().data() + comm.rank();
      const auto first = static_cast<std::size_t>(cut[0]),
                 n = static_cast<std::size_t>(cut[1]) - first;
      std::vector<float> part(rows.size() * n);
      b.logits(rows, part);
      for (std::size_t i = 0; i < rows.size(); ++i)
        std::copy_n(part.data() + i * n, n, out.data() + i * vocab + first);
    });
    run_queue();
  }
  // Of logits from every rank, together on the host.
  void sample(std::span<const int> rows, std::span<const SampleRequest> requests,
              std::span<Sampled> out) override {
    sample_on_host(*this, m_.config().vocab, rows, requests, out);
  }
  void end_step() override {
    run_queue();
    for (std::size_t r = 0; r < ranks_.size(); ++r) ranks_[r].end_step();
  }

  // What is by head lies side by side; all else every rank has.
  std::vector<float> read(Act act) const override {
    run_queue();
    std::vector<std::vector<float>> parts(ranks_.size());
    ranks_.group().run([&](Comm& comm) { parts[rank_of(comm)] = ranks_[comm].read(act); });
    if (act != Act::kQuery && act != Act::kAttention) return parts[0];
    std::vector<float> whole;
    const std::size_t width = parts[0].size() / n_;
    for (std::size_t row = 0; row < n_; ++row)
      for (const auto& part : parts)
        whole.insert(whole.end(), part.begin() + static_cast<std::ptrdiff_t>(row * width),
                     part.begin() + static_cast<std::ptrdiff_t>((row + 1) * width));
    return whole;
  }
  Routing read_routing() const override { return of_first(&Backend::read_routing); }
  Selection read_selection() const override { return of_first(&Backend::read_selection); }

 private:
  using Operation = std::function<void(Backend&, Comm&)>;

  template <class Run>
  void add(const Run& run) {
    queue_.emplace_back([run](Backend& b, Comm&) { run(b); });
  }
  // An operation that adds to kResidual, of which each rank has a part of what is added.
  template <class Run>
  void add_sum(const Run& run) {
    queue_.emplace_back([run](Backend& b, Comm& comm) {
      if (comm.rank() > 0) b.clear_residual();
      run(b);
      b.sum_residual(comm);
    });
  }
  void run_queue() const {
    if (queue_.empty()) return;
    ranks_.group().run([&](Comm& comm) {
      for (const Operation& operation : queue_) operation(ranks_[comm], comm);
    });
    queue_.clear();
  }
  template <class T>
  T of_first(T (Backend::*ask)() const) const {
    run_queue();
    T out;
    ranks_.group().run([&](Comm& comm) {
      if (comm.rank() == 0) out = (ranks_[comm].*ask)();
    });
    return out;
  }

  const std::shared_ptr<const TensorParallelModel> model_;
  const TensorParallelModel& m_;
  const OfRanks<Backend> ranks_;
  std::vector<StepRows> rows_;  // by rank
  std::size_t n_ = 0;           // rows of the step
  mutable std::vector<Operation> queue_;
};

}  // namespace

std::unique_ptr<Backend> TensorParallelModel::new_executor(int n_threads) const {
  const int total = n_threads > 0 ? n_threads : n_usable_cores();
  return std::make_unique<TensorParallelBackend>(
      shared_from_this(), std::max(1, total / static_cast<int>(ranks_.size())));
}

Result<std::shared_ptr<const BackendModel>> load_tensor_parallel_model(const RankKind& kind,
                                                                       const ModelConfig& config,
                                                                       const ModelWeights& weights,
                                                                       std::string_view kernel,
                                                                       int n_ranks) {
  ASSAY_TRY(const Sharding sharding, Sharding::plan(config, weights, n_ranks));
  ASSAY_TRY(Comms comms, kind.new_comms(n_ranks));
  return TensorParallelModel::load(kind, std::make_shared<RankGroup>(std::move(comms)), config,
                                   sharding, kernel);
}

}  // namespace assay::engine
