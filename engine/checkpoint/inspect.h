// What is in a checkpoint: for `assay inspect` and for a run's provenance.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "engine/checkpoint/checkpoint.h"

namespace assay::engine {

struct RoleSummary {
  std::string role;    // "routed experts", "attention", "indexer", "shared experts", "dense MLP",
                       // "router", "embedding", "lm head", "norms"
  std::string dtypes;  // "BF16", or "BF16 + F32"
  int n_tensors;
  std::int64_t n_parameters, n_bytes;
};

// The modules of one layer and projection that are stored alike.
struct TierSummary {
  int layer;               // -1: not in a layer
  std::string projection;  // "gate_proj", "o_proj", …
  bool routed;             // of routed experts
  std::string format;      // "vq 1.5 bits (d 8, K 4096)", "gptq 4 bit", "bf16", …
  int n_modules = 0;
  std::int64_t n_weights = 0;
  double n_code_bits = 0, n_scale_bits = 0;  // scales and zeros
  double n_padding_bits = 0;   // of the codes' tensors, beyond code bits: rows fill whole words
  double n_codebook_bits = 0;  // AQLM's own; VQ's belong to many tiers, so to none
  double total_bits() const {  // per weight
    return (n_code_bits + n_padding_bits + n_scale_bits + n_codebook_bits) /
           static_cast<double>(n_weights);
  }
};

struct CheckpointSummary {
  std::string dir, model_type, fingerprint;
  std::string synthetic;              // ModelConfig::synthetic
  std::vector<std::string> misspelt;  // misspelt_in_files (config.h)
  int n_shards;
  std::vector<RoleSummary> roles;
  std::int64_t n_parameters = 0, n_active_parameters = 0, n_bytes = 0;
  std::int64_t n_active_bytes = 0;  // active: read per decoded token
  std::int64_t n_routed_bytes = 0;  // of all routed experts
  // Per weight of the routed experts: codes alone, what pads them, scales, the codebooks that they
  // use, and all of it together. Not quantised: the bits of the values, and nothing else.
  double routed_code_bits = 0, routed_padding_bits = 0, routed_scale_bits = 0,
         routed_codebook_bits = 0, routed_total_bits = 0;
  double bits_per_parameter() const {  // of all tensors
    return 8.0 * static_cast<double>(n_bytes) / static_cast<double>(n_parameters);
  }
  // Quantised checkpoints only.
  std::string quantisation;              // the method; "" where nothing is quantised
  std::vector<TierSummary> tiers;        // by layer and projection
  std::vector<std::string> vq_suffixes;  // of codes and scales, as found
};

// `cache_dir`: where fingerprints are kept, see Checkpoint::fingerprint.
Result<CheckpointSummary> inspect(const Checkpoint& checkpoint,
                                  const std::filesystem::path& cache_dir = {});
Json to_json(const CheckpointSummary& summary);

}  // namespace assay::engine
