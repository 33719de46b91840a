// A haystack of exactly so many tokens, with needles at given depths. Private to needle.cc.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace assay::harness {

struct NeedleSentence {
  std::string text;
  std::string gap;  // white space after it, in the text it comes from
};

struct HaystackParts {
  std::string before, after;         // what stands around the haystack in the message
  std::vector<std::string> needles;  // sentences
  std::vector<double> depths;        // of each: 0 at the beginning, 1 at the very end
  std::string join;                  // between a needle and the sentence before it
  // The haystack's sentence i; none: the text has no more.
  std::function<std::optional<NeedleSentence>(std::size_t i)> sentence;
};

struct FittedHaystack {
  std::string text;
  std::vector<double> shares;  // where each needle begins, by tokens
};

// Tokens of the prompt whose one message is `content`.
using CountContent = std::function<Result<int>(const std::string& content)>;

// Near-additivity of token counts is only assumed on the way: the whole prompt is counted in the
// end, and what it lacks or has too much is repaired by exchanging sentences.
Result<FittedHaystack> fit_haystack(const HaystackParts& parts, int n_tokens,
                                    const CountContent& count);

}  // namespace assay::harness
