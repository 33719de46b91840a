#include "harness/language_check.h"

#include <unicode/uchar.h>
#include <unicode/uscript.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "harness/han_sets.h"
#include "harness/prose.h"

namespace assay::harness {
namespace {

constexpr std::array<std::string_view, 5> kNames = {"none", "ja", "en", "zh", "other"};

constexpr double kLetterWeight = 0.4;  // five letters of English say what two characters do
// A sentence-sized run, by weight; an English sentence of 10 words weighs about 18, and titles and
// product names of up to 9 words are met in honest answers.
constexpr double kSentenceWeight = 10;
constexpr int kSentenceWords = 10, kSentenceFunctionWords = 3;
constexpr int kSentenceHan = 8, kSentenceEvidence = 2, kSentenceHiragana = 5;

// English words that hold sentences together. Without the keywords of programming languages (if,
// for, not, this …), so that a listing without a fence is no sentence.
constexpr std::array<std::u32string_view, 40> kFunctionWords = {
    U"the",     U"of", U"to",    U"is",     U"are",  U"that", U"it",    U"we",    U"you", U"be",
    U"which",   U"so", U"but",   U"has",    U"have", U"was",  U"were",  U"there", U"can", U"an",
    U"at",      U"by", U"would", U"should", U"what", U"they", U"he",    U"she",   U"its", U"their",
    U"because", U"on", U"must",  U"my",     U"me",   U"how",  U"these", U"will",  U"i",   U"your"};
// Characters of Chinese grammar that Japanese writes at most inside a longer word (目的, 我々).
constexpr std::u32string_view kChineseGrammar =
    U"的是了我你他她它在不这這那们們也就和与與还還没吗嗎呢吧很把被让讓";

enum class Kind { kNeutral, kHiragana, kKatakana, kHan, kLatin, kSyllable, kAlphabet };

struct Unit {  // one character of a syllabic script, or one word of an alphabet
  Kind kind = Kind::kNeutral;
  std::size_t begin = 0, end = 0;  // bytes
  double weight = 0;
  char32_t c = 0;  // the character; of a word, its first
  bool is_function_word = false, has_accent = false;
  bool ends_clause = false;  // a clause ends somewhere before the next unit
  bool full_comma = false;   // … with the comma that Chinese writes and Japanese rarely does
};

Kind kind_of(char32_t c) {
  const auto code = static_cast<UChar32>(c);
  if (!u_isalpha(code) || u_getNumericValue(code) != U_NO_NUMERIC_VALUE) return Kind::kNeutral;
  UErrorCode status = U_ZERO_ERROR;
  switch (uscript_getScript(code, &status)) {
    case USCRIPT_HIRAGANA:
      return Kind::kHiragana;
    case USCRIPT_KATAKANA:
      return Kind::kKatakana;
    case USCRIPT_HAN:
      return Kind::kHan;
    case USCRIPT_LATIN:
      return Kind::kLatin;
    case USCRIPT_HANGUL:
    case USCRIPT_THAI:
      return Kind::kSyllable;
    case USCRIPT_COMMON:
    case USCRIPT_INHERITED:
      return Kind::kNeutral;
    default:
      return Kind::kAlphabet;
  }
}

bool is_kana(const Unit& u) { return u.kind == Kind::kHiragana || u.kind == Kind::kKatakana; }
bool is_cjk(const Unit& u) { return is_kana(u) || u.kind == Kind::kHan; }
bool is_word(Kind kind) { return kind == Kind::kLatin || kind == Kind::kAlphabet; }

// The end of a clause: closing marks of any script, line breaks, and ASCII marks before a blank.
bool ends_clause(const std::vector<ProseChar>& text, std::size_t i) {
  const char32_t c = text[i].c;
  if (c == U'\n' || std::u32string_view(U"。！？，、；：…").find(c) != std::u32string_view::npos)
    return true;
  if (std::u32string_view(U".,;:!?").find(c) == std::u32string_view::npos) return false;
  return i + 1 == text.size() || u_isUWhiteSpace(static_cast<UChar32>(text[i + 1].c)) != 0;
}

std::vector<Unit> units_of(std::string_view utf8, Quotations quotations) {
  const std::vector<ProseChar> text = prose_of(utf8, quotations);
  const auto byte_at = [&](std::size_t i) { return i < text.size() ? text[i].begin : utf8.size(); };
  std::vector<Unit> units;
  for (std::size_t i = 0; i < text.size();) {
    const Kind kind = kind_of(text[i].c);
    if (kind == Kind::kNeutral) {
      if (!units.empty() && ends_clause(text, i)) {
        units.back().ends_clause = true;
        units.back().full_comma = text[i].c == U'，';
      }
      ++i;
      continue;
    }
    std::size_t end = i + 1;
    Unit unit{kind, text[i].begin, 0, 1, text[i].c};
    if (is_word(kind)) {
      std::u32string word;
      end = i;
      for (; end < text.size() && kind_of(text[end].c) == kind; ++end) {
        const char32_t c = text[end].c;
        word += static_cast<char32_t>(u_tolower(static_cast<UChar32>(c)));
        unit.has_accent = unit.has_accent || (kind == Kind::kLatin && c > 0x7F && c < 0xFF00);
      }
      // Variables (but for I), and units and names that hang on a digit: x, 3cm, x2, p1.
      const auto is_number = [&](std::size_t at) {
        return u_isdigit(static_cast<UChar32>(text[at].c)) != 0;
      };
      const bool hangs = (i > 0 && is_number(i - 1)) || (end < text.size() && is_number(end));
      if ((word.size() == 1 && text[i].c != U'I') || hangs) {
        i = end;
        continue;
      }
      unit.weight = kLetterWeight * static_cast<double>(word.size());
      unit.is_function_word =
          std::find(kFunctionWords.begin(), kFunctionWords.end(), word) != kFunctionWords.end();
    }
    unit.end = byte_at(end);
    units.push_back(unit);
    i = end;
  }
  return units;
}

struct Counts {
  double kana = 0, han = 0, latin = 0, other = 0;  // weights
  int n_hiragana = 0, n_words = 0, n_function_words = 0, n_accents = 0;
  int n_not_japanese = 0, n_not_chinese = 0, n_grammar = 0, n_full_commas = 0;

