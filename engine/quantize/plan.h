// Before anything is encoded: codebooks from all experts' weights, and a tier for every projection
// of every expert.
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

// What a module adds to its layer's output, and the error there with each tier's nearest codewords.
struct ModuleErrors {
  double energy = 0;
  std::vector<double> nearest;  // (n_tiers)
};
// By expert, each in the order of kProjections; none of a dense layer.
using LayerErrors = std::vector<ModuleErrors>;

struct PlanHooks {
  std::function<void(std::string_view what, int done, int total)> on_progress;
  Stop* stop = nullptr;
  // Asked between codebooks and tiers, where the recipe says that a sample is to be encoded.
  std::function<Result<Kept>(const std::vector<Codebook>& codebooks,
                             const std::vector<LayerErrors>& predicted)>
      measure_kept;
};
Result<Plan> make_plan(const ModelWeights& weights, const ModelStats& stats, const Recipe& recipe,
                       ThreadPool& pool, const PlanHooks& hooks);

// plan.json and codebooks.safetensors in a folder; an error if they are damaged, or not of as many
// layers and experts as `stats`.
Result<void> write_plan(const std::filesystem::path& folder, const Plan& plan,
                        const Recipe& recipe);
Result<Plan> read_plan(const std::filesystem::path& folder, const Recipe& recipe,
                       const ModelStats& stats);

// One tensor a tier, binary16 [K, d]: cb1, cb1.5, …
Result<void> write_codebooks(const std::filesystem::path& file,
                             const std::vector<Codebook>& codebooks,
                             const std::vector<Tier>& tiers);
Result<std::vector<Codebook>> read_codebooks(const std::filesystem::path& file,
                                             const std::vector<Tier>& tiers);

}  // namespace assay::engine
