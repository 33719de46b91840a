#include "harness/text_answer.h"

#include <unicode/brkiter.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/uscript.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <array>
#include <memory>

#include "base/check.h"

namespace assay::harness {
namespace {

// Letters of one width and case (NFKC_Casefold, character by character), with the way back: unit i
// came from bytes begin[i] … begin[i + 1].
struct Folded {
  icu::UnicodeString text;
  std::vector<std::size_t> begin;
};

Folded fold(std::string_view utf8) {
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* nfkc = icu::Normalizer2::getNFKCCasefoldInstance(error);
  CHECK(U_SUCCESS(error)) << u_errorName(error);
  Folded out;
  const auto n = static_cast<std::int32_t>(utf8.size());
  for (std::int32_t i = 0; i < n;) {
    const auto begin = static_cast<std::size_t>(i);
    UChar32 c;
    U8_NEXT(reinterpret_cast<const std::uint8_t*>(utf8.data()), i, n, c);
    if (c < 0) c = 0xFFFD;
    out.text += nfkc->normalize(icu::UnicodeString(c), error);
    CHECK(U_SUCCESS(error)) << u_errorName(error);
    out.begin.resize(static_cast<std::size_t>(out.text.length()), begin);
  }
  out.begin.push_back(utf8.size());
  return out;
}

// Scripts that are written without spaces.
bool is_unspaced(UChar32 c) {
  UErrorCode error = U_ZERO_ERROR;
  const UScriptCode script = uscript_getScript(c, &error);
  return script == USCRIPT_HAN || script == USCRIPT_HIRAGANA || script == USCRIPT_KATAKANA ||
         c == U'ー';
}

// Whether a word may begin or end between the units before and at `at`: where there are spaces, not
// between two letters or digits; else where ICU's dictionary says so.
bool is_border(const icu::UnicodeString& text, std::int32_t at, icu::BreakIterator& words) {
  if (at == 0 || at == text.length()) return true;
  const UChar32 before = text.char32At(text.moveIndex32(at, -1)), after = text.char32At(at);
  if (!u_isalnum(before) || !u_isalnum(after)) return true;
  if (is_unspaced(before) != is_unspaced(after)) return true;
  return is_unspaced(before) && words.isBoundary(at) != 0;
}

bool starts_with_any(const icu::UnicodeString& text, std::int32_t at,
                     std::initializer_list<const char16_t*> words) {
  return std::any_of(words.begin(), words.end(), [&](const char16_t* word) {
    const icu::UnicodeString w(word);
    return text.compare(at, w.length(), w) == 0;
  });
}

bool ends_with_any(const icu::UnicodeString& text, std::int32_t end,
                   std::initializer_list<const char16_t*> words) {
  return std::any_of(words.begin(), words.end(), [&](const char16_t* word) {
    const icu::UnicodeString w(word);
    return w.length() <= end && text.compare(end - w.length(), w.length(), w) == 0;
  });
}

// 京都ではなく, 不是京都, "not Kyoto", "Kyoto is not".
bool denied(const icu::UnicodeString& text, std::int32_t begin, std::int32_t end) {
  std::int32_t after = end;
  while (after < text.length() && starts_with_any(text, after, {u"」", u"”", u"\"", u"'", u"』"}))
    ++after;
  if (starts_with_any(text, after,
                      {u"ではな", u"でな", u"じゃな", u"でも", u" is not", u" isn't", u" isn’t"}) &&
      !starts_with_any(text, after, {u"でもあ"}))
    return true;
  std::int32_t before = begin;
  while (before > 0 && ends_with_any(text, before, {u"「", u"“", u"\"", u"'", u"『", u" "}))
    --before;
  return ends_with_any(text, before,
                       {u"不是", u"并非", u"而非", u"並非", u" not", u"isn't", u"isn’t",
                        u"rather than", u"instead of"});
}

}  // namespace

std::vector<std::string> accepted_answers(std::string_view written) {
  std::vector<std::string> out;
  while (true) {
    const std::size_t bar = written.find('|');
    std::string_view one = written.substr(0, bar);
    const auto blank = [](char c) { return c == ' ' || c == '\t'; };
    while (!one.empty() && blank(one.front())) one.remove_prefix(1);
    while (!one.empty() && blank(one.back())) one.remove_suffix(1);
    if (!one.empty()) out.emplace_back(one);
    if (bar == std::string_view::npos) return out;
    written.remove_prefix(bar + 1);
  }
}

std::optional<Extraction> find_accepted(std::string_view text, std::string_view accepted) {
  UErrorCode error = U_ZERO_ERROR;
  const std::unique_ptr<icu::BreakIterator> words(
      icu::BreakIterator::createWordInstance(icu::Locale::getRoot(), error));
  CHECK(U_SUCCESS(error)) << u_errorName(error);
  const Folded folded = fold(text);
  words->setText(folded.text);
  for (const std::string& answer : accepted_answers(accepted)) {
    const icu::UnicodeString wanted = fold(answer).text;
    for (std::int32_t at = folded.text.indexOf(wanted); at >= 0;
         at = folded.text.indexOf(wanted, at + 1)) {
      const std::int32_t end = at + wanted.length();
      if (!is_border(folded.text, at, *words) || !is_border(folded.text, end, *words)) continue;
      if (denied(folded.text, at, end)) continue;
      return Extraction{answer, "accepted", folded.begin[static_cast<std::size_t>(at)],
                        folded.begin[static_cast<std::size_t>(end)]};
    }
  }
  return std::nullopt;
}

}  // namespace assay::harness
