// What a device must do to run a GLM: about ten coarse operations over activations that it owns.
// forward.cc is the only caller; no host decision depends on a value inside a step, so a step can
// become one CUDA graph.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/backend/device_roof.h"
#include "engine/backend/memory_plan.h"
#include "engine/checkpoint/weights.h"
#include "engine/sampler.h"

namespace assay::engine {

class Comm;  // engine/comm/comm.h

// Activations of one step, by role; a row is one token. Widths are given in values.
enum class Act {
  kResidual,    // x: hidden
  kNormed,      // h: hidden
  kQueryLora,   // q_a_proj's output: q_lora
  kQueryResid,  // its norm (the indexer reads it too): q_lora
  kQuery,       // n_heads * qk_head, per head nope | rope, before RoPE
  kKvLora,  // kv_a_proj_with_mqa's output: latent | k_rope, before norm and RoPE: kv_lora + qk_rope
  kAttention,  // n_heads * v_head
  kFinal,      // final norm's output: hidden
};

enum class Norm { kInput, kQueryLora, kPostAttention, kFinal };
enum class Projection { kQueryA, kQueryB, kKvA, kOutput };

// One sequence's cache: MLA latents and rotated rope keys, and the indexer's keys of full layers.
// Owned by a backend.
class KvCache {
 public:
  virtual ~KvCache() = default;
  virtual int n_tokens() const = 0;         // tokens whose rows are in the cache
  virtual void truncate(int n_tokens) = 0;  // drops the newest rows (re-asks, tests)
  // An independent copy, for at most n_tokens; 0: for as many as this one.
  virtual std::unique_ptr<KvCache> fork(int n_tokens) const = 0;
  virtual std::size_t bytes() const = 0;
};

// A ragged batch: consecutive rows of one step belong to one sequence, at consecutive positions
// from cache->n_tokens(). append_kv and index write the rows of their layer; end_step makes them
// count.
struct Segment {
  KvCache* cache;
  int first_row, n_rows;
  int first_position;  // == cache->n_tokens() when the step begins
};
struct StepRows {
  std::vector<int> tokens;        // (n_rows)
  std::vector<Segment> segments;  // cover [0, n_rows) in order
  // A whole forward pass follows, and nobody reads what is between: a backend may replay one that
  // it recorded.
  bool may_replay = false;
  // It may record another. Said by who steps, as of Backend::may_record, so that all ranks do the
  // same.
  bool may_record = true;
  int n_rows() const { return static_cast<int>(tokens.size()); }
};

// What route decided, for traces and tests: (n_rows, n_experts_per_token), in ascending order of
// expert.
struct Routing {
  std::vector<int> expert;
  std::vector<float> weight;  // with routed_scaling applied
  std::vector<float>
      margin;  // (n_rows) score with bias of the last chosen minus that of the first not chosen
};
// What index selected at one layer: ascending key positions per row; and the margin of the choice
// as above (infinite where every position is selected).
struct Selection {
  std::vector<std::vector<int>> keys;
  std::vector<float> margin;
};

// An executor: activations, scratch and threads, on weights shared with other executors of the same
// model. Not thread-safe, nor are its caches; use one per thread.
class Backend {
 public:
  virtual ~Backend() = default;

  // For at most n_tokens, which cache_room has to have.
  virtual std::unique_ptr<KvCache> new_cache(int n_tokens) = 0;
  virtual CacheRoom cache_room() const { return {}; }
  virtual StepCounts step_counts() const { return {}; }
  virtual bool may_record() const { return true; }  // there is memory for another recorded step

