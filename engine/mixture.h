// Models between two of the same architecture: the candidate, with chosen weights of the base in
// the place of its own. For asking which weights an error comes from.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace assay::engine {

// A matrix or vector of a model, by its place.
struct WeightSite {
  enum class Part {
    kEmbedding,
    kHead,
    kFinalNorm,
    kSettings,  // what config.json says besides sizes (rope_interleave, rms_norm_eps …), as one
    kNorms,     // layer norms and those of the latents
    kAttention,
    kIndexer,
    kRouter,
    kMlp,  // of dense layers
    kSharedExpert,
    kExperts,
  };
  Part part = Part::kEmbedding;
  int layer = -1, expert = -1;
  std::string projection;  // "gate_proj", "q_a_proj", "wk"; empty where there is but one

  // {"layer 3", "experts", "expert 5", "down_proj"}: from the coarse to the fine.
  std::vector<std::string> path() const;
};

class Mixture {
 public:
  // Reads and checks both folders. Models of other sizes cannot be mixed: an error says which size.
  static Result<Mixture> open(const std::filesystem::path& base,
                              const std::filesystem::path& candidate,
                              const EngineOptions& options = {});

  const Engine& base() const { return base_; }
  const Engine& candidate() const { return candidate_; }
  // Where the two are not the same to the bit, in the order of a forward pass. What is stored in
  // another form (bf16 against codes) is not the same.
  std::span<const WeightSite> differing() const { return sites_; }

  enum class Direction { kBaseIntoCandidate, kCandidateIntoBase };
  // `chosen`: indices into differing(). All of them give the donor, none the recipient, both to the
  // bit; tokenizer and chat template are the candidate's or the base's own, as the recipient's are.
  // What an earlier mixture has laid out is not laid out again. Not to be called from two threads.
  Result<Engine> mix(std::span<const int> chosen,
                     Direction direction = Direction::kBaseIntoCandidate) const;

 private:
  struct Impl;
  Mixture(std::shared_ptr<const Impl> impl, std::vector<WeightSite> sites, Engine base,
          Engine candidate);

  std::shared_ptr<const Impl> impl_;
  std::vector<WeightSite> sites_;
  Engine base_, candidate_;
};

}  // namespace assay::engine
