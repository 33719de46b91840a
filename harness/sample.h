// One case, asked once in one arm: a line of samples.jsonl (docs/formats/run-record.md).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "harness/extract.h"
#include "harness/outcome.h"

namespace assay::harness {

struct Sample {
  std::string suite, arm, id, cluster, language, kind;
  bool gated = true;
  std::string question;         // the last user message
  std::string prompt;           // as rendered by the chat template
  std::vector<int> prompt_ids;  // exactly what the model was given
  std::string expected;
  std::vector<int> ids;  // the reply, stop token included
  std::string finish;    // empty where nothing was generated
  std::string thinking, answer;
  int n_thinking_tokens = 0, n_stray_tags = 0;
  std::optional<Extraction> extraction;  // span: bytes of `answer`
  Outcome outcome;
  std::string error;                   // why, where termination is error
  double prefill_s = 0, decode_s = 0;  // the only fields that may differ between two equal runs

  std::string key() const { return suite + "/" + arm + "/" + id; }
  bool ran() const {
    return outcome.termination != Termination::kError &&
           outcome.termination != Termination::kTimeout;
  }
};

Json to_json(const Sample& sample);
Result<Sample> parse_sample(const Json& json, std::string_view where);

// Over every field but the timings, in the order given: two runs with equal hashes said the same.
std::string hash_of(const std::vector<Sample>& samples);

}  // namespace assay::harness
