// Runs what a selftest needs: a plan put to a model, kept on disk so that a second call goes on;
// and models with a planted fault.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/result.h"
#include "harness/divergence_suite.h"
#include "harness/engine_target.h"
#include "harness/golden_check.h"
#include "harness/plan.h"
#include "harness/sample.h"
#include "harness/selftest_faults.h"

namespace assay::cli {

struct LabOptions {
  std::string model, vq;  // the healthy ones: bf16, and a VQ build of it
  std::string golden;     // folder of goldens, by model
  fs::path out;
  std::string backend = "cpu";
  int threads = 0;
  std::function<bool()> interrupted;
};

// An experiment's answers; none where it was interrupted.
using Answers = std::optional<std::vector<harness::Sample>>;

class Lab {
 public:
  explicit Lab(LabOptions options) : options_(std::move(options)) {}

  const std::string& healthy_dir(bool quantised) const {
    return quantised ? options_.vq : options_.model;
  }
  // Loaded at the first call.
  Result<harness::EngineTarget*> healthy(bool quantised);
  // A model, and a fault of the running engine; an error says why it cannot be loaded.
  Result<std::unique_ptr<harness::EngineTarget>> load(const std::string& dir,
                                                      const engine::PlantedFault& fault = {}) const;

  // The folder of a model with a fault of its files; `usage_texts` are what routing is counted on.
  using Texts = std::map<std::string, std::vector<std::vector<int>>>;  // by language
  Result<std::string> plant(const harness::SelftestFault& fault, const Texts& usage_texts);
  // Takes a planted folder away again; what took long to make stays.
  void discard(const harness::SelftestFault& fault);

  // Puts `plan` to `target` into `folder`, or reads what is finished there; goes on with what was
  // begun.
  Result<Answers> ask(const harness::Plan& plan, harness::EngineTarget& target,
                      const fs::path& folder);

  // How far `target` is from the healthy bf16 model on the suite's texts, as run.json's
  // "measurements" have it; none: interrupted.
  Result<std::optional<Json>> diverge(const harness::DivergenceSuite& suite,
                                      const harness::DivergenceSettings& settings,
                                      harness::EngineTarget& target);

  // The model's own goldens, as far as the plan asks what they hold; none: interrupted.
  Result<std::optional<std::vector<harness::GoldenCheck>>> check_goldens(
      const harness::Plan& plan, harness::EngineTarget& target) const;

 private:
  LabOptions options_;
  std::unique_ptr<harness::EngineTarget> healthy_[2];
  std::optional<engine::Engine> reference_;  // the healthy bf16 model's scalar arithmetic
};

}  // namespace assay::cli
