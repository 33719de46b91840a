// A checkpoint folder as the hub has it: config.json and safetensors, single or sharded.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/checkpoint/config.h"
#include "engine/checkpoint/safetensors.h"

namespace assay::engine {

class Checkpoint {
 public:
  // model.safetensors, else the shards that model.safetensors.index.json names. A tensor in two
  // shards, a shard that is missing, or an index that contradicts the shards is an error that names
  // it.
  static Result<Checkpoint> open(const std::filesystem::path& model_dir);

  const std::filesystem::path& dir() const { return dir_; }
  const ModelConfig& config() const { return config_; }
  const std::vector<SafetensorsFile>& shards() const { return shards_; }
  const TensorView* find(std::string_view name) const;  // nullptr if absent
  const std::map<std::string, const TensorView*, std::less<>>& tensors() const {
    return by_name_;
  }  // sorted

  // Hash over every tensor's name, dtype, shape and bytes, in order of name; independent of the
  // sharding. Costs a read of all bytes once; with a cache folder, a shard's hashes are kept there,
  // keyed by its path, inode, size, times and header (docs/formats/checkpoint.md).
  Result<std::string> fingerprint(const std::filesystem::path& cache_dir = {}) const;

 private:
  std::filesystem::path dir_;
  ModelConfig config_;
  std::vector<SafetensorsFile> shards_;
  std::map<std::string, const TensorView*, std::less<>> by_name_;
};

// Of these files' tensors, as Checkpoint::fingerprint.
Result<std::string> fingerprint_of(std::span<const SafetensorsFile> shards,
                                   const std::filesystem::path& cache_dir = {});

// Where `assay quantize` left a quantisation.json, the fingerprint that it wrote there must be this
// one: a changed code is another valid code, and nothing else would notice.
Result<void> check_as_written(const Checkpoint& checkpoint, const std::string& fingerprint);

}  // namespace assay::engine
