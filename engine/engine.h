// The engine: a GLM checkpoint in, logits and tokens out. The only engine header that the harness
// includes.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "engine/backend/device_roof.h"
#include "engine/backend/memory_plan.h"
#include "engine/generate.h"
#include "engine/planted_fault.h"
#include "engine/sampler.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace assay::engine {

class Observer;      // engine/forward.h
struct LoadedModel;  // engine/model.h

enum class Attention {
  kAuto,
  kDense,
  kSparse
};  // auto follows the checkpoint: sparse if it has an indexer

struct EngineOptions {
  std::string backend = "cpu";  // "cpu", "cuda" or "reference"
  // "" picks the best. Forces one and fails where it cannot run: "avx2" or "avx512" of cpu; of cuda
  // "graph" (decode steps recorded and replayed) or "stream" (launch by launch), and "bf16" or
  // "bf16-stream", the same with prompt chunks on tensor cores.
  std::string kernel;
  int n_threads = 0;        // 0: every usable core
  int tensor_parallel = 1;  // ranks that share the model: GPUs of cuda, else groups of threads
  Attention attention = Attention::kAuto;
  bool check_finite = true;         // read every weight once and refuse NaN and Inf
  std::filesystem::path cache_dir;  // where fingerprints are kept; empty: nowhere
  int prefill_chunk = 512;          // prompt tokens per step and sequence
  int context = 0;  // most tokens of a conversation, at most the model's positions; 0: those
  // Engines on these weights (share) at a time, this one included: a GPU's memory is planned for
  // all of them before anything runs.
  int n_engines = 1;
  int n_contexts = 16;  // that a GPU's caches get room for, of each engine, if half its memory has
  std::size_t graph_bytes = kGraphBytes;  // of a GPU, for the recorded steps of each engine
  PlantedFault planted_fault;             // for tests of who judges an engine
};

struct EngineInfo {
  std::string model_dir, model_type, fingerprint, backend, kernel,
      attention;                      // attention: "dense" or "sparse"
  std::string synthetic;              // ModelConfig::synthetic: "" of a model
  std::vector<std::string> misspelt;  // misspelt_in_files (checkpoint/config.h)
  // Else a sample is taken of logits on the host: backend cpu's own, or a fault is planted there.
  bool samples_on_device;
  // "f32", or "bf16": chunks of a prompt are multiplied in bfloat16, so bits differ, and where a
  // prompt is cut counts.
  std::string arithmetic;
  // A text's logits have the same bits read in chunks and token by token. Else what is measured on
  // texts that are given (divergence, score) is not quite what a reply is drawn from.
  bool prefill_equals_decode;
  int n_threads, tensor_parallel, vocab, prefill_chunk;
  int max_positions;  // of a conversation: the model's, or as EngineOptions::context says
  MemoryPlan memory;  // of a GPU
  double layout_s;    // that the backend took to lay out the weights, or to upload them
  std::int64_t n_parameters, n_active_parameters;
  std::int64_t weight_bytes;  // in the backend's layout; 0 where it computes from the mapped file
  std::int64_t active_bytes;  // weight bytes read per decoded token
  std::int64_t routed_bytes;  // of all routed experts together
  int n_moe_layers, n_experts, n_experts_per_token;
  std::vector<int> stop_ids;   // of generation_config.json, else config.json
  SamplingParams recommended;  // of generation_config.json
  PlantedFault planted_fault;  // none, unless it was asked for
  // Fused multiply-adds that reading tokens [first, first + n) of one text needs, logits of the
  // last token only: projections of every token, attention over its keys, and the indexer's scores
  // where it has to choose.
  double prefill_fma(int first, int n) const;
  // Of a device's memory, by a decoded token that sees n_keys keys, its own among them.
  double decode_bytes(const TokenBytes& of, int n_keys) const;
  double cache_bytes(const TokenBytes& of, int n_keys) const;  // of these, of the cache
  std::int64_t fma_per_token, fma_lm_head, fma_per_key,
      fma_per_index_key;  // what prefill_fma adds up
  int index_topk;         // 0: dense
  Json to_json() const;
};

// One conversation's state in the engine. Feed tokens, step, read logits, or a sample of them.
class Sequence {
 public:
  ~Sequence();
  Sequence(Sequence&&) noexcept;
  Sequence& operator=(Sequence&&) noexcept;

  void feed(std::span<const int> tokens);  // appended to what is pending
  void keep_all_logits(bool keep);         // default: only the last token's
  // The next step that leaves nothing pending answers this, and gives no logits unless
  // keep_all_logits. What the request points to must stay until then.
  void ask(const SampleRequest& request);
  int n_tokens() const;  // in the cache
  int n_pending() const;
  // After a step: (n, vocab) for the tokens of that step (keep_all_logits), else one row once
  // nothing is pending, unless it was asked for a sample.
  std::span<const float> logits() const;
  int n_logit_rows() const;
  const std::optional<Sampled>& sampled() const;  // what the last step answered
  // Shares nothing afterwards. For at most n_tokens; 0: for as many as this one.
  Sequence fork(int n_tokens = 0) const;

 private:
  friend class Engine;
  struct Impl;
  explicit Sequence(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

class Engine {
 public:
  // Reads and checks the whole folder. Every error names the file or tensor, what was expected and
  // what was found.
  static Result<Engine> load(const std::filesystem::path& model_dir,
                             const EngineOptions& options = {});
  ~Engine();
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;

  // Another engine on the same weights, with its own threads and scratch, for another thread to
  // use. An error where another process has taken the memory that was planned for it on a GPU.
  Result<Engine> share(int n_threads) const;

  const EngineInfo& info() const;
  const text::Tokenizer& tokenizer() const;
  const text::ChatTemplate& chat_template() const;

  // For at most n_tokens; 0: a whole context. On a GPU it takes its cache from the engine's room
  // until it goes, and there has to be enough: who makes several at a time looks at cache_room,
  // which always has one context if nobody else is there. As for steps, by the engine's own thread.
  Sequence new_sequence(int n_tokens = 0) const;
  CacheRoom cache_room() const;
  // Of every GPU that computes, in order of rank, measured now; empty where the host does.
  Result<std::vector<DeviceRoof>> measure_roofs() const;
  StepCounts step_counts() const;  // of a GPU's engine, so far
  // And of all that were shared from it, from each other, or that it was shared from, as far as
  // they have gone.
  StepCounts all_step_counts() const;

  // Advances every sequence with pending tokens by one prompt chunk or its one pending token, in
  // one ragged batch (a GPU in several, if it is planned for fewer rows). Bits of a sequence's
  // logits depend only on its own tokens: not on threads, batch, chunk size or instruction set.
  // Kernel bf16 of cuda: and on where a step had one token of it alone, which is multiplied in
  // float32 as when it decodes (its last chunk, or a single token that was fed). `observer`
  // (engine/forward.h) sees every named intermediate.
  void step(std::span<Sequence* const> batch, Observer* observer = nullptr);

 private:
  friend class Generator;
  friend class Mixture;  // engine/mixture.h
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  static Result<Engine> over(std::shared_ptr<const LoadedModel> model,
                             const EngineOptions& options);
  std::unique_ptr<Impl> impl_;
};

}  // namespace assay::engine
