// The model's part of `assay attribute`: what the base, the candidate and mixtures of both answer,
// and what they think of the base's answer.
#pragma once

#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/mixture.h"
#include "harness/plan.h"
#include "harness/runner.h"

namespace assay::cli {

bool is_right(const harness::Sample& sample);

// What a model makes of the cases.
struct Trial {
  std::vector<harness::Asked> asked;  // empty where only the base's replies were read
  double logprob = 0;  // of the base's replies under teacher forcing, summed; -inf beyond numbers
  // Of the first token where the candidate's reply leaves the base's: log p of the base's token
  // less that of the candidate's; a value a case.
  std::vector<double> margins;
  bool all_right() const;
};

class Trials {
 public:
  // `items` of `plan` are the cases. Asks the base and the candidate.
  // Nothing if interrupted.
  static Result<std::optional<Trials>> begin(const engine::Mixture& mixture,
                                             const harness::Plan& plan,
                                             std::vector<harness::PlanItem> items, int n_threads,
                                             std::function<bool()> interrupted);

  const Trial& base() const { return base_; }
  const Trial& candidate() const { return candidate_; }
  // Reply token where a case's two replies part, or their shorter length.
  const std::vector<std::size_t>& partings() const { return partings_; }

  // Do all cases come out right? Nothing if interrupted.
  Result<std::optional<bool>> reverts(std::span<const int> sites) const;
  // Share of the way from the candidate's logprob to the base's.
  Result<double> recovery(std::span<const int> sites) const;
  double recovery_of(double logprob) const;
  // All of it, of a mixture; nothing if interrupted.
  Result<std::optional<Trial>> full(std::span<const int> sites,
                                    engine::Mixture::Direction direction) const;

 private:
  Trials() = default;
  Result<std::optional<std::vector<harness::Asked>>> ask(const engine::Engine& engine) const;
  Result<void> force(const engine::Engine& engine, Trial& trial) const;

  const engine::Mixture* mixture_ = nullptr;
  const harness::Plan* plan_ = nullptr;
  std::vector<harness::PlanItem> items_;
  int n_threads_ = 0;
  std::function<bool()> interrupted_;
  Trial base_, candidate_;
  std::vector<std::size_t> partings_;
};

}  // namespace assay::cli
