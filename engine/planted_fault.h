// A test facility: faults of an engine that no model file can hold, planted on purpose, so that it
// can be shown what a harness sees of them (assay selftest). An engine with one says so in its info
// and identity. Without one nothing is wrapped and nothing costs.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "engine/sampler.h"

namespace assay::engine {

class BackendModel;

struct PlantedFault {
  enum class Kind {
    kNone,
    // From `from` tokens on the cache writes a row too low: the row before is lost.
    kLostRowOnce,       // at the first step only, so everything after it sits one row low
    kLostRowEveryStep,  // at every step: each writes over what the one before it wrote last
    kNanLogit,          // logit 0 of every token at position `from` or later is NaN
    kBiasedDraws,       // u^(1 + strength) where u was drawn: likely tokens are drawn too often
    kStuckDraws,        // the generator forgets the position: one u for a whole reply
    kGreedyDraws,       // temperature 0, whatever was asked for
  };
  Kind kind = Kind::kNone;
  int from = 0;
  double strength = 0;

  bool is_planted() const { return kind != Kind::kNone; }
  bool is_of_draws() const {
    return kind == Kind::kBiasedDraws || kind == Kind::kStuckDraws || kind == Kind::kGreedyDraws;
  }
  // What it does depends on where steps end.
  bool is_of_rows() const { return kind == Kind::kLostRowOnce || kind == Kind::kLostRowEveryStep; }
  std::string text() const;  // "lost_row_once from 512"; empty: none
};

// The model, of so many tokens, with the fault in its executors; faults of draws leave it as it is.
std::shared_ptr<const BackendModel> with_fault(std::shared_ptr<const BackendModel> model,
                                               const PlantedFault& fault, int vocab);

// In place of sample(), for faults of draws. Where the token lies is said of what was asked for.
Sampled sample_with_fault(const PlantedFault& fault, std::span<const float> logits,
                          const SampleRequest& request);

}  // namespace assay::engine
