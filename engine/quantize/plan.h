// Before anything is encoded: codebooks from all experts' weights, what every tier's nearest
// codewords would cost, and a tier for every projection of every expert.
#pragma once

#include <array>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "engine/quantize/codebook.h"
#include "engine/quantize/expert_stats.h"
#include "engine/quantize/kept.h"
#include "engine/quantize/recipe.h"
#include "engine/quantize/sealed_file.h"
#include "engine/quantize/stop.h"

namespace assay::engine {

inline constexpr std::array<const char*, 3> kProjections = {"gate_proj", "up_proj", "down_proj"};

struct Plan {
  std::vector<Codebook> codebooks;  // one a tier
  // tier[layer][expert][projection]: index into the recipe's tiers; dense layers are empty.
  std::vector<std::vector<std::array<int, 3>>> tier;
  // Likewise: output error of its nearest codewords over the output of the module.
  std::vector<std::vector<std::array<double, 3>>> error;
  Kept kept;                   // as it was measured
  double code_bits = 0;        // of the choice, per weight
  double predicted_error = 0;  // Σ of tempered output errors …
  double lower_bound = 0;      // … and the least that any choice within the budget could have
};

// Statistics of all layers' experts (an empty vector for a dense layer).
using ModelStats = std::vector<std::vector<ExpertStats>>;

// A projection of an expert.
struct Module {
  const Matrix* matrix;
  const ProjectionStats* stats;
};
// Of a layer, by expert, each in the order of kProjections; none of a dense layer.
std::vector<Module> modules_of(const ModelWeights& weights, const ModelStats& stats,
                               std::size_t layer);

// What a module adds to its layer's output, and the error there with each tier's nearest codewords.
struct ModuleErrors {
  double energy = 0;
  std::vector<double> nearest;  // (n_tiers)
};
using LayerErrors = std::vector<ModuleErrors>;  // as modules_of

class State;
struct PlanHooks {
  // `what` says which piece is in hand: "codebook of tier 1.5, iteration".
  std::function<void(std::string_view what, int done, int total)> on_progress;
  Stop* stop = nullptr;          // asked within each piece, so that an answer takes no second
  const State* state = nullptr;  // where finished pieces are kept, and found again
  // Asked between errors and tiers, where the recipe says that a sample is to be encoded.
  std::function<Result<Kept>(const std::vector<Codebook>& codebooks,
                             const std::vector<LayerErrors>& predicted)>
      measure_kept = {};

  void show(std::string_view what, int done, int total) const {
    if (on_progress) on_progress(what, done, total);
  }
};

// The plan's three steps: a piece is a codebook, then a layer's errors; the choice takes no time.
Result<std::vector<Codebook>> fit_codebooks(const ModelWeights& weights, const ModelStats& stats,
                                            const Recipe& recipe, ThreadPool& pool,
                                            const PlanHooks& hooks);
Result<std::vector<LayerErrors>> predict_errors(const ModelWeights& weights,
                                                const ModelStats& stats,
                                                const std::vector<Codebook>& codebooks,
                                                const Recipe& recipe, ThreadPool& pool,
                                                const PlanHooks& hooks);
// Without codebooks.
Result<Plan> choose_tiers(const ModelWeights& weights, const ModelStats& stats,
                          const std::vector<LayerErrors>& errors, const Kept& kept,
                          const Recipe& recipe);
// All three.
Result<Plan> make_plan(const ModelWeights& weights, const ModelStats& stats, const Recipe& recipe,
                       ThreadPool& pool, const PlanHooks& hooks);

// plan.json and codebooks.safetensors in a folder; an error if they are damaged, or not of as many
// layers and experts as `stats`.
Result<void> write_plan(const std::filesystem::path& folder, const Plan& plan,
                        const Recipe& recipe);
Result<Plan> read_plan(const std::filesystem::path& folder, const Recipe& recipe,
                       const ModelStats& stats);

// One tensor a tier, binary16 [K, d]: cb1, cb1.5, …
std::vector<NewTensor> codebook_tensors(const std::vector<Codebook>& codebooks,
                                        const std::vector<Tier>& tiers);
// Of a file of the state.
Result<std::vector<Codebook>> read_codebooks(const std::filesystem::path& file,
                                             const std::vector<Tier>& tiers);

}  // namespace assay::engine
