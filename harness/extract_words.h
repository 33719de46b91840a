// Numbers written as English words: forty-two, one thousand and sixteen, two thirds, three point
// five, three and a half, two dozen. Private to the extractor.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include "harness/extract_numbers.h"

namespace assay::harness {

struct WordNumber {
  std::optional<Rational> value;  // none: two readings are possible (nineteen eighty-four)
  std::size_t end = 0;
  int n_words = 0;
};

// The number whose first word starts at i of folded text, the longest reading. None where the words
// are no amount: ordinals (twenty-fifth), compounds (two-step), "one of them", "no one".
std::optional<WordNumber> read_word_number(std::u32string_view text, std::size_t i);

// "and a half" and its like behind a whole number: the part and where it ends.
std::optional<WordNumber> read_and_a_part(std::u32string_view text, std::size_t i);

// A single word (two, ten) occurs in any prose. It counts as a number where an answer can stand:
// first in the text, behind "is", "equals", "pays", a colon or an equals sign, or listed behind the
// number that ends at previous_end.
bool word_reads_as_number(std::u32string_view text, std::size_t begin, std::size_t end,
                          std::optional<std::size_t> previous_end);

}  // namespace assay::harness
