#include "harness/extract_numerals.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "harness/extract_text.h"

namespace assay::harness {
namespace {

using Text = std::u32string_view;

constexpr __int128 kLimit = static_cast<__int128>(1'000'000'000'000'000'000) *
                            1'000'000'000'000'000'000;  // 10^36: sums and products are checked

std::optional<Rational> reduced(__int128 num, __int128 den) {
  if (den == 0) return std::nullopt;
  __int128 a = num < 0 ? -num : num, b = den < 0 ? -den : den;
  while (b != 0) a = std::exchange(b, a % b);
  if (a == 0) a = 1;
  if (den < 0) a = -a;
  const Rational value{num / a, den / a};
  if (value.num >= kLimit || value.num <= -kLimit || value.den >= kLimit) return std::nullopt;
  return value;
}

// 千米 is a kilometre, 千克 a kilogram: the 千 belongs to the unit.
bool is_metric_prefix(Text text, std::size_t i) {
  return text[i] == U'千' && i + 1 < text.size() &&
         Text(U"米克瓦卡赫帕焦伏").find(text[i + 1]) != Text::npos;
}

// Before a counter or at an end: where a number can stand, not in the middle of a word.
bool stands_as_amount(Text text, std::size_t end) {
  static constexpr Text kAfter =
      U"つ個个円元人名本枚匹台冊页回日年月時时分秒点歳岁倍度块,.。、!?)}]」』”’ですだとなにで*\n+-"
      U"×÷=/";
  if (end >= text.size()) return true;
  return is_space(text[end]) || kAfter.find(text[end]) != Text::npos ||
         text.substr(end).starts_with(U"km") || is_metric_prefix(text, end);
}

struct Digits {
  std::optional<Rational> value;
  std::size_t end = 0;
};

std::size_t digits_end(Text text, std::size_t i) {
  while (i < text.size() && is_digit(text[i])) ++i;
  return i;
}

// 1234, 1,234, 3.14: a comma separates thousands only before exactly three digits.
Digits read_digits(Text text, std::size_t begin) {
  std::size_t i = digits_end(text, begin);
  std::u32string written(text.substr(begin, i - begin));
  bool ok = true;
  for (bool first = true; !written.empty(); first = false) {
    if (first && (written.size() > 3)) break;
    if (i >= text.size() || (text[i] != U',' && text[i] != kThinSpace && text[i] != U'\'')) break;
    const std::size_t end = digits_end(text, i + 1);
    if (end - (i + 1) != 3) {
      if (!first && text[i] == U',' && end > i + 1) {  // 1,234,5
        ok = false;
        i = end;
      }
      break;
    }
    written += text.substr(i + 1, 3);
    i = end;
  }
  std::size_t n_decimals = 0;
  if (i + 1 < text.size() && text[i] == U'.' && is_digit(text[i + 1])) {
    const std::size_t end = digits_end(text, i + 1);
    written += text.substr(i + 1, end - i - 1);
    n_decimals = end - i - 1;
    i = end;
  }
  if (written.size() - std::min(written.find_first_not_of(U'0'), written.size()) > 36) ok = false;
  if (!ok || n_decimals > 30) return {std::nullopt, i};
  __int128 num = 0, den = 1;
  for (const char32_t c : written) num = num * 10 + static_cast<int>(c - U'0');
  for (std::size_t k = 0; k < n_decimals; ++k) den *= 10;
  return {reduced(num, den), i};
}

// 十四万二千, 14万2000, 8.5万, 二〇二四. Sections between the big units 万, 億, 兆; inside a
// section the small units 十, 百, 千. Both must fall from left to right.
class MixedReader {
 public:
  MixedReader(Text text, std::size_t begin, std::string_view language)
      : text_(text), begin_(begin), end_(begin), chinese_(language == "zh") {}

  std::optional<Numeral> read() {
    while (end_ < text_.size() && read_one()) {
    }
    if (end_ == begin_) return std::nullopt;
    // 一万二 in Chinese is 12000: the unit below is left out.
    if (chinese_ && kanji_only_ && last_is_digit_ && unit_before_digit_ >= 100 && n_digits_ == 1 &&
        current_)
      current_ = product(current_, Rational{unit_before_digit_ / 10, 1});
    // 三四人, 十七八: three or four, seventeen or eighteen.
    if (current_ && n_digits_ > 1 && kanji_only_ &&
        (last_unit_ > 0 ? last_unit_ < 10'000 || current_->num >= last_unit_
                        : n_digits_ == 2 && current_->num % 11 == 1 && current_->num > 11))
      ok_ = false;
    flush_section();
    if (current_) add(total_, current_);
    return Numeral{ok_ ? total_ : std::nullopt, end_, !kanji_only_};
  }

