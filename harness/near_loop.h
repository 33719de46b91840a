// A reply that goes round in circles without repeating itself exactly: a counter runs, a word
// changes, three sentences take turns. find_suffix_loop (outcome.h) finds the exact ones. Pure.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "harness/language_check.h"

namespace assay::harness {

inline constexpr int kNearGram = 8;             // tokens that must agree for a repetition
inline constexpr int kNearCopies = 4;           // of a gram, as for exact loops (kMinCopies)
inline constexpr int kNearWindow = 8192;        // tokens at the end in which copies are counted
inline constexpr int kMinNearLoopTokens = 256;  // 4 × kMinLoopTokens: fewer tell too little
inline constexpr double kRepeatedShareChange = 0.4;  // between prose (0) and loops (0.47 to 1)

// What the two measures say about the end of a reply.
struct TailRepetition {
  int start = 0;                        // token from which the reply repeats itself
  double repeated_share = 0;            // of the 8-grams from there on: those that occur 4 times
  double compression_ratio = 0;         // of the text from there on
  Language language = Language::kNone;  // of that text
};

using DecodeIds = std::function<std::string(std::span<const int>)>;

// Nothing where fewer than kMinNearLoopTokens tokens repeat at all, or where the last of them do
// not.
std::optional<TailRepetition> measure_tail(std::span<const int> ids, const DecodeIds& decode);

// Bytes over the bytes that zlib (level 6) makes of them, of at most the last 32 KiB.
double compression_ratio(std::string_view bytes);

// What both measures must reach in a text of this language; kNone (code, tables, formulas) has more
// repetition by nature. Derived from suites/detectors: docs/design/detectors.md, "Thresholds".
struct NearLoopThresholds {
  double repeated_share = 0, compression_ratio = 0;
};
NearLoopThresholds near_loop_thresholds(Language language);

// A near loop that the reply ends in, by both measures together. Honest tables pack well, but their
// rows have no eight tokens in common; a draft that is written three times repeats, but not four
// times. Exact loops have both too: ask find_suffix_loop first.
std::optional<TailRepetition> find_near_loop(std::span<const int> ids, const DecodeIds& decode);

}  // namespace assay::harness
