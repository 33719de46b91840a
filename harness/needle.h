// From a needle's recipe to its prompt, with exactly as many tokens as the recipe says. Pure.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "harness/needle_cases.h"
#include "harness/needle_fit.h"
#include "harness/needle_score.h"
#include "harness/needle_tables.h"

namespace assay::harness {

// Tokens of the prompt that these messages become, chat template and all: the number that must be
// exact. It depends on the arm (the template says other things with thinking), so a prompt is built
// for an arm; keys, values, question and depth are the same in every arm.
using CountTokens = std::function<Result<int>(const OrderedJson& messages)>;

// A haystack of the user's own, cut at ICU's sentence borders and, always, at line ends.
Result<std::vector<NeedleSentence>> split_sentences(std::string_view utf8,
                                                    std::string_view language,
                                                    std::string_view source);

struct NeedlePrompt {
  OrderedJson messages;          // one user message: introduction, haystack with needles, question
  OrderedJson reask;             // the same up to the question, which is put in other words
  std::size_t shared_bytes = 0;  // of the two messages' contents
  std::string question, reask_question;
  NeedleTruth truth;
  // Where needles begin, as a share of the haystack's tokens: first the asked ones in text order
  // (a variable's definition and hops), then the distractors.
  std::vector<double> shares;
};

// `own_text` replaces the tables' haystack: it begins at a sentence that the seed chooses and goes
// on from the start after its end, each sentence at most once. One that is too short is an error
// that says how many tokens it has and how many are needed.
Result<NeedlePrompt> build_needle(const NeedleRecipe& recipe, const NeedleTables& tables,
                                  const CountTokens& count_tokens,
                                  const std::vector<NeedleSentence>* own_text = nullptr);

}  // namespace assay::harness
