#include <functional>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/check.h"
#include "engine/backend/cuda_backend.h"
#include "engine/comm/comm.h"
#include "kernels/graph_memory.h"

namespace assay::engine {
namespace {

class RecordingBackend final : public Backend {
 public:
  RecordingBackend(std::unique_ptr<CudaExecutor> inner, std::size_t most_bytes)
      : inner_(std::move(inner)), most_bytes_(most_bytes) {}

  std::unique_ptr<KvCache> new_cache(int n_tokens) override { return inner_->new_cache(n_tokens); }
  CacheRoom cache_room() const override { return inner_->cache_room(); }
  StepCounts step_counts() const override {
    StepCounts counts = counts_;
    counts.n_logit_rows = inner_->step_counts().n_logit_rows;
    return counts;
  }

  bool may_record() const override { return has_memory_ && n_bytes_ < most_bytes_; }

  void begin_step(const StepRows& rows) override {
    inner_->begin_step(rows);
    mode_ = mode_of(rows);
    ++(mode_ == Mode::kDirect   ? counts_.n_direct
       : mode_ == Mode::kRecord ? counts_.n_recorded
                                : counts_.n_replayed);
    if (mode_ == Mode::kRecord) kernels::RecordedGraph::begin(inner_->stream());
  }

  void embed() override {
    run([this] { inner_->embed(); });
  }
  void set_residual(std::span<const float> rows) override {
    CHECK(mode_ == Mode::kDirect);
    inner_->set_residual(rows);
  }
  void rms_norm(int layer, Norm norm, Act in, Act out) override {
    run([=, this] { inner_->rms_norm(layer, norm, in, out); });
  }
  void project(int layer, Projection p, Act in, Act out) override {
    run([=, this] { inner_->project(layer, p, in, out); });
  }
  void project_add(int layer, Projection p, Act in, Act out) override {
    run([=, this] { inner_->project_add(layer, p, in, out); });
  }
  void append_kv(int layer) override {
    run([=, this] { inner_->append_kv(layer); });
  }
  void index(int layer) override {
    run([=, this] { inner_->index(layer); });
  }
  void mla_attention(int layer, bool sparse) override {
    // An executor serves one engine, whose attention does not change.
    CHECK(sparse_.value_or(sparse) == sparse);
    sparse_ = sparse;
    run([=, this] { inner_->mla_attention(layer, sparse); });
  }
  void mlp(int layer) override {
    run([=, this] { inner_->mlp(layer); });
  }
  void route(int layer) override {
    run([=, this] { inner_->route(layer); });
  }
  void moe(int layer) override {
    run([=, this] { inner_->moe(layer); });
  }
  void clear_residual() override {
    run([this] { inner_->clear_residual(); });
  }
  void sum_residual(Comm& comm) override {
    comm_ = &comm;
    run([this, &comm] { inner_->sum_residual(comm); });
  }
  // The graph ends here: which rows want logits or a sample, and what of it, differs from step to
  // step.
  void logits(std::span<const int> rows, std::span<float> out) override {
    if (mode_ == Mode::kRecord) end_recording();
    if (mode_ != Mode::kDirect) {
      (*graph_)->launch(inner_->stream());
      meet();
    }
    mode_ = Mode::kDirect;
    inner_->logits(rows, out);
  }
  void sample(std::span<const int> rows, std::span<const SampleRequest> requests,
              std::span<Sampled> out) override {
    CHECK(mode_ == Mode::kDirect);  // logits came first
    inner_->sample(rows, requests, out);
  }
  void sample_of_ranks(Comm& comm, std::span<const int> vocab_cuts, std::span<const int> rows,
                       std::span<const SampleRequest> requests, std::span<Sampled> out) override {
    CHECK(mode_ == Mode::kDirect);
    inner_->sample_of_ranks(comm, vocab_cuts, rows, requests, out);
  }
  void end_step() override { inner_->end_step(); }

  std::vector<float> read(Act act) const override { return inner_->read(act); }
  Routing read_routing() const override { return inner_->read_routing(); }
  Selection read_selection() const override { return inner_->read_selection(); }

 private:
  enum class Mode { kDirect, kRecord, kReplay };
  // Every decode step, however many rows it has, is one of a shape that is recorded, while there is
  // memory for it.
  Mode mode_of(const StepRows& rows) {
    const bool decodes = rows.segments.size() == rows.tokens.size();
    if (!rows.may_replay || !decodes) return Mode::kDirect;
    const auto [step, is_first] = steps_.try_emplace(inner_->step_shape());
    if (is_first) return Mode::kDirect;
    graph_ = &step->second;
    if (graph_->has_value()) return Mode::kReplay;
    if (rows.may_record) return Mode::kRecord;
    ++counts_.n_beyond_graphs;
    return Mode::kDirect;
  }
  // Of a step that is recorded, they are kept: they have not run.
  template <class Operation>
  void run(const Operation& operation) {
    if (mode_ == Mode::kReplay) return;
    if (mode_ == Mode::kRecord) operations_.emplace_back(operation);
    operation();
  }
  // Where a rank's device has no memory for its graph, all ranks go on without one: the operations
  // run, launch by launch, and no other graph is tried.
  void end_recording() {
    const std::size_t before = kernels::recorded_graph_bytes();
    *graph_ = kernels::RecordedGraph::end(inner_->stream());
    n_bytes_ += kernels::recorded_graph_bytes() - before;
    const bool is_made = graph_->has_value();
    has_memory_ = comm_ != nullptr ? comm_->agree(is_made) : is_made;
    const std::vector<std::function<void()>> operations = std::exchange(operations_, {});
    if (has_memory_) return;
    graph_->reset();
    --counts_.n_recorded, ++counts_.n_direct, ++counts_.n_beyond_graphs;
    mode_ = Mode::kDirect;
    for (const auto& operation : operations) operation();
  }
  // Making a graph, and launching it for the first time, may allocate, which must not wait for a
  // device whose sums wait for a rank that has not launched its own. All ranks record and replay
  // the same steps.
  void meet() const {
    if (comm_ != nullptr) comm_->meet();
  }

  const std::unique_ptr<CudaExecutor> inner_;
  const std::size_t most_bytes_;
  std::size_t n_bytes_ = 0;  // that its graphs have taken
  bool has_memory_ = true;   // for others
  Mode mode_ = Mode::kDirect;
  std::map<CudaStepShape, std::optional<kernels::RecordedGraph>> steps_;  // empty: seen once
  std::optional<kernels::RecordedGraph>* graph_ = nullptr;                // of this step
  std::vector<std::function<void()>> operations_;                         // likewise
  StepCounts counts_;
  std::optional<bool> sparse_;
  Comm* comm_ = nullptr;  // of a rank of several
};

}  // namespace

std::unique_ptr<Backend> with_recorded_steps(std::unique_ptr<CudaExecutor> inner,
                                             std::size_t most_bytes) {
  return std::make_unique<RecordingBackend>(std::move(inner), most_bytes);
}

}  // namespace assay::engine
