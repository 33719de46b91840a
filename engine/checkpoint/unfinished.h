// What assay quantize has done so far in a folder that it has not finished: so that whoever opens
// the folder as a checkpoint is told what it is.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace assay::engine {

// Where the quantiser keeps its state (engine/quantize/state.h).
std::filesystem::path quantise_state(const std::filesystem::path& out);
std::filesystem::path quantise_round(const std::filesystem::path& out, int round);
// Before layers are encoded: a layer's statistics, a tier's codebook, a layer's predicted errors.
std::string layer_stats_name(int layer);
std::string tier_codebook_name(int tier);
std::string layer_errors_name(int layer);
std::string layer_kept_name(int layer);
// A finished layer's tensors, and beside it its report. Layer n_layers is all that is in no layer.
std::string layer_tensors_name(int layer);
std::string layer_report_name(int layer);

struct UnfinishedQuantisation {
  int n_done = 0;    // layers …
  int n_layers = 0;  // … of so many; 0: not known yet, no layer is begun
  int round = 0, n_rounds = 1;
  // Before the plan: layers with statistics, codebooks, layers with predicted errors, and with a
  // sample encoded.
  int n_stats = 0, n_codebooks = 0, n_tiers = 0, n_errors = 0, n_kept = 0;
  std::string text() const;  // "2 of 3 layers done"
};

// Who holds the lock of that state, "process 12 on workstation"; empty: nobody.
std::filesystem::path quantise_lock(const std::filesystem::path& state);
std::string working_in(const std::filesystem::path& out);

// None where `out` holds no state of the quantiser, or cannot be understood.
std::optional<UnfinishedQuantisation> unfinished_quantisation(const std::filesystem::path& out);

}  // namespace assay::engine
