// How often a text hesitates: "wait", しかし, 不对. A damaged model closes its thinking late
// because it doubts on and on; the rate shows it before a loop does. Pure.
#pragma once

#include <optional>
#include <string_view>

namespace assay::harness {

// Markers of all three languages are counted in any text: thinking often is in another language
// than its question.
struct HesitationCount {
  int ja = 0, en = 0, zh = 0;
  int total() const { return ja + en + zh; }
};
HesitationCount count_hesitations(std::string_view utf8);

// Nothing for a text without tokens.
std::optional<double> hesitations_per_1k(const HesitationCount& count, int n_tokens);

}  // namespace assay::harness
