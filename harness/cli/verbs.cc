#include "harness/cli/verb.h"

namespace assay::cli {

std::span<const Verb* const> all_verbs() {
  static constexpr const Verb* kVerbs[] = {
      &run_verb,      &generate_verb,  &inspect_verb,   &tokenize_verb,
      &extract_verb,  &score_verb,     &bench_verb,     &trace_verb,
      &diverge_verb,  &calibrate_verb, &quantize_verb,  &accept_verb,
      &selftest_verb, &compare_verb,   &attribute_verb, &synthesize_verb,
  };
  return kVerbs;
}

}  // namespace assay::cli
