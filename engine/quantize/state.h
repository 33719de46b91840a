// What a quantisation has done so far, in OUT/quantize-state: everything is written atomically and
// with a checksum, so that a run that was killed goes on after the last finished piece.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"
#include "engine/quantize/plan.h"
#include "engine/quantize/sealed_file.h"
#include "engine/quantize/state_lock.h"

namespace assay::engine {

class State {
 public:
  // Of work that an earlier run has left in `out`, before it is looked at; else nothing is held.
  static Result<StateLock> lock_what_is_there(const std::filesystem::path& out);
  // `identity` says what is made of what and how. A folder with other work in it, or with a
  // finished checkpoint, is an error, and so is one that another process works in.
  static Result<State> open(const std::filesystem::path& out, const Json& identity, StateLock lock);

  bool has_stats(int layer) const { return is_there(stats_file(layer)); }
  Result<void> save_stats(int layer, const std::vector<ExpertStats>& stats) const;
  Result<std::vector<ExpertStats>> load_stats(int layer) const;

  bool has_uncertainty() const { return is_there(uncertainty_file()); }
  Result<void> save_uncertainty(const std::vector<float>& uncertainty) const;
  Result<std::vector<float>> load_uncertainty() const;

  // Pieces of the plan: a tier's codebook, a layer's predicted errors.
  bool has_codebook(std::size_t tier) const { return is_there(codebook_file(tier)); }
  Result<void> save_codebook(std::size_t tier, const Tier& of, const Codebook& codebook) const;
  Result<Codebook> load_codebook(std::size_t tier, const Tier& of) const;
  bool has_errors(std::size_t layer) const { return is_there(errors_file(layer)); }
  Result<void> save_errors(std::size_t layer, const LayerErrors& errors) const;
  Result<LayerErrors> load_errors(std::size_t layer, std::size_t n_modules,
                                  std::size_t n_tiers) const;

  bool has_plan() const { return is_there(folder_ / "plan.json") && is_there(codebooks_file(0)); }
  const std::filesystem::path& folder() const { return folder_; }

  // Of a round of encoding: its codebooks (round 0: the plan's), and finished layers, the last
  // number being all that is in no layer.
  std::filesystem::path codebooks_file(int round) const;
  std::filesystem::path layer_file(int round, int layer) const;
  bool has_layer(int round, int layer) const {
    return is_there(layer_file(round, layer)) && is_there(report_file(round, layer));
  }
  Result<void> save_layer(int round, int layer, const std::vector<NewTensor>& tensors,
                          const Json& report) const;
  // Checked against its report's checksum.
  Result<SafetensorsFile> open_layer(int round, int layer) const;
  Result<Json> load_report(int round, int layer) const;
  Result<void> begin_round(int round) const;
  void remove() const;

  bool is_resumed() const { return is_resumed_; }  // an earlier run left work here
  // What an interrupted run was at, which begins anew: "the codebook of tier 1.5".
  std::string piece_in_hand(const ModelConfig& config, const Recipe& recipe) const;

 private:
  std::filesystem::path stats_file(int layer) const;
  std::filesystem::path codebook_file(std::size_t tier) const;
  std::filesystem::path errors_file(std::size_t layer) const;
  std::filesystem::path report_file(int round, int layer) const;
  std::filesystem::path uncertainty_file() const { return folder_ / "uncertainty.safetensors"; }

  std::filesystem::path out_, folder_;
  StateLock lock_;
  bool is_resumed_ = false;
};

}  // namespace assay::engine
