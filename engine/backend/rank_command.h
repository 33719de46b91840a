// What is asked of every rank, and what it answers, as data: a rank may be a thread of this process
// or another process. docs/design/tensor-parallel.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "engine/backend/backend.h"

namespace assay::engine {

// By head: each rank has its own part. All else every rank has.
inline bool is_by_head(Act act) { return act == Act::kQuery || act == Act::kAttention; }

// One call of a Backend; which of the fields count, its arguments say.
struct Operation {
  enum class Kind {
    kBeginStep,
    kEmbed,
    kSetResidual,
    kRmsNorm,
    kProject,
    kProjectAdd,
    kAppendKv,
    kIndex,
    kMlaAttention,
    kMlp,
    kRoute,
    kMoe,
    kLogits,
    kSample,
    kEndStep,
    kRead,
    kReadRouting,
    kReadSelection,
  };
  Kind kind = Kind::kEmbed;
  int layer = 0;
  Norm norm = Norm::kInput;
  Projection projection = Projection::kQueryA;
  Act in = Act::kResidual, out = Act::kResidual;  // of kRead: in
  bool sparse = false;
  bool of_rows = false;  // of kLogits: of Command::logit_rows, else of none
};

// A Segment whose cache goes by its id.
struct CacheRows {
  int cache = 0, first_row = 0, n_rows = 0, first_position = 0;
};

// Where a rank in another process finds the model that rank 0 has read.
struct ShardSource {
  std::string kernel;       // as it was asked for
  std::string dir;          // absolute
  std::string fingerprint;  // of what rank 0 found there
  std::string cache_dir;    // where fingerprints are kept; empty: nowhere
};

// Models, executors and caches of all ranks go by one id, which whoever asks has chosen.
struct Command {
  enum class Kind {
    kLeave,        // the process ends
    kOpen,         // ranks of a group, of backend `backend`
    kClose,        // the group's, which hold nothing any more
    kLoad,         // model `id` from `source`: the shard of each
    kMeasureRoof,  // of model `id`'s device
    kPlan,         // the memory of model `id`'s executors, for `needs`
    kNewExecutor,  // `id` of model `of`, with `n` threads, for `limits`
    kCount,        // what executor `id` has room for, and how its steps ran
    kNewCache,     // `id` of executor `of`, for `n` tokens
    kFork,         // cache `id`, a copy of cache `of`, for `n` tokens
    kTruncate,     // cache `id` to `n` tokens
    kCountBytes,   // of cache `id`
    kDrop,         // whatever `id` is
    kRun,          // `operations` on executor `id`
  };
  Kind kind = Kind::kRun;
  int group = 0, id = 0, of = 0, n = 0;
  MemoryNeeds needs;
  StepLimits limits;
  std::string backend;
  ShardSource source;
  // kRun: what its operations take.
  bool may_replay = false, may_record = true;
  std::vector<int> tokens;
  std::vector<CacheRows> segments;
  std::vector<float> residual;
  std::vector<int> logit_rows, sampled_rows;
  std::span<const SampleRequest> requests;  // of sampled_rows; rank 0's alone, whose process asks
  std::vector<Operation> operations;

  template <class Fields>
  void visit(Fields& f) {
    f(kind), f(group), f(id), f(of), f(n), f(needs), f(limits), f(may_replay), f(may_record);
    f(backend), f(source.kernel), f(source.dir), f(source.fingerprint), f(source.cache_dir);
    f(tokens), f(segments), f(residual), f(logit_rows), f(sampled_rows), f(operations);
  }
};

struct Reply {
  std::string error;               // kLoad, kPlan, kNewExecutor, kMeasureRoof; empty: none
  std::string kernel;              // kLoad
  std::int64_t n_bytes = 0;        // kLoad: of its weights; kCountBytes
  bool samples_on_device = false;  // kLoad
  MemoryPlan plan;                 // kPlan
  DeviceRoof roof;                 // kMeasureRoof
  CacheRoom room;                  // kCount
  StepCounts steps;                // kCount
  bool may_record = true;          // kRun: of its executor, now
  std::vector<float> values;       // kLogits: (rows, its part of the vocabulary); kRead: its part
  // Of rank 0, whose process is the one that asks.
  std::vector<Sampled> sampled;
  Routing routing;
  Selection selection;

  template <class Fields>
  void visit(Fields& f) {
    f(error), f(kernel), f(n_bytes), f(samples_on_device), f(plan), f(roof), f(room), f(steps);
    f(may_record), f(values);
  }
};

// The bytes of a Command or Reply between processes of one build.
class ToBytes {
 public:
  template <class T>
  void operator()(const T& value) {
    if constexpr (std::is_trivially_copyable_v<T>) {
      append(std::as_bytes(std::span(&value, 1)));
    } else {
      (*this)(static_cast<std::uint64_t>(value.size()));
      append(std::as_bytes(std::span(value)));
    }
  }
  std::vector<std::byte> bytes;

 private:
  void append(std::span<const std::byte> more) {
    bytes.insert(bytes.end(), more.begin(), more.end());
  }
};

class FromBytes {
 public:
  explicit FromBytes(std::span<const std::byte> bytes) : left_(bytes) {}
  template <class T>
  void operator()(T& value) {
    if constexpr (std::is_trivially_copyable_v<T>) {
      take(std::as_writable_bytes(std::span(&value, 1)));
    } else {
      std::uint64_t n = 0;
      (*this)(n);
      value.resize(n);
      take(std::as_writable_bytes(std::span(value)));
    }
  }
  bool all_taken() const { return left_.empty(); }

 private:
  void take(std::span<std::byte> out);
  std::span<const std::byte> left_;
};

template <class T>
std::vector<std::byte> to_bytes(const T& value) {
  ToBytes out;
  const_cast<T&>(value).visit(out);
  return std::move(out.bytes);
}
// Bytes that are not exactly a T's are our own bug.
template <class T>
T from_bytes(std::span<const std::byte> bytes);

}  // namespace assay::engine
