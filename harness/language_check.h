// Which language a text is in, by the scripts of its characters, and where it leaves the one it
// should be in. No model and no word frequencies: Japanese, English and Chinese tell themselves
// apart by kana, Han and Latin, and Han alone by what the national character sets hold. Pure.
// The rules and what they cannot see: docs/design/detectors.md.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace assay::harness {

// kNone: cannot tell (too little text, or nothing but numbers, formulas, code and names).
enum class Language { kNone, kJapanese, kEnglish, kChinese, kOther };
std::string_view name_of(Language);  // "none", "ja", "en", "zh", "other"
std::optional<Language> parse_language(std::string_view);

// Shares are of the text's weight: a character of a script that writes syllables or words weighs 1,
// a letter of an alphabet 0.4, so that a text and its translation weigh about the same. Digits,
// formulas, code and \boxed{} weigh nothing.
struct LanguageGuess {
  Language language = Language::kNone;  // of what stands outside quotation marks, if there is any
  double weight = 0;
  double kana = 0, han = 0, latin = 0, other = 0;  // shares of weight
  // Han characters that only one of the two Chinese scripts has. (Japanese has some of both.)
  int n_simplified = 0, n_traditional = 0;
};
LanguageGuess detect_language(std::string_view utf8);

// A sentence or more in another language than expected. Names, terms, titles and what stands in
// quotation marks belong to the sentence around them, and headings and lists of kanji only are
// Japanese. The first such span is returned, as bytes of the text; nothing is found where the
// expected language is none or other.
struct Drift {
  std::size_t begin = 0, end = 0;
  Language language = Language::kNone;  // what it drifted into
};
std::optional<Drift> find_drift(std::string_view utf8, Language expected);

}  // namespace assay::harness