  void add(const Unit& u) {
    n_full_commas += u.full_comma ? 1 : 0;
    switch (u.kind) {
      case Kind::kHiragana:
        ++n_hiragana;
        [[fallthrough]];
      case Kind::kKatakana:
        kana += u.weight;
        break;
      case Kind::kHan:
        han += u.weight;
        n_grammar += kChineseGrammar.find(u.c) != std::u32string_view::npos ? 1 : 0;
        if (!is_in_jis(u.c)) {
          ++n_not_japanese;
        } else if (!is_in_chinese_sets(u.c)) {
          ++n_not_chinese;
        }
        break;
      case Kind::kLatin:
        latin += u.weight;
        ++n_words;
        n_function_words += u.is_function_word ? 1 : 0;
        n_accents += u.has_accent ? 1 : 0;
        break;
      default:
        other += u.weight;
    }
  }
  double weight() const { return kana + han + latin + other; }
  int chinese_evidence() const { return n_not_japanese + n_grammar - n_not_chinese; }

  // A text that mixes scripts is in the language whose grammar holds it together, not in the one of
  // its longest names: a sentence has three times as many hiragana as its English translation has
  // function words (the factors: docs/design/detectors.md).
  Language language() const {
    const double all = weight();
    if (all == 0) return Language::kNone;
    if (other >= all / 2) return other >= 3 ? Language::kOther : Language::kNone;
    const Language characters = east_asian(), words = alphabetic();
    if (characters == Language::kNone) return words;
    if (words == Language::kNone)  // code, names
      return kana + han >= 0.1 * all ? characters : Language::kNone;
    if (words == Language::kOther) return latin > kana + han ? words : characters;
    const int grammar = characters == Language::kJapanese ? n_hiragana : 2 * chinese_evidence();
    return 3 * n_function_words > grammar ? words : characters;
  }

