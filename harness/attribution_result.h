// What `assay attribute` found, as JSON and as text.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "harness/attribution.h"

namespace assay::harness {

// One model's answers to the cases, and how it sees the base's.
struct AttributionEvidence {
  std::string model;  // "base", "candidate", "candidate with the base's weights", …
  struct Answer {
    std::string case_key, answer, outcome;  // outcome: class_of
    double margin = 0;  // log p of the base's token less the candidate's, where their replies part
  };
  std::vector<Answer> answers;
  bool all_right = false;
  double logprob = 0;   // of the base's replies, summed
  double recovery = 0;  // 0 as the candidate's, 1 as the base's
};

struct AttributionCase {
  std::string key, question, expected;
  int parting = 0;                          // reply token where the two replies part …
  std::string base_token, candidate_token;  // … and what each says there; empty: the reply's end
};

struct AttributionReport {
  std::string base, candidate;
  std::vector<AttributionCase> cases;
  int n_sites = 0;  // where the two differ
  std::vector<std::string> found;
  Attribution attribution;
  std::vector<AttributionEvidence> evidence;
  bool interrupted = false;
};

Json to_json(const AttributionReport& report);
std::string render_attribution(const AttributionReport& report, bool colour);

}  // namespace assay::harness
