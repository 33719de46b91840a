#include "harness/extract_share.h"

#include <algorithm>

#include "harness/extract_numerals.h"
#include "harness/extract_text.h"

namespace assay::harness {
namespace {

using Text = std::u32string_view;

bool is_at(Text text, std::size_t i, Text what) { return text.substr(i, what.size()) == what; }

std::size_t skip_blanks(Text text, std::size_t i) {
  while (i < text.size() && (text[i] == U' ' || text[i] == kThinSpace)) ++i;
  return i;
}

void divide(Literal& literal, int per, std::size_t end) {
  literal.value = quotient(literal.value, Rational{per, 1});
  literal.per = per;
  literal.end = end;
}

// 2割5分3厘: tenths, hundredths, thousandths.
void read_wari(Text text, std::string_view language, Literal& literal) {
  divide(literal, 10, literal.end + 1);
  __int128 place = 100;
  for (const Text unit : {Text(U"分"), Text(U"厘")}) {
    const auto part = read_numeral(text, literal.end, language);
    if (part && is_at(text, part->end, unit) && !is_at(text, part->end, U"分の")) {
      const bool fits =
          literal.value && part->value && part->value->den == 1 && part->value->num < 10;
      literal.value = fits ? sum(*literal.value, Rational{part->value->num, place}) : std::nullopt;
      literal.end = part->end + 1;
    }
    place *= 10;
  }
}

}  // namespace

void read_share(Text text, std::string_view language, Literal& literal) {
  const std::size_t i = skip_blanks(text, literal.end);
  if (i >= text.size() || literal.per != 1) return;
  if (text[i] == U'%' || text[i] == U'‰') {
    const std::size_t next = skip_blanks(text, i + 1);
    const bool remainder = text[i] == U'%' && next < text.size() && is_digit(text[next]);
    const bool points = is_at(text, next, U"ポイント") || is_at(text, next, U"point");
    if (!remainder && !points) divide(literal, text[i] == U'%' ? 100 : 1000, i + 1);
    return;
  }
  for (const Text word : {Text(U"percent"), Text(U"per cent"), Text(U"パーセント")}) {
    const std::size_t end = i + word.size(), next = skip_blanks(text, end);
    if (!is_at(text, i, word) || (end < text.size() && is_letter(text[end]))) continue;
    if (is_at(text, next, U"ポイント") || is_at(text, next, U"point")) return;
    return divide(literal, 100, end);
  }
  if (i != literal.end) return;
  const char32_t next = i + 1 < text.size() ? text[i + 1] : 0;
  if (text[i] == U'割' && Text(U"るりっれらろ算合").find(next) == Text::npos)
    return read_wari(text, language, literal);
  if (language == "zh" && text[i] == U'成' && literal.value && literal.value->num <= 10 &&
      Text(U"立为為功本员員绩績分长長果了").find(next) == Text::npos)
    return divide(literal, 10, i + 1);
  // 八折: sold at eight tenths, or two tenths off.
  if (language == "zh" && text[i] == U'折') literal.value.reset();
}

}  // namespace assay::harness