 private:
  bool read_one() {
    const char32_t c = text_[end_];
    if (is_digit(c)) {
      if (current_ || (end_ > begin_ && kanji_digit(text_[end_ - 1]) >= 0)) return false;
      const Digits digits = read_digits(text_, end_);
      // 14万20000: the second part does not fit below the first one's unit.
      if (!digits.value || (last_unit_ > 0 && digits.value->num / digits.value->den >= last_unit_))
        ok_ = false;
      const bool unit_follows = digits.end < text_.size() && kanji_unit(text_[digits.end]) > 0;
      if (chinese_ && last_unit_ > 0 && digits.value && digits.value->num < 10 && !unit_follows)
        ok_ = false;  // 1万2
      current_ = digits.value.value_or(Rational{});
      end_ = digits.end;
      kanji_only_ = false;
      return true;
    }
    if (const int digit = kanji_digit(c); digit >= 0) {
      if (!kanji_only_ && current_) return false;  // 3一
      if (current_ && n_digits_ == 0) return false;
      const bool gap = digit == 0 && !current_ && last_unit_ > 0;  // 八百零一
      if (gap) {
        unit_before_digit_ = 0;
      } else {
        if (!current_) {
          current_ = Rational{};
          n_digits_ = 0;
          if (!(end_ > begin_ && kanji_digit(text_[end_ - 1]) == 0))
            unit_before_digit_ = last_unit_;
        }
        current_ = sum(*product(current_, Rational{10, 1}), Rational{digit, 1});
        if (!current_) return false;
        if (++n_digits_ > 30) ok_ = false;
        if (n_digits_ > 30) current_ = Rational{};
      }
      last_is_digit_ = true;
      ++end_;
      return true;
    }
    const __int128 unit = kanji_unit(c);
    if (unit == 0 || is_metric_prefix(text_, end_)) return false;
    last_is_digit_ = false;
    if (unit < 10'000) {
      if (small_ > 0 && unit >= small_) return false;
      add(section_, product(current_ ? current_ : Rational{1, 1}, Rational{unit, 1}));
      has_section_ = true;
      small_ = unit;
    } else {
      if (!current_ && !has_section_) return false;  // 万 alone
      if (big_ > 0 && unit >= big_) return false;
      flush_section_into(unit);
      big_ = unit;
      small_ = 0;
    }
    last_unit_ = unit;
    current_.reset();
    n_digits_ = 0;
    ++end_;
    return true;
  }

  void add(std::optional<Rational>& to, const std::optional<Rational>& what) {
    to = to && what ? sum(*to, *what) : std::nullopt;
    if (!to) {
      ok_ = false;
      to = Rational{};
    }
  }
  void flush_section_into(__int128 unit) {
    if (current_) add(section_, current_);
    add(total_, product(section_, Rational{unit, 1}));
    section_ = Rational{};
    has_section_ = false;
  }
  void flush_section() {
    add(total_, section_);
    section_ = Rational{};
  }

