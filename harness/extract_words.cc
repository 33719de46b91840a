#include "harness/extract_words.h"

#include <algorithm>
#include <array>
#include <utility>

#include "harness/extract_numerals.h"
#include "harness/extract_text.h"

namespace assay::harness {
namespace {

using Text = std::u32string_view;

constexpr std::array kUpToNineteen = {
    Text(U"zero"),    Text(U"one"),     Text(U"two"),       Text(U"three"),    Text(U"four"),
    Text(U"five"),    Text(U"six"),     Text(U"seven"),     Text(U"eight"),    Text(U"nine"),
    Text(U"ten"),     Text(U"eleven"),  Text(U"twelve"),    Text(U"thirteen"), Text(U"fourteen"),
    Text(U"fifteen"), Text(U"sixteen"), Text(U"seventeen"), Text(U"eighteen"), Text(U"nineteen")};
constexpr std::array kTensWords = {Text(U"twenty"), Text(U"thirty"), Text(U"forty"),
                                   Text(U"fifty"),  Text(U"sixty"),  Text(U"seventy"),
                                   Text(U"eighty"), Text(U"ninety")};
constexpr std::array kScaleWords = {Text(U"thousand"), Text(U"million"), Text(U"billion"),
                                    Text(U"trillion")};
// The n-th stands at n - 2; "second" is no part.
constexpr std::array kParts = {
    Text(U"half"),  Text(U"third"),   Text(U"fourth"), Text(U"fifth"),
    Text(U"sixth"), Text(U"seventh"), Text(U"eighth"), Text(U"ninth"),
    Text(U"tenth"), Text(U"quarter"), Text(U"halve")};  // halves: without its s
constexpr std::array kOtherOrdinals = {
    Text(U"first"),       Text(U"second"),    Text(U"eleventh"),   Text(U"twelfth"),
    Text(U"thirteenth"),  Text(U"twentieth"), Text(U"hundredth"),  Text(U"thousandth"),
    Text(U"fourteenth"),  Text(U"fifteenth"), Text(U"sixteenth"),  Text(U"seventeenth"),
    Text(U"eighteenth"),  Text(U"thirtieth"), Text(U"nineteenth"), Text(U"hundredths"),
    Text(U"thousandths"),
};

template <std::size_t N>
int index_in(const std::array<Text, N>& words, Text word) {
  const auto at = std::find(words.begin(), words.end(), word);
  return at == words.end() ? -1 : static_cast<int>(at - words.begin());
}

struct Word {
  Text text;
  std::size_t begin = 0, end = 0;
};

Word word_at(Text text, std::size_t i) {
  std::size_t end = i;
  while (end < text.size() && is_letter(text[end])) ++end;
  return {text.substr(i, end - i), i, end};
}

// The word behind spaces or one hyphen; empty where something else stands there.
Word next_word(Text text, std::size_t i) {
  std::size_t begin = i;
  if (begin < text.size() && text[begin] == U'-') {
    ++begin;
  } else {
    while (begin < text.size() && text[begin] == U' ') ++begin;
    if (begin == i) return {{}, i, i};
  }
  return word_at(text, begin);
}

Word previous_word(Text text, std::size_t i) {
  while (i > 0 && text[i - 1] == U' ') --i;
  std::size_t begin = i;
  while (begin > 0 && is_letter(text[begin - 1])) --begin;
  return {text.substr(begin, i - begin), begin, i};
}

bool is_any(Text word, std::initializer_list<Text> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// third, thirds: 3; one third, two thirds, but not two third.
std::optional<int> part_named(Text word, __int128 count) {
  if (count != 1) {
    if (!word.ends_with(U's')) return std::nullopt;
    word.remove_suffix(1);
  }
  const int at = index_in(kParts, word);
  if (at < 0) return std::nullopt;
  return word == U"quarter" ? 4 : word == U"halve" ? 2 : at + 2;
}

class WordReader {
 public:
  WordReader(Text text, std::size_t begin) : text_(text), end_(begin) {}

  std::optional<WordNumber> read() {
    Word word = word_at(text_, end_);
    if (word.text == U"a") {  // a hundred, a dozen
      const Word next = next_word(text_, word.end);
      if (next.text != U"hundred" && next.text != U"dozen" && index_in(kScaleWords, next.text) < 0)
        return std::nullopt;
      group_ = 1;
      if (previous_word(text_, end_).text == U"half") ok_ = false;
      word = next;
    }
    while (!word.text.empty() && take(word)) word = next_word(text_, end_);
    if (n_words_ == 0) return std::nullopt;
    std::optional<Rational> value =
        sum(total_, Rational{group_.value_or(0), 1}).value_or(Rational{});
    if (!read_parts(value)) return std::nullopt;
    if (is_compound()) return std::nullopt;
    return WordNumber{ok_ ? value : std::nullopt, end_, n_words_};
  }

 private:
  enum class Last { kNothing, kSmall, kTens, kHundred, kScale, kAnd };

  bool take(const Word& word) {
    if (word.text == U"and") return take_and(word);
    if (const int small = index_in(kUpToNineteen, word.text); small >= 0) {
      const bool fits = last_ == Last::kTens                             ? small >= 1 && small <= 9
                        : last_ == Last::kHundred || last_ == Last::kAnd ? small > 0
                        : last_ == Last::kScale                          ? small > 0
                                                                         : !group_;
      add(small, fits);
      last_ = Last::kSmall;
    } else if (const int tens = index_in(kTensWords, word.text); tens >= 0) {
      add(10 * (tens + 2), last_ != Last::kSmall && last_ != Last::kTens);
      last_ = Last::kTens;
    } else if (word.text == U"hundred") {
      if (!group_) return false;
      multiply_group(100, *group_ < 100);
      last_ = Last::kHundred;
    } else if (word.text == U"dozen") {
      if (!group_ || total_.num != 0) return false;
      multiply_group(12, true);
      last_ = Last::kSmall;
    } else if (const int scale = index_in(kScaleWords, word.text); scale >= 0) {
      if (!group_ || *group_ == 0) return false;
      if (scale >= last_scale_) ok_ = false;
      const auto part = product(Rational{*group_, 1}, power({10, 1}, Rational{3 * (scale + 1), 1}));
      total_ = sum(total_, *part).value_or(Rational{});
      group_.reset();
      last_scale_ = scale;
      last_ = Last::kScale;
    } else {
      return false;
    }
    end_ = word.end;
    ++n_words_;
    return true;
  }

  // "and" belongs to the number behind hundred and the scales only, before a smaller number.
  bool take_and(const Word& word) {
    if (last_ != Last::kHundred && last_ != Last::kScale) return false;
    const Word next = next_word(text_, word.end);
    if (index_in(kUpToNineteen, next.text) < 1 && index_in(kTensWords, next.text) < 0) return false;
    last_ = Last::kAnd;
    end_ = word.end;
    return true;
  }

  void add(int value, bool fits) {
    if (!fits) ok_ = false;  // twenty twenty-four: a year, or two numbers
    group_ = fits ? group_.value_or(0) + value : value;
  }
  void multiply_group(int by, bool fits) {
    if (!fits) ok_ = false;
    group_ = fits && *group_ < 1000 ? *group_ * by : 1;
  }

  // What may follow: point five, two thirds, and a half. False where it makes an ordinal.
  bool read_parts(std::optional<Rational>& value) {
    const Word next = next_word(text_, end_);
    if (next.text == U"point") return read_point(value, next.end);
    if (const auto part = part_named(next.text, value->num)) {
      // "twenty-five hundredths" and "a hundred thirds" are beyond this reader.
      if (n_words_ > 1) ok_ = false;
      value = quotient(value, Rational{*part, 1});
      end_ = next.end;
      ++n_words_;
      return true;
    }
    if (index_in(kParts, next.text) >= 0 || index_in(kOtherOrdinals, next.text) >= 0) return false;
    if (const auto part = read_and_a_part(text_, end_)) {
      value = sum(*value, *part->value);
      end_ = part->end;
      n_words_ += part->n_words;
    }
    return true;
  }

  bool read_point(std::optional<Rational>& value, std::size_t i) {
    Rational place{1, 1};
    int n_digits = 0;
    for (Word word = next_word(text_, i); n_digits < 18; word = next_word(text_, i), ++n_digits) {
      const int digit = index_in(kUpToNineteen, word.text);
      if (digit < 0) break;
      if (digit > 9) ok_ = false;  // three point fifteen
      place.den *= 10;
      value = sum(*value, Rational{digit, place.den}).value_or(Rational{});
      i = word.end;
      ++n_words_;
    }
    if (n_digits > 0) end_ = i;
    return true;
  }

  // two-step, forty-two-year-old, one's, and a reply that was cut behind "forty-".
  bool is_compound() const {
    if (end_ >= text_.size()) return false;
    if (text_[end_] == U'\'' || text_[end_] == U'’')
      return end_ + 1 < text_.size() && is_letter(text_[end_ + 1]);
    return text_[end_] == U'-' && (end_ + 1 == text_.size() || is_letter(text_[end_ + 1]));
  }

  Text text_;
  std::size_t end_;
  Rational total_;            // of the scales read so far
  std::optional<int> group_;  // below the last scale
  Last last_ = Last::kNothing;
  int last_scale_ = 4, n_words_ = 0;
  bool ok_ = true;
};

}  // namespace

std::optional<WordNumber> read_word_number(Text text, std::size_t i) {
  if (i >= text.size() || !is_letter(text[i])) return std::nullopt;
  if (i > 0 && (is_letter(text[i - 1]) || is_digit(text[i - 1]) || text[i - 1] == U'_' ||
                text[i - 1] == U'\\' || text[i - 1] == U'\''))
    return std::nullopt;
  if (i > 1 && text[i - 1] == U'-' && is_letter(text[i - 2])) return std::nullopt;
  return WordReader(text, i).read();
}

std::optional<WordNumber> read_and_a_part(Text text, std::size_t i) {
  const Word conjunction = next_word(text, i);
  if (conjunction.text != U"and") return std::nullopt;
  const Word article = next_word(text, conjunction.end);
  const Word part = next_word(text, article.end);
  const int count = article.text == U"a" ? 1 : index_in(kUpToNineteen, article.text);
  if (count < 1) return std::nullopt;
  const auto under = part_named(part.text, count);
  if (!under || count >= *under) return std::nullopt;
  return WordNumber{Rational{count, *under}, part.end, 3};
}

bool word_reads_as_number(Text text, std::size_t begin, std::size_t end,
                          std::optional<std::size_t> previous_end) {
  const Word previous = previous_word(text, begin);
  const Word next = next_word(text, end);
  const Text word = text.substr(begin, end - begin);
  if (is_any(previous.text, {U"no", U"any", U"this", U"that", U"each", U"every", U"number"}))
    return false;
  if (word == U"one") {
    // one of them, the one that, one apple: only a bare "one" is surely an amount.
    if (!next.text.empty() && next.text != U"in" && next.text != U"percent") return false;
  } else if (next.text == U"of") {
    return false;
  }
  if (index_in(kTensWords, word) >= 0) return true;
  if (previous.text.empty()) {
    const std::size_t i = previous.end;
    return i == 0 || Text(U"\n:=\"'“「『(*{[>-+×÷/.。!?").find(text[i - 1]) != Text::npos;
  }
  if (is_any(previous.text, {U"and", U"or", U"to", U"not", U"but", U"than", U"plus", U"minus",
                             U"times", U"by", U"of", U"in", U"over"}))
    return (previous_end && begin - *previous_end < 24) ||
           is_any(previous.text, {U"minus", U"not"});
  return is_any(
      previous.text,
      {U"is",  U"be",   U"was",   U"equals",        U"gets",  U"get",    U"exactly", U"negative",
       U"so",  U"just", U"about", U"approximately", U"only",  U"answer", U"result",  U"total",
       U"pay", U"pays", U"cost",  U"costs",         U"earns", U"owes",   U"spends",  U"makes"});
}

}  // namespace assay::harness
