// What an executor has to hold, known when it is made, and the memory that this takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "base/result.h"

namespace assay::engine {

inline constexpr int kUnlimited = std::numeric_limits<int>::max();
// Of a device, for the graphs of one executor's steps: the driver's own memory.
inline constexpr std::size_t kGraphBytes = std::size_t{64} << 20;

// Room for the caches of one executor's sequences, in tokens. A host takes memory as it needs it.
struct CacheRoom {
  int n_tokens = kUnlimited, n_free = kUnlimited;
  int grain = 1;  // a cache takes a multiple of so many

  std::int64_t taken_by(std::int64_t tokens_of_sequence) const {
    return (tokens_of_sequence + grain - 1) / grain * grain;
  }
};

// A device's executor takes memory for all of this when it is made, and none afterwards.
struct StepLimits {
  int n_rows = kUnlimited, n_sequences = kUnlimited;  // of a step
  int n_positions = kUnlimited;                       // of a sequence
  bool sparse = false;                                // attention, where the model has an indexer
  int cache_tokens = kUnlimited;                      // of all sequences together
  // Once they take as much, no other shape of step is recorded.
  std::size_t graph_bytes = kGraphBytes;
};

// What is asked of a plan.
struct MemoryNeeds {
  int n_executors = 1;  // at a time, on one model
  int n_contexts = 1;   // of n_positions, that each one's caches should have room for
  int prefill_chunk = 1, n_positions = 1;
  bool sparse = false;
  int n_ranks = 1;  // of which this is one
  std::size_t graph_bytes = kGraphBytes;
};

// Bytes of scratch, caches and graphs are each executor's. No bytes: nothing is planned, as on a
// host.
struct MemoryPlan {
  StepLimits limits;
  std::size_t weight_bytes = 0, scratch_bytes = 0, cache_bytes = 0;
  std::size_t sum_bytes = 0;  // where a rank's executors, all in one place, gather sums
  int n_executors = 1;

  bool is_planned() const { return scratch_bytes > 0; }
  // Of one executor, with its graphs.
  std::size_t executor_bytes() const;
  // "weights 7.4 MiB, scratch 40.1 MiB, caches 2.9 GiB (524288 tokens)", or "weights 7.4 MiB, and
  // each of 5 engines: scratch …"
  std::string text() const;
};

// Values of a step's residual, at most.
inline std::size_t values_summed(const StepLimits& limits, int hidden) {
  return static_cast<std::size_t>(limits.n_rows) * static_cast<std::size_t>(hidden);
}
// Where one of several ranks gathers the sums of such steps: those of all. One rank sums nothing.
inline std::size_t bytes_of_sums(int n_ranks, const StepLimits& limits, int hidden) {
  return n_ranks == 1
             ? 0
             : static_cast<std::size_t>(n_ranks) * sizeof(float) * values_summed(limits, hidden);
}

// A device, and what the engines of other models on it will still take of what is free.
struct DeviceRoom {
  std::string name;
  std::size_t free_bytes, total_bytes, promised_bytes = 0;
};
// Whether weights of this size leave a tenth of a GPU for scratch and caches, so that a larger
// layout is no reason to refuse a model. By all of its memory, not by what is free: a model's bits
// must not depend on who else is there.
constexpr bool leave_a_tenth(std::size_t weight_bytes, std::size_t total_bytes) {
  return weight_bytes <= total_bytes / 10 * 9;
}
// Whether a model's weights fit, with a margin for the driver.
Result<void> fit_weights(std::size_t weight_bytes, const DeviceRoom& device);
// Once the weights are there: `plan`, complete but for its caches, gets n_contexts of them, or as
// many as half of what is free holds, because other models may be to come; but at least one, or it
// is an error.
Result<MemoryPlan> fit(MemoryPlan plan, int n_contexts, std::size_t bytes_per_token, int grain,
                       const DeviceRoom& device);

// Why an engine that was planned cannot be made: what it needs is not free any more.
tl::unexpected<Error> gone(std::size_t need_bytes, const DeviceRoom& device);

// Why a model or an engine on a GPU cannot be made: the host has no memory that the driver can pin.
tl::unexpected<Error> no_pinned_memory(std::size_t n_bytes);

// The rows of a step (a chunk and single tokens of n_sequences) are a dimension of a GPU's grids,
// or rows · experts_per_token are, where every row's experts are multiplied on their own; 1:
// nowhere. An error names the largest chunk.
Result<void> check_chunk(int n_tokens, int n_sequences, int experts_per_token);

// Steps of an executor by how they ran: launch by launch, recorded as a graph and run, or replayed.
struct StepCounts {
  std::int64_t n_direct = 0, n_recorded = 0, n_replayed = 0;
  // Of n_direct, those of a shape that has no graph because graphs had taken their memory, or the
  // device had none left for it.
  std::int64_t n_beyond_graphs = 0;
  std::int64_t n_logit_rows = 0;  // that were multiplied with lm_head

  std::int64_t n_all() const { return n_direct + n_recorded + n_replayed; }
  StepCounts& operator+=(const StepCounts& o) {
    n_direct += o.n_direct, n_recorded += o.n_recorded, n_replayed += o.n_replayed;
    n_beyond_graphs += o.n_beyond_graphs, n_logit_rows += o.n_logit_rows;
    return *this;
  }
};

}  // namespace assay::engine
