// Is a final answer right about what was hidden? By retrieval, not by wording. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "harness/extract_text.h"
#include "harness/needle_tables.h"
#include "harness/outcome.h"

namespace assay::harness {

// Values are digit strings. `expected` empty: the text does not have what is asked.
struct NeedleTruth {
  std::vector<std::string> expected;
  std::vector<std::string> forbidden;  // other values in the text
};

struct NeedleJudgement {
  Correctness correctness = Correctness::kUnextractable;  // never kNotJudged
  std::vector<Span> spans;  // bytes of the answer that decided: the expected values that were
                            // found, or the number that is wrong, or the words that deny
  std::string reason;       // "38216 is missing", "738216 was not asked for"; empty when correct
};

// Correct: every expected value stands there as a number of its own (38216, ３８２１６, 38,216), in
// any order, and no other number of a value's size does. Text around them is free. A value inside a
// longer number or word is not there. If nothing is expected: the answer says so, in any of the
// tables' languages, and gives no such number. Unextractable: no number and no denial.
// `answer` is the final answer alone: what stands in the thinking does not count.
NeedleJudgement judge_needle(std::string_view answer, const NeedleTruth& truth,
                             const NeedleTables& tables);

}  // namespace assay::harness