  Text text_;
  std::size_t begin_, end_;
  bool chinese_;
  std::optional<Rational> total_ = Rational{}, section_ = Rational{};
  std::optional<Rational> current_;  // digits read since the last unit
  int n_digits_ = 0;                 // kanji digits in current_
  bool has_section_ = false, kanji_only_ = true, ok_ = true, last_is_digit_ = false;
  __int128 small_ = 0, big_ = 0, last_unit_ = 0, unit_before_digit_ = 0;
};

}  // namespace

int kanji_digit(char32_t c) {
  static constexpr Text kDigits = U"〇一二三四五六七八九";
  static constexpr Text kFormal = U"零壱弐参肆伍陸漆捌玖";
  static constexpr Text kChinese = U"零壹贰叁肆伍陆柒捌玖";
  for (const Text row : {kDigits, kFormal, kChinese})
    if (const auto at = row.find(c); at != Text::npos) return static_cast<int>(at);
  return c == U'两' || c == U'兩' ? 2 : -1;
}

__int128 kanji_unit(char32_t c) {
  switch (c) {
    case U'十':
    case U'拾':
      return 10;
    case U'百':
    case U'佰':
      return 100;
    case U'千':
    case U'仟':
      return 1000;
    case U'万':
    case U'萬':
      return 10'000;
    case U'億':
    case U'亿':
      return 100'000'000;
    case U'兆':
      return 1'000'000'000'000;
    default:
      return 0;
  }
}

std::optional<Numeral> read_numeral(Text text, std::size_t i, std::string_view language) {
  if (i >= text.size()) return std::nullopt;
  if (text[i] == U'.' && i + 1 < text.size() && is_digit(text[i + 1]) &&
      (i == 0 || (text[i - 1] != U'.' && !is_digit(text[i - 1])))) {  // .5
    const std::size_t end = digits_end(text, i + 1);
    if (end - i > 30) return Numeral{std::nullopt, end, true};
    const Digits digits = read_digits(text, i + 1);
    if (digits.end != end || !digits.value) return Numeral{std::nullopt, digits.end, true};
    return Numeral{
        quotient(digits.value, power({10, 1}, Rational{static_cast<int>(end - i - 1), 1})), end,
        true};
  }
  if (!is_digit(text[i]) && !kanji_digit_or_unit(text[i])) return std::nullopt;
  return MixedReader(text, i, language).read();
}

std::optional<Numeral> read_kanji_decimals(Text text, std::size_t i) {
  std::optional<Rational> value = Rational{};
  std::size_t end = i;
  for (__int128 place = 10; end < text.size() && kanji_digit(text[end]) >= 0; place *= 10, ++end) {
    if (end - i >= 30) return Numeral{std::nullopt, end, false};
    value = sum(*value, Rational{kanji_digit(text[end]), place}).value_or(Rational{});
  }
  if (end == i) return std::nullopt;
  return Numeral{value, end, false};
}

bool kanji_digit_or_unit(char32_t c) { return kanji_digit(c) >= 0 || kanji_unit(c) > 0; }

bool is_superscript(char32_t c) {
  return c == 0xB2 || c == 0xB3 || c == 0xB9 || (c >= 0x2070 && c <= 0x2079);
}

std::optional<Rational> vulgar_fraction(char32_t c) {
  static constexpr std::array<std::pair<char32_t, Rational>, 15> kFractions = {{
      {U'½', {1, 2}},
      {U'¼', {1, 4}},
      {U'¾', {3, 4}},
      {U'⅓', {1, 3}},
      {U'⅔', {2, 3}},
      {U'⅕', {1, 5}},
      {U'⅖', {2, 5}},
      {U'⅗', {3, 5}},
      {U'⅘', {4, 5}},
      {U'⅙', {1, 6}},
      {U'⅚', {5, 6}},
      {U'⅛', {1, 8}},
      {U'⅜', {3, 8}},
      {U'⅝', {5, 8}},
      {U'⅞', {7, 8}},
  }};
  for (const auto& [sign, value] : kFractions)
    if (c == sign) return value;
  return std::nullopt;
}

bool kanji_reads_as_number(Text text, std::size_t begin, std::size_t end) {
  const Text rest = text.substr(end);
  const char32_t next = rest.empty() ? 0 : rest[0];
  // Words that begin with a numeral: 一共, 一番, 十分, 一般, 統一, 千葉 …
  static constexpr Text kWords = U"共番些样様樣般定起直切旦致緒部種旁律";
  const Text last = text.substr(end - 1, 1);
  if ((last == U"一" && kWords.find(next) != Text::npos) || rest.starts_with(U"つの")) return false;
  if (next == U'音' || next == U'屋') return false;  // 五十音, 八百屋
  if (last == U"十" && end - begin == 1 && next == U'分') return false;
  if (begin > 0 && Text(U"統统万唯").find(text[begin - 1]) != Text::npos) return false;
  // 数千, 几百: some.
  if (begin > 0 && Text(U"数几何幾").find(text[begin - 1]) != Text::npos &&
      kanji_unit(text[begin]) > 0)
    return false;
  return end - begin > 1 || stands_as_amount(text, end);
}

bool kanji_is_sure(Text text, std::size_t begin, std::size_t end) {
  if (!stands_as_amount(text, end)) return false;
  if (end - begin > 1) return true;
  // A single one: where something is said to be it, but for 一 (unless of money) and 二つ.
  const Text unit = text.substr(end, 1);
  const bool money = unit == U"円" || unit == U"元";
  return begin > 0 && (text[begin] != U'一' || money) && unit != U"つ" &&
         Text(U"は是为為剩共=:").find(text[begin - 1]) != Text::npos;
}

std::optional<Rational> sum(const Rational& a, const Rational& b) {
  __int128 left = 0, right = 0, num = 0, den = 0;
  if (__builtin_mul_overflow(a.num, b.den, &left) || __builtin_mul_overflow(b.num, a.den, &right) ||
      __builtin_add_overflow(left, right, &num) || __builtin_mul_overflow(a.den, b.den, &den))
    return std::nullopt;
  return reduced(num, den);
}

std::optional<Rational> product(const std::optional<Rational>& a,
                                const std::optional<Rational>& b) {
  __int128 num = 0, den = 0;
  if (!a || !b || __builtin_mul_overflow(a->num, b->num, &num) ||
      __builtin_mul_overflow(a->den, b->den, &den))
    return std::nullopt;
  return reduced(num, den);
}

std::optional<Rational> quotient(const std::optional<Rational>& a,
                                 const std::optional<Rational>& b) {
  if (!b || b->num == 0) return std::nullopt;
  return product(a, reduced(b->den, b->num));
}

std::optional<Rational> power(const Rational& base, const Rational& exponent) {
  if (exponent.den != 1 || exponent.num < 0 || exponent.num > 40) return std::nullopt;
  std::optional<Rational> value = Rational{1, 1};
  for (int i = 0; i < static_cast<int>(exponent.num); ++i) value = product(value, base);
  return value;
}

}  // namespace assay::harness
