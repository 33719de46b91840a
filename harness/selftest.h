// What a harness can see, judged from recorded runs: whether a planted fault was caught, by what,
// and in how many cases; and how often healthy models are accused. Pure.
// docs/design/selftest.md has the method.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/stats.h"
#include "harness/confirm.h"
#include "harness/golden_check.h"
#include "harness/plan.h"
#include "harness/sample.h"
#include "harness/selftest_faults.h"
#include "harness/verdict.h"

namespace assay::harness {

// Everything that a fault's run left behind.
struct FaultRun {
  std::string refused;          // the model could not be loaded, and why; then nothing else is set
  std::vector<Sample> samples;  // in plan order
  std::vector<Sample> base_again, candidate_again;  // the second stage, where it was needed
  std::vector<GoldenCheck> goldens;  // of exactly this model: there are none where files changed
  // How far the healthy model and this one are from the bf16 model, as run.json's "measurements"
  // have it; null: not measured.
  Json base_measurements, measurements;
  double wall_s = 0, divergence_wall_s = 0;  // the second is part of the first
};

struct Detection {
  std::string fault, what, strength, build;
  bool strong = false;
  std::string state;            // of the verdict; "refused" if the model could not be loaded
  std::vector<std::string> by;  // what caught it, most telling first
  int n_samples = 0;            // asked
  int n_needed = 0;             // samples of a smaller run that would still have caught it; 0: none
  int n_texts = 0;              // read for the divergence
  int n_texts_needed = 0;  // of fewer texts that would have shown it; 0: the divergence did not
  double minutes = 0, minutes_needed = 0;  // by the clock, on the machine of the run
  // A run that is not valid for a reason that a healthy one has too (too few samples) is no catch.
  bool caught() const {
    return !by.empty() && (state == "regression" || state == "invalid" || state == "refused");
  }
};

// `base` is a healthy model's run of the same plan.
Detection detect(const SelftestFault& fault, const Plan& plan, std::span<const Sample> base,
                 const FaultRun& run);

// The plan's items in an order of which every beginning is a smaller run of the same mix: arms of
// suites take turns in proportion to what they have.
std::vector<std::size_t> spread_order(const Plan& plan);

// One night of a model against itself: both sides draw afresh.
struct Night {
  int number = 0;
  int n_samples = 0;  // both sides, first stage
  long n_tokens = 0;
  std::vector<std::string> suspicions;   // of the first stage
  std::vector<std::string> regressions;  // of the verdict: an accusation of a healthy model
  std::vector<std::string> problems;     // why the night is not valid
  std::string state;                     // of the verdict's comparison
  double log10_evidence = 0;             // the larger of both sides' against the sampler
  bool sampler_accused = false;
  bool gates_hold = true;  // written for greedy decoding; told, not part of the rule
  double wall_s = 0;
};
Json to_json(const Night& night);
Result<Night> parse_night(const Json& json, std::string_view where);

// `second` of a night that needed none is empty.
Night judge_night(int number, const Plan& plan, std::span<const Sample> base,
                  std::span<const Sample> candidate, const Confirmation& second);

struct FalseFails {
  int n_nights = 0;
  int n_suspected = 0;     // nights in which the first stage suspected something
  int n_failed = 0;        // nights that ended in a regression, or in which a sampler was accused
  int n_inconclusive = 0;  // that ended invalid
  int n_sampler = 0;       // in which an honest sampler was accused
  int n_gates = 0;         // in which a gate for greedy decoding would not have held
  long n_samples = 0, n_tokens = 0;
  double upper95 = 1;  // of the rate of failed nights: Clopper and Pearson, one-sided
};
FalseFails count_false_fails(std::span<const Night> nights);

Json to_json(const Detection& detection);
Result<Detection> parse_detection(const Json& json, std::string_view where);
Json to_json(const FalseFails& fails);

// For a terminal, and for docs.
std::string selftest_table(std::span<const Detection> detections);
std::string selftest_markdown(std::span<const Detection> detections);
std::string false_fail_text(const FalseFails& fails);

// Every strong fault was caught, and the rate of false failures is not surely above kAlpha.
bool selftest_passes(std::span<const Detection> detections, const FalseFails& fails);

}  // namespace assay::harness
