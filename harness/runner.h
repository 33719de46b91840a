// Plan in, samples out: renders, asks, scores and records. Every planned item ends as a sample;
// what could not be asked ends as a sample whose outcome is `error`.
#pragma once

#include <functional>
#include <vector>

#include "base/result.h"
#include "harness/plan.h"
#include "harness/record.h"
#include "harness/target.h"

namespace assay::harness {

struct Progress {
  int n_done = 0, n_total = 0;  // samples; those of an earlier session count as done
  int n_earlier = 0;
  long n_tokens = 0;  // generated in this session
  double elapsed_s = 0;
  bool finished = false;
};

struct RunnerHooks {
  std::function<void(const Progress&)> on_progress;  // some ten times a second, on one thread
  std::function<bool()> interrupted;                 // polled likewise; true ends the run early
};

struct RunResult {
  std::vector<Sample> samples;  // in plan order
  bool interrupted = false;
  long n_tokens = 0;
  double wall_s = 0;
};

// Continues after `record.earlier()`. An error means that the record could not be written.
Result<RunResult> run_plan(const Plan& plan, Target& target, RunRecord& record,
                           const RunnerHooks& hooks = {});

}  // namespace assay::harness
