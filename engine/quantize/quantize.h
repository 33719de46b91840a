// A bf16 checkpoint to a quantised one (docs/formats/vq.md), a layer at a time: peak memory is one
// layer's weights, its Hessians, and the activations of the calibration tokens. The result depends
// on model, calibration and recipe only: neither on threads, nor on how often the run was killed
// and went on.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/quantize/recipe.h"

namespace assay::engine {

struct CalibrationText {
  std::string lang;
  std::vector<int> ids;
  int reply = 0;  // the first token that is to be predicted
};

// What a build says of the set that it was fitted to, so that who judges it can tell those texts
// from others.
struct CalibrationRecord {
  std::string set;  // the file's name
  int n_texts = 0;
  std::map<std::string, std::int64_t> tokens_by_language;
  std::vector<std::string> fingerprints;  // of its texts; empty in older builds
};
std::string fingerprint_of(const CalibrationText& text);  // of ids and reply
std::map<std::string, std::int64_t> tokens_by_language(const std::vector<CalibrationText>& texts);
Json to_json(const CalibrationRecord& record);  // as in quantisation.json
// None of a folder that assay quantize did not make. A damaged quantisation.json is an error.
Result<std::optional<CalibrationRecord>> read_calibration_record(
    const std::filesystem::path& build);

struct QuantizeInput {
  std::filesystem::path model, out;
  std::vector<CalibrationText> texts;
  std::string calibration;  // what the texts are: for the record
  Recipe recipe;
  int n_threads = 0;  // 0: every usable core
  // stage: "focus", "statistics", "codebook of tier 1.5, iteration" and the like, "errors of tiers,
  // module", "kept", "kept layers" (of an earlier run, whose outputs are made again), "encoding";
  // done of total in units of it.
  std::function<void(std::string_view stage, int done, int total)> on_progress;
  // After every finished layer of a stage that goes by layers; layer n_layers of "encoding" is all
  // that is in no layer.
  std::function<void(std::string_view stage, int layer)> on_layer;
  // Asked often, from any thread. True: stop, and keep what is finished.
  std::function<bool()> interrupted;
};

struct QuantizeReport {
  Json json;  // as quantisation.json: recipe, calibration, samples per expert, errors per module
  std::string interrupted_at;        // "2 of 3 layers done"; no more is said then. "": finished
  std::string in_hand;               // what was being made as it was interrupted, and begins anew
  bool is_resumed = false;           // went on with what an earlier run had left
  bool is_finished_before = false;   // nothing was to be done; `json` alone is filled
  bool has_restored_config = false;  // then; nothing but the config.json that had been lost
  double code_bits = 0, total_bits = 0;  // per expert weight; total: all that is stored of them
  double predicted_error = 0, lower_bound = 0;
  std::int64_t n_bytes = 0;  // of all files written
};

// Whether a build can be made in `out`, or gone on with: what is there, whether it can be written,
// and who works there. Takes no time, so it may be asked before anything is read; quantize asks it
// too.
Result<void> check_output(const std::filesystem::path& out);

// Writes `out`: shards with their index, vq_codebooks.safetensors, config.json (last, so that a
// folder without it is unfinished), tokenizer and template as they were, quantisation.json. Goes on
// with what an interrupted run of the same input left there.
Result<QuantizeReport> quantize(const QuantizeInput& input);

}  // namespace assay::engine
