#include "harness/extract_text.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <array>
#include <utility>

namespace assay::harness {
namespace {

bool is_minus(char32_t c) {
  return c == U'-' || c == 0x2212 || c == 0x2010 || c == 0x2011 || c == 0x2013 || c == 0xFE63 ||
         c == 0xFF0D;
}

bool is_currency(char32_t c) { return u_charType(static_cast<UChar32>(c)) == U_CURRENCY_SYMBOL; }

// One character to one character.
char32_t fold_char(char32_t c) {
  if (is_minus(c)) return U'-';
  if (u_charType(static_cast<UChar32>(c)) == U_DECIMAL_DIGIT_NUMBER)
    return U'0' + static_cast<char32_t>(u_charDigitValue(static_cast<UChar32>(c)));
  if (c == 0x00A0 || c == 0x2007 || c == 0x2008 || c == 0x202F) return kThinSpace;
  if (c == 0x3000) return U' ';
  if (c == 0xFFE5) return 0x00A5;                              // full-width yen
  if (c >= 0xFF01 && c <= 0xFF5E) c -= 0xFF01 - U'!';          // full-width ASCII
  if (c == 0x2044 || c == 0x2215) return U'/';                 // fraction and division slash
  if (c == 0x2248 || c == 0x2252 || c == 0x2243) return U'=';  // ≈ ≒ ≃
  if (c == 0x2217 || c == 0x22C5 || c == 0x2715 || c == 0x2A2F) return U'×';
  if (c >= U'A' && c <= U'Z') c += U'a' - U'A';
  return c;
}

struct Latex {
  std::u32string_view command, replacement;
};
// Longer commands before their prefixes. \boxed, \frac and their like are not here: rules read
// them.
constexpr std::array kLatex = {
    Latex{U"\\times", U"×"},  Latex{U"\\cdot", U"×"},  Latex{U"\\div", U"÷"},
    Latex{U"\\approx", U"="}, Latex{U"\\text", U" "},  Latex{U"\\mathrm", U" "},
    Latex{U"\\mathbf", U" "}, Latex{U"\\left", U""},   Latex{U"\\right", U""},
    Latex{U"\\qquad", U" "},  Latex{U"\\quad", U" "},  Latex{U"\\(", U" "},
    Latex{U"\\)", U" "},      Latex{U"\\[", U" "},     Latex{U"\\]", U" "},
    Latex{U"\\,", U"\u2009"}, Latex{U"\\!", U""},      Latex{U"\\;", U" "},
    Latex{U"\\ ", U" "},      Latex{U"\\%", U"%"},     Latex{U"\\$", U"$"},
    Latex{U"{,}", U","},      Latex{U"^\\circ", U"°"}, Latex{U"^{\\circ}", U"°"},
};

FoldedText decode(std::string_view utf8) {
  FoldedText out;
  for (std::size_t at = 0; at < utf8.size();) {
    const std::size_t begin = at;
    UChar32 c = 0;
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(utf8.data());
    U8_NEXT(bytes, at, utf8.size(), c);
    out.chars += c < 0 ? char32_t{0xFFFD} : fold_char(static_cast<char32_t>(c));
    out.origin.push_back({begin, at});
  }
  return out;
}

}  // namespace

FoldedText fold_reply(std::string_view utf8) {
  const FoldedText raw = decode(utf8);
  const std::u32string_view in = raw.chars;
  FoldedText out;
  const auto push = [&](char32_t c, std::size_t i, std::size_t n) {
    out.chars += c;
    out.origin.push_back({raw.origin[i].begin, raw.origin[i + n - 1].end});
  };
  const auto is_at = [&](std::size_t i, auto test) { return i < in.size() && test(in[i]); };
  bool in_bold = false, in_money = false;
  for (std::size_t i = 0; i < in.size();) {
    bool replaced = false;
    for (const auto& [command, replacement] : kLatex) {
      if (in.substr(i, command.size()) != command) continue;
      for (const char32_t c : replacement)
        if (c != U'$') push(c, i, command.size());
      i += command.size();
      replaced = true;
      break;
    }
    if (replaced) continue;
    // ** is bold, unless it stands between two digits: then it is a power.
    if (in.substr(i, 2) == U"**" && !(i > 0 && is_digit(in[i - 1]) && is_at(i + 2, is_digit))) {
      if (in_bold) {
        out.bold.back().end = out.chars.size();
      } else {
        out.bold.push_back({out.chars.size(), out.chars.size()});
      }
      in_bold = !in_bold;
      i += 2;
      continue;
    }
    if (is_currency(in[i]) || in[i] == U'`') {
      // -$5 keeps its sign next to its digits; US$18 keeps its letters away from them.
      if (out.chars.empty() || out.chars.back() != U'-') push(U' ', i, 1);
      in_money = is_currency(in[i]);
      ++i;
      continue;
    }
    // $1.5M: an amount in letters, like 18k.
    if (in_money && std::u32string_view(U"mbt").find(in[i]) != std::u32string_view::npos &&
        !is_at(i + 1, is_letter)) {
      push(U'k', i++, 1);
      continue;
    }
    in_money = in_money && (is_digit(in[i]) || in[i] == U'.' || in[i] == U',');
    push(in[i], i, 1);
    ++i;
  }
  if (in_bold) out.bold.pop_back();  // opened and never closed
  return out;
}

}  // namespace assay::harness
