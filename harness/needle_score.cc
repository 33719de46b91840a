#include "harness/needle_score.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace assay::harness {
namespace {

// A number as it stands in the answer: its digits without thousands commas.
struct Written {
  std::string digits;
  Span span;             // in the folded text
  bool in_word = false;  // letters, a decimal point or a sign of a longer code touch it
};

bool has_digit(std::u32string_view text, std::size_t i) {
  return i < text.size() && is_digit(text[i]);
}

std::size_t digits_end(std::u32string_view text, std::size_t i) {
  while (has_digit(text, i)) ++i;
  return i;
}

// "38,216": one to three digits, then groups of exactly three.
std::size_t number_end(std::u32string_view text, std::size_t begin) {
  const std::size_t first = digits_end(text, begin);
  if (first - begin > 3) return first;
  std::size_t end = first;
  while (end < text.size() && (text[end] == U',' || text[end] == kThinSpace) &&
         digits_end(text, end + 1) - (end + 1) == 3)
    end += 4;
  return end;
}

std::vector<Written> numbers_in(std::u32string_view text) {
  std::vector<Written> out;
  for (std::size_t i = 0; i < text.size();) {
    if (!is_digit(text[i])) {
      ++i;
      continue;
    }
    Written number;
    number.span = {i, number_end(text, i)};
    for (std::size_t at = i; at < number.span.end; ++at)
      if (is_digit(text[at])) number.digits += static_cast<char>(text[at]);
    i = number.span.end;
    // "x38216", "ab-38216" and "38216.5" are other things; "38216です", "38216." and "- 38216" are
    // it.
    const auto word_at = [&](std::size_t at) {
      return at < text.size() && (is_letter(text[at]) || is_digit(text[at]));
    };
    const std::size_t begin = number.span.begin;
    const auto digit_at = [&](std::size_t at) { return has_digit(text, at); };
    number.in_word = (begin > 0 && word_at(begin - 1)) || word_at(i) ||
                     (begin > 1 && text[begin - 1] == U'-' && word_at(begin - 2)) ||
                     (begin > 1 && text[begin - 1] == U'.' && digit_at(begin - 2)) ||
                     (i < text.size() && text[i] == U'-' && word_at(i + 1)) ||
                     (i < text.size() && text[i] == U'.' && digit_at(i + 1));
    out.push_back(std::move(number));
  }
  return out;
}

// Folded as the answer is, and ’ as '.
std::u32string folded(std::string_view utf8, FoldedText* origin = nullptr) {
  FoldedText text = fold_reply(utf8);
  std::replace(text.chars.begin(), text.chars.end(), U'\u2019', U'\'');
  std::u32string chars = text.chars;
  if (origin != nullptr) *origin = std::move(text);
  return chars;
}

std::optional<Span> denial_in(std::u32string_view text, const NeedleTables& tables) {
  for (const auto& [name, language] : tables.languages) {
    for (const std::string& phrase : language.absent_phrases) {
      const std::u32string wanted = folded(phrase);
      const std::size_t at = text.find(wanted);
      if (at != std::u32string_view::npos) return Span{at, at + wanted.size()};
    }
  }
  return std::nullopt;
}

bool contains(const std::vector<std::string>& list, const std::string& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

// Numbers with fewer digits than any value has are no values: counts, years, list marks.
std::size_t least_digits(const NeedleTruth& truth, const NeedleTables& tables) {
  std::size_t least = static_cast<std::size_t>(
      std::min(*std::min_element(tables.value_digits.begin(), tables.value_digits.end()),
               *std::min_element(tables.variable_digits.begin(), tables.variable_digits.end())));
  for (const auto* list : {&truth.expected, &truth.forbidden})
    for (const std::string& value : *list) least = std::min(least, value.size());
  return least;
}

}  // namespace

NeedleJudgement judge_needle(std::string_view answer, const NeedleTruth& truth,
                             const NeedleTables& tables) {
  FoldedText origin;
  const std::u32string text = folded(answer, &origin);
  const auto bytes = [&](const Span& span) {
    return Span{origin.origin[span.begin].begin, origin.origin[span.end - 1].end};
  };
  const std::vector<Written> numbers = numbers_in(text);
  const auto verdict = [](Correctness correctness, std::vector<Span> spans, std::string reason) {
    return NeedleJudgement{correctness, std::move(spans), std::move(reason)};
  };

  const std::size_t least = least_digits(truth, tables);
  for (const Written& number : numbers) {
    if (number.digits.size() < least ||
        (!number.in_word && contains(truth.expected, number.digits)))
      continue;
    return verdict(Correctness::kWrong, {bytes(number.span)},
                   number.in_word ? fmt::format("{} is part of something longer", number.digits)
                   : contains(truth.forbidden, number.digits)
                       ? fmt::format("{} is another one's", number.digits)
                       : fmt::format("{} was not asked for", number.digits));
  }

  const std::optional<Span> denial = denial_in(text, tables);
  if (truth.expected.empty()) {
    if (denial) return verdict(Correctness::kCorrect, {bytes(*denial)}, "");
    return verdict(Correctness::kUnextractable, {}, "it neither denies nor gives a value");
  }

  std::vector<Span> found;
  std::string missing;
  for (const std::string& value : truth.expected) {
    const auto at = std::find_if(numbers.begin(), numbers.end(), [&](const Written& number) {
      return !number.in_word && number.digits == value;
    });
    if (at != numbers.end()) {
      found.push_back(bytes(at->span));
    } else if (missing.empty()) {
      missing = fmt::format("{} is missing", value);
    }
  }
  if (missing.empty()) return verdict(Correctness::kCorrect, std::move(found), "");
  if (!found.empty()) return verdict(Correctness::kWrong, std::move(found), missing);
  if (denial) return verdict(Correctness::kWrong, {bytes(*denial)}, "it says that it is not there");
  if (!numbers.empty()) return verdict(Correctness::kWrong, {bytes(numbers[0].span)}, missing);
  return verdict(Correctness::kUnextractable, {}, "no number in it");
}

}  // namespace assay::harness
