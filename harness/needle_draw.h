// What a recipe's seed decides: keys, values, sentences and questions of a needle prompt. Private
// to needle.cc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "harness/needle_cases.h"
#include "harness/needle_score.h"
#include "harness/needle_tables.h"

namespace assay::harness {

// Draws in order from one stream of a seed; streams do not disturb each other.
class Draw {
 public:
  Draw(std::uint64_t seed, std::uint64_t stream) : seed_(seed), stream_(stream) {}
  std::size_t below(std::size_t n);
  template <class T>
  const T& of(const std::vector<T>& list) {
    return list[below(list.size())];
  }

 private:
  std::uint64_t seed_, stream_, position_ = 0;
};

std::string generate(const NeedleGrammar& grammar, Draw& draw);

struct DrawnNeedles {
  std::vector<std::string> asked, distractors;  // sentences, in the order of the text
  NeedleTruth truth;
  std::string intro, label, question, reask;
};

// `own_text`, where it is not empty, may not hold a drawn key or value by chance.
Result<DrawnNeedles> draw_needles(const NeedleRecipe& recipe, const NeedleTables& tables,
                                  std::string_view own_text);

// Streams above every one that draw_needles uses: the haystack's sentence i.
Draw sentence_draw(std::uint64_t seed, std::size_t i);
// How paragraphs are made, and where a text of the user's own begins.
Draw layout_draw(std::uint64_t seed);

}  // namespace assay::harness