 private:
  // Japanese prose is half kana, and kanji-heavy Japanese a fifth. Chinese that names Japanese
  // things has kana too, but more of its own grammar.
  Language east_asian() const {
    if (kana >= 2 && kana >= 0.1 * (kana + han) && kana > 2 * chinese_evidence())
      return Language::kJapanese;
    if (n_not_japanese > 0 && n_not_japanese >= n_not_chinese) return Language::kChinese;
    if (n_not_chinese > 0 && n_not_chinese > n_grammar) return Language::kJapanese;
    if (n_grammar >= 2) return Language::kChinese;
    return Language::kNone;  // 計算結果: either
  }
  Language alphabetic() const {
    if (n_function_words > 0 && n_function_words >= 0.1 * n_words) return Language::kEnglish;
    if (n_words >= 3 && n_accents >= 0.15 * n_words) return Language::kOther;
    return Language::kNone;  // names, a list of things, another language without accents
  }
};

// The run of units from `begin` on that `keep` holds of.
template <class Keep>
std::size_t run_end(const std::vector<Unit>& units, std::size_t begin, const Keep& keep) {
  while (begin < units.size() && keep(units[begin])) ++begin;
  return begin;
}

Counts counts_of(const std::vector<Unit>& units, std::size_t begin, std::size_t end) {
  Counts counts;
  for (std::size_t i = begin; i < end; ++i) counts.add(units[i]);
  return counts;
}

enum class Alphabet { kLatin, kEastAsian, kOther };
Alphabet alphabet_of(const Unit& u) {
  return u.kind == Kind::kLatin ? Alphabet::kLatin
         : is_cjk(u)            ? Alphabet::kEastAsian
                                : Alphabet::kOther;
}

// The language of a run of one alphabet, if it is a sentence and not the expected language.
std::optional<Language> foreign_sentence(Alphabet alphabet, const Counts& run, Language expected) {
  if (alphabet == Alphabet::kOther)
    return run.other >= kSentenceWeight ? std::optional(Language::kOther) : std::nullopt;
  const Language language = run.language();
  if (language == expected || language == Language::kNone) return std::nullopt;
  bool sentence = false;
  if (alphabet == Alphabet::kLatin) {
    sentence = run.n_words >= kSentenceWords &&
               (language != Language::kEnglish || run.n_function_words >= kSentenceFunctionWords);
  } else if (expected == Language::kEnglish) {  // among each other they are told by the clause
    sentence = run.kana + run.han >= kSentenceWeight &&
               (language == Language::kJapanese ? run.n_hiragana >= 3 : run.chinese_evidence() > 0);
  }
  return sentence ? std::optional(language) : std::nullopt;
}

std::optional<Drift> drift_by_script(const std::vector<Unit>& units, Language expected) {
  for (std::size_t begin = 0; begin < units.size();) {
    const Alphabet alphabet = alphabet_of(units[begin]);
    const std::size_t end =
        run_end(units, begin, [&](const Unit& u) { return alphabet_of(u) == alphabet; });
    if (const auto language = foreign_sentence(alphabet, counts_of(units, begin, end), expected))
      return Drift{units[begin].begin, units[end - 1].end, *language};
    begin = end;
  }
  return std::nullopt;
}

// Japanese among Chinese and the other way round: clauses in a row that only the other can have
// written, and together a sentence.
std::optional<Drift> drift_by_clause(const std::vector<Unit>& units, Language expected) {
  const bool chinese_expected = expected == Language::kChinese;
  const auto is_foreign = [&](const Counts& clause) {
    return chinese_expected
               ? clause.n_not_japanese == 0 && clause.kana >= 0.2 * (clause.kana + clause.han)
               : clause.kana == 0;
  };
  const auto is_sentence = [&](const Counts& run) {
    return chinese_expected
               ? run.kana + run.han >= kSentenceWeight && run.n_hiragana >= kSentenceHiragana
               : run.han >= kSentenceHan &&
                     run.chinese_evidence() + run.n_full_commas >= kSentenceEvidence;
  };
  Counts run;
  std::size_t run_begin = 0;
  std::optional<Drift> found;
  for (std::size_t begin = 0; begin < units.size();) {
    std::size_t end = run_end(units, begin, [](const Unit& u) { return !u.ends_clause; });
    end = std::min(end + 1, units.size());
    const Counts clause = counts_of(units, begin, end);
    const bool has_cjk = clause.kana + clause.han > 0;
    if (has_cjk && !is_foreign(clause)) {
      if (found) return found;
      run = {};
      run_begin = end;
    } else {
      for (std::size_t i = begin; i < end; ++i) run.add(units[i]);
      if (has_cjk && is_sentence(run))
        found = Drift{units[run_begin].begin, units[end - 1].end,
                      chinese_expected ? Language::kJapanese : Language::kChinese};
    }
    begin = end;
  }
  return found;
}

}  // namespace

std::string_view name_of(Language language) { return kNames[static_cast<std::size_t>(language)]; }

std::optional<Language> parse_language(std::string_view name) {
  const auto at = std::find(kNames.begin(), kNames.end(), name);
  if (at == kNames.end()) return std::nullopt;
  return static_cast<Language>(at - kNames.begin());
}

LanguageGuess detect_language(std::string_view utf8) {
  const std::vector<Unit> units = units_of(utf8, Quotations::kKeep);
  const Counts counts = counts_of(units, 0, units.size());
  LanguageGuess guess;
  const std::vector<Unit> own = units_of(utf8, Quotations::kDrop);
  guess.language = counts_of(own, 0, own.size()).language();
  if (guess.language == Language::kNone) guess.language = counts.language();
  guess.weight = counts.weight();
  for (const Unit& u : units) {
    if (u.kind != Kind::kHan) continue;
    guess.n_simplified += is_simplified_only(u.c) ? 1 : 0;
    guess.n_traditional += is_traditional_only(u.c) ? 1 : 0;
  }
  if (guess.weight == 0) return guess;
  guess.kana = counts.kana / guess.weight;
  guess.han = counts.han / guess.weight;
  guess.latin = counts.latin / guess.weight;
  guess.other = counts.other / guess.weight;
  return guess;
}

std::optional<Drift> find_drift(std::string_view utf8, Language expected) {
  if (expected == Language::kNone || expected == Language::kOther) return std::nullopt;
  const std::vector<Unit> units = units_of(utf8, Quotations::kDrop);
  auto by_script = drift_by_script(units, expected);
  if (expected == Language::kEnglish) return by_script;
  auto by_clause = drift_by_clause(units, expected);
  if (by_script && by_clause) return by_script->begin < by_clause->begin ? by_script : by_clause;
  return by_script ? by_script : by_clause;
}

}  // namespace assay::harness
