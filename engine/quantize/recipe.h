// What to quantise and how: the settings of `assay quantize`.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace assay::engine {

// A form that an expert's projection may take: n_codes codewords of dim values.
struct Tier {
  std::string name;  // its code bits: "1", "1.5", …; scalar tiers "s1", …
  int dim, n_codes;
  int index_bits() const;
  double bits() const { return static_cast<double>(index_bits()) / dim; }  // of code per weight
};

struct Recipe {
  std::string name = "ja-1.71";
  double bits = 1.71;       // code bits per expert weight, on average
  std::vector<Tier> tiers;  // to choose from
  int group = 128;          // columns that share a scale
  bool compensate_gate_up = true, compensate_down = true;  // error feedback; else nearest codeword
  int spine_group = 64;                                    // the same of the spine's matrices
  // Bits of the spine's matrices by role: 4 or 8 (GPTQ), 16 (as they are).
  // kv_a makes what the cache keeps.
  int attention_bits = 4, kv_a_bits = 8, dense_mlp_bits = 4, shared_expert_bits = 4,
      lm_head_bits = 4;
  // How the choice of tiers weighs a module's error: as it is (0: an expert that the calibration
  // set hardly uses gets few bits), relative to what the module adds (1: all the same), or in
  // between.
  double temper = 0.75;
  // How much of a calibration token's weight goes by how unsure the model is of what follows it:
  // 0, all tokens weigh the same; 1, only where something is in doubt (token_focus.h).
  double focus = 0.5;
  double damping = 0.01;   // of the mean diagonal of a Hessian
  double shrinkage = 512;  // tokens with which an expert's Hessian is believed by half
  // Columns are swept by what goes through them, most first, instead of as they lie: an expert's by
  // sub-vectors; all other matrices' one by one. Scales stay those of neighbours. 0 or 1.
  int activation_order = 0, spine_activation_order = 0;
  int beam = 1;               // codings of a row that a sweep goes on with: 1, 2, 4 … 64
  int n_refits = 1;           // rounds of scale refits in a sweep
  int n_descents = 2;         // passes of coordinate descent after the sweeps
  int n_rounds = 1;           // of encoding every layer; codebooks are refitted in between
  int points_per_code = 128;  // sub-vectors sampled for a codebook, per codeword (of at least 256)
  // What a sub-vector counts for where codebooks are fitted: the weight of its error to this power.
  // 1: as much as it matters, so that few rows may own most codewords; 0: all the same.
  double codebook_power = 1;
  // What of its predicted error a projection keeps once feedback and descent are done, relative to
  // the others': the plan sees nearest codewords only.
  double kept_gate = 1, kept_up = 1, kept_down = 1;
  // Instead of those three: so many experts of every layer are encoded to measure it, by layer,
  // projection and tier (kept_sample.h). 0: none.
  int kept_sample = 0;
  int n_down_tokens = 2048;  // tokens of the layer that a rare expert's down borrows
  std::uint64_t seed = 0;

  Json to_json() const;
  // A setting by its name above, "damping=0.003"; tiers and seed have options of their own.
  Result<void> set(std::string_view assignment);
  // That the settings fit each other: tiers and group, bits and tiers.
  Result<void> check() const;
};

// What --help says of a setting that Recipe::set takes, and of each in this order.
struct SettingText {
  std::string name, range, standard, meaning;  // "beam", "1, 2, 4 … or 64", "1", "codings of …"
};
std::vector<SettingText> recipe_settings();

// "ja-1.71" (the release) or "arith-1.86" (its predecessor: down without feedback).
Result<Recipe> named_recipe(std::string_view name);
std::vector<Tier> vq_tiers();
std::vector<Tier> scalar_tiers();
// Tiers by name; an unknown one is an error that lists the known.
Result<std::vector<Tier>> tiers_named(const std::vector<std::string>& names);

}  // namespace assay::engine
