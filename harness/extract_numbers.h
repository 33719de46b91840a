// Numbers written in folded text. Private to the extractor.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace assay::harness {

// Exact. Lowest terms, positive denominator. 38 digits are enough for every suite; what does not
// fit is no number.
struct Rational {
  __int128 num = 0, den = 1;
  bool operator==(const Rational&) const = default;
};

std::string to_string(const Rational& value);  // "1016", "-5", "17/2"

struct Literal {
  std::size_t begin = 0, end = 0;  // in the folded characters; a sign belongs to it
  std::optional<Rational> value;   // none: two readings are possible (a date, 1.2.3, 184/46, 5:3)
  bool digits = true;              // false: kanji or words alone
  bool sure = true;  // false: a single kanji, perhaps of a word in prose (一つずつ, )
  int per = 1;       // 100: written in percent, 10: in 割, 成; `value` is already divided by it
  enum class Role { kNumber, kListMark, kLabel } role = Role::kNumber;  // "1. …"; 第3, x2, Step 2
};

// Every number of the text in order, the longest reading of each: signs, thousands separators,
// decimals, fractions (1/2, \frac, ½, 三分の一), mixed notation (14万2000, 8.5万), kanji numerals,
// English words, powers, million/billion, and percentages. `language` settles 二百五: 250 in
// Chinese, 205 in Japanese.
std::vector<Literal> scan_numbers(std::u32string_view text, std::string_view language);

}  // namespace assay::harness
