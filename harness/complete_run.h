// For tests of what is made from a record: run.json of a complete run of the small suite.
#pragma once

#include <vector>

#include "harness/metrics.h"
#include "harness/record.h"
#include "harness/test_support.h"
#include "harness/verdict.h"

namespace assay::harness {

// A right answer to every case of small_plan(), in its order.
inline std::vector<Sample> full_samples() {
  std::vector<Sample> samples;
  const Plan plan = small_plan();
  for (const PlanItem& item : plan.items) {
    const Case& c = plan.case_of(item);
    samples.push_back(
        made_sample(c.id, c.cluster, c.language, Correctness::kCorrect, plan.arm_of(item).name));
    samples.back().question = "2 + 3?";
    samples.back().expected = c.answer;
    samples.back().prefill_s = 0.25;
    samples.back().decode_s = 0.5;
  }
  return samples;
}

inline Json complete_run(const std::vector<Sample>& samples) {
  const Plan plan = small_plan();
  Json metrics = Json::array();
  for (const Group& g : summarise(samples)) metrics.push_back(to_json(g));
  return {{"format", kRecordFormat},
          {"status", "complete"},
          {"plan", plan.to_json()},
          {"identity", {{"model", "m"}}},
          {"provenance",
           {{"command", "assay run sums --model m"},
            {"started", "2026-11-25T03:25:27Z"},
            {"target", Json::object()}}},
          {"verdict", to_json(judge(plan, samples))},
          {"metrics", metrics},
          {"samples", {{"n", samples.size()}, {"hash", "h"}}},
          {"timings", Json::object()}};
}

}  // namespace assay::harness
