// A checkpoint of random weights in the shape of a model: how fast would it be on these devices,
// before its weights are here? Marked as what it is: config.json says assay_synthetic, and so does
// whatever reads it (ModelConfig::synthetic).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "base/result.h"

namespace assay::engine {

struct SyntheticOptions {
  int n_layers = 0;  // the first so many of the model's; 0: all
  std::uint64_t seed = 0;
  int n_threads = 0;  // 0: every usable core
  // Asked again and again, by any thread, whether to end.
  std::function<bool()> stop = {};
  // What is to be known before anything is made, in words.
  std::function<void(const std::string& note)> on_note = {};
  // Of files and bytes, as they are written.
  std::function<void(int n_files, int of, std::int64_t n_bytes)> on_file = {};
};

struct SyntheticSummary {
  int n_layers = 0, of_layers = 0, n_files = 0;
  std::int64_t n_bytes = 0;  // of tensors
  int n_left_dense = 0;      // projections of widths that the release's forms do not divide
};

// `config`: a config.json or a folder with one. Its quantization_config says how modules are
// stored; where there is none they are as release_quantization says (synthetic_tensors.h).
// `tokenizer`: a folder whose tokenizer and chat template are copied; generation_config.json is
// that beside the config, if any. `out` must not be there, or be an empty folder, and lie in no
// checkpoint. What is made lies beside it until it is whole; after an error nothing of it is left,
// and what a process that was killed left of the same folder is cleared.
// The same config, layers and seed make the same bytes, whatever the threads.
Result<SyntheticSummary> synthesize(const std::filesystem::path& config,
                                    const std::filesystem::path& tokenizer,
                                    const std::filesystem::path& out,
                                    const SyntheticOptions& options);

}  // namespace assay::engine
