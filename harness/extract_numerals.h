// One unsigned numeral (digits with separators, kanji, or both mixed) and exact arithmetic on it.
// Private to the extractor.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include "harness/extract_numbers.h"

namespace assay::harness {

struct Numeral {
  std::optional<Rational> value;  // none: two readings are possible, or too long
  std::size_t end = 0;
  bool digits = true;  // false: kanji alone
};

// The numeral that starts at i, the longest reading; none if no numeral starts there.
std::optional<Numeral> read_numeral(std::u32string_view text, std::size_t i,
                                    std::string_view language);

int kanji_digit(char32_t c);           // 〇 to 九 and their formal forms; -1: none of them
__int128 kanji_unit(char32_t c);       // 十 to 兆: 10 to 10^12; 0: no unit
bool kanji_digit_or_unit(char32_t c);  // either
// 五 behind 三点: digits one by one, then perhaps 万 and its like. From i on; none if no such digit
// stands there.
std::optional<Numeral> read_kanji_decimals(std::u32string_view text, std::size_t i);
bool is_superscript(char32_t c);
std::optional<Rational> vulgar_fraction(char32_t c);  // ½

// Kanji numerals occur in ordinary words (一共, 十分, 一番): false where they do.
bool kanji_reads_as_number(std::u32string_view text, std::size_t begin, std::size_t end);

// Among those: true where it is an amount even beside numbers in digits (残りは八百円, not 八百屋).
bool kanji_is_sure(std::u32string_view text, std::size_t begin, std::size_t end);

// Exact; none where the result does not fit.
std::optional<Rational> sum(const Rational& a, const Rational& b);
std::optional<Rational> product(const std::optional<Rational>& a, const std::optional<Rational>& b);
std::optional<Rational> quotient(const std::optional<Rational>& a,
                                 const std::optional<Rational>& b);
std::optional<Rational> power(const Rational& base, const Rational& exponent);

}  // namespace assay::harness
