// One case, asked once in one arm: a line of samples.jsonl (docs/formats/run-record.md).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "harness/extract.h"
#include "harness/outcome.h"
#include "harness/suite.h"
#include "harness/target.h"

namespace assay::harness {

// The same question in other words, put after a miss.
struct Reask {
  std::vector<int> ids;
  std::string answer;
  Correctness correctness = Correctness::kNotJudged;
};

struct Sample {
  std::string suite, arm, id, cluster, language, kind;
  int repeat = 0;  // 1 to the arm's repeats; 0 where it asks once
  bool gated = true;
  Scoring scoring = Scoring::kNumber;
  Json recipe;                  // of a generated case (a needle's), else null
  std::string question;         // the last user message; of a generated case its end
  std::string prompt;           // as rendered by the chat template; of a generated case empty
  std::vector<int> prompt_ids;  // exactly what the model was given; of a generated case empty …
  int n_prompt_tokens = 0;
  std::string prompt_hash;  // … and this stands for them: XXH3-128 over the ids
  std::string expected;
  std::vector<int> ids;  // the reply, stop token included
  std::string finish;    // empty where nothing was generated
  std::string thinking, answer;
  int n_thinking_tokens = 0, n_stray_tags = 0;
  bool forced_close = false;                       // </think> was written at the thinking budget
  std::string thinking_language, answer_language;  // found there (score.h); empty: cannot be told
  std::string reasoning_language;                  // asked for; empty: not looked at
  std::optional<bool> language_right;              // of both, where both can be told
  bool reached = false;   // not correct, though the right answer stands in the thinking
  int n_hesitations = 0;  // "wait", "待って", "等等" … in the thinking
  std::optional<Reask> reask;
  std::optional<Extraction> extraction;  // span: bytes of `answer`
  Outcome outcome;
  std::string error;                   // why, where termination is error
  double prefill_s = 0, decode_s = 0;  // the only fields that may differ between two equal runs
  std::vector<StepFigures> steps;      // into steps.bin
  bool drawn = false;                  // the report draws them; not on record

  std::string key() const {
    return suite + "/" + arm + "/" + id + (repeat > 0 ? "#" + std::to_string(repeat) : "");
  }
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