  virtual void begin_step(const StepRows& rows) = 0;
  virtual void embed() = 0;  // tokens → kResidual
  // Instead of embed: (n_rows, hidden) → kResidual, for who runs a layer alone.
  virtual void set_residual(std::span<const float> rows) = 0;
  virtual void rms_norm(int layer, Norm norm, Act in, Act out) = 0;  // layer ignored for kFinal
  virtual void project(int layer, Projection projection, Act in, Act out) = 0;
  virtual void project_add(int layer, Projection projection, Act in, Act out) = 0;  // out += …
  virtual void append_kv(
      int layer) = 0;  // kKvLora: norm the latent, rotate k_rope, write the cache rows
  virtual void index(
      int layer) = 0;  // full layers: append index keys, score, keep each row's top-k selection
  virtual void mla_attention(
      int layer, bool sparse) = 0;    // kQuery → kAttention, over all keys or the kept selection
  virtual void mlp(int layer) = 0;    // kResidual += dense MLP(kNormed)
  virtual void route(int layer) = 0;  // kNormed → experts and weights of each row
  virtual void moe(
      int layer) = 0;  // kResidual += routed experts(kNormed) + shared experts(kNormed)
  virtual void logits(std::span<const int> rows,
                      std::span<float> out) = 0;  // kFinal rows → (rows.size(), vocab)
  // kFinal rows → what each one's request asks of its logits, which stay where they are. After
  // logits, which may be asked for none, or for some of the same rows.
  virtual void sample(std::span<const int> rows, std::span<const SampleRequest> requests,
                      std::span<Sampled> out) = 0;
  // Of a rank of several (tensor_parallel.h), whose part of project_add, mlp and moe is a partial
  // result: before, except on the first; and after.
  virtual void clear_residual() = 0;          // kResidual = 0
  virtual void sum_residual(Comm& comm) = 0;  // kResidual = its sum over the ranks
  // Instead of sample: rank 0 samples from all ranks' parts of the logits, of which rank r has
  // [vocab_cuts[r], vocab_cuts[r + 1]). `requests` and `out` are its alone, empty on others.
  virtual void sample_of_ranks(Comm& comm, std::span<const int> vocab_cuts,
                               std::span<const int> rows, std::span<const SampleRequest> requests,
                               std::span<Sampled> out) = 0;
  virtual void end_step() = 0;

  // For traces and tests; valid between the operation and the next one that overwrites it.
  virtual std::vector<float> read(Act act) const = 0;  // (n_rows, width)
  virtual Routing read_routing() const = 0;
  virtual Selection read_selection() const = 0;
};

// Backend::sample of a backend whose logits are the host's anyway.
void sample_on_host(Backend& backend, int vocab, std::span<const int> rows,
                    std::span<const SampleRequest> requests, std::span<Sampled> out);
// Likewise Backend::sample_of_ranks.
void sample_of_ranks_on_host(Backend& backend, Comm& comm, std::span<const int> vocab_cuts,
                             std::span<const int> rows, std::span<const SampleRequest> requests,
                             std::span<Sampled> out);

// A model's weights in the layout that a backend computes with. Immutable, shared by its executors.
class BackendModel {
 public:
  virtual ~BackendModel() = default;
  virtual std::string_view backend() const = 0;  // "reference", "cpu"
  virtual std::string kernel() const = 0;        // what will run: "scalar", "avx2", "avx512"
  virtual bool samples_on_device() const = 0;    // or the logits come to the host for it
  virtual std::size_t weight_bytes() const = 0;  // memory that the model's weights take
  // Of every device that computes, in order of rank, measured now; empty where the host does, which
  // kernels/roof.h measures. An error where a device has no memory left to read.
  virtual Result<std::vector<DeviceRoof>> measure_roofs() const {
    return std::vector<DeviceRoof>();
  }
  // What executors for these needs will take; an error where the memory is not there.
  virtual Result<MemoryPlan> plan(const MemoryNeeds&) const { return MemoryPlan(); }
  // n_threads 0: every usable core. `limits`: of a plan. An error where the memory of a device that
  // was planned is not free any more.
  virtual Result<std::unique_ptr<Backend>> new_executor(int n_threads,
                                                        const StepLimits& limits) const = 0;
  // The same backend and kernel with other weights of the same shapes. What both have is laid out
  // once, so the weights of every model made from one must stay mapped while another is made.
  virtual Result<std::shared_ptr<const BackendModel>> with(const ModelConfig& config,
                                                           const ModelWeights& weights) const = 0;
};

// `checkpoint` and `weights` must outlive the model (reference computes from the mapped file).
// `kernel` "" picks the best that this machine has; a name forces one, and is an error where it
// cannot run.
Result<std::shared_ptr<const BackendModel>> load_reference_model(const ModelConfig& config,
                                                                 const ModelWeights& weights,
                                                                 std::string_view kernel);
Result<std::shared_ptr<const BackendModel>> load_cpu_model(const ModelConfig& config,
                                                           const ModelWeights& weights,
                                                           std::string_view kernel);

// One GPU, the current device. An error where there is none, where the build has no CUDA, or where
// the weights do not fit.
Result<std::shared_ptr<const BackendModel>> load_cuda_model(const ModelConfig& config,
                                                            const ModelWeights& weights,
                                                            std::string_view kernel);

}  // namespace assay::engine
