// The options of `assay run`: defaults, then what the record of a resumed run holds, then what was
// typed.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "harness/plan.h"

namespace assay::cli {

struct RunOptions {
  std::vector<std::string> suites;
  std::string suites_folder, model, baseline, out, profile = "quick";
  std::string data;                    // folder of public files that suites read
  std::vector<std::string> haystacks;  // LANGUAGE=FILE
  std::string base;                    // of divergence: a model's folder, or a captured base
  std::string golden;                  // folder of <model>/runs/<name>; "none": no check
  std::vector<std::string> languages, arms;
  int limit = 0, threads = 0, tensor_parallel = 1, context = 0;
  std::uint64_t seed = 0;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k, max_tokens;
  std::string backend = "cpu", kernel, attention = "auto";
};

Json to_json(const RunOptions& options);
// Both objects hold any subset of to_json's keys; `given` wins.
Result<RunOptions> merge_options(const Json& recorded, const Json& given);
// Relative paths on record are of the folder in which the run was started: an error where one of
// them is not there from here, unless it is given again. `run` is the folder to resume.
Result<void> check_recorded_paths(const std::string& run, const Json& recorded, const Json& given);
// An entry of haystacks that is not LANGUAGE=FILE is an error.
Result<harness::SuiteInputs> to_suite_inputs(const RunOptions& options);
Result<harness::PlanOptions> to_plan_options(const RunOptions& options);

// The flags, and afterwards only those that were typed.
class RunFlags {
 public:
  void add_to(CLI::App& app);
  Json given() const;

 private:
  RunOptions values_;
  double temperature_ = 0, top_p_ = 0, min_p_ = 0, repetition_penalty_ = 0;
  int top_k_ = 0, max_tokens_ = 0;
  std::vector<std::pair<std::string, const CLI::Option*>> flags_;  // key in to_json, flag
};

}  // namespace assay::cli
