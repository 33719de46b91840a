#include "harness/extract_numbers.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "harness/extract_numerals.h"
#include "harness/extract_share.h"
#include "harness/extract_text.h"
#include "harness/extract_words.h"

namespace assay::harness {
namespace {

using Text = std::u32string_view;

std::string digits_of(__int128 value) {
  if (value < 0) return "-" + digits_of(-value);
  std::string out;
  do {
    out.insert(out.begin(), static_cast<char>('0' + static_cast<int>(value % 10)));
    value /= 10;
  } while (value > 0);
  return out;
}

bool is_at(Text text, std::size_t i, Text what) { return text.substr(i, what.size()) == what; }

std::size_t skip_spaces(Text text, std::size_t i) {
  while (i < text.size() && is_space(text[i])) ++i;
  return i;
}

// The last character before i that is no space; 0 at the start of the text.
char32_t before(Text text, std::size_t i) {
  while (i > 0 && is_space(text[i - 1])) --i;
  return i > 0 ? text[i - 1] : 0;
}

std::size_t line_begin(Text text, std::size_t i) {
  while (i > 0 && text[i - 1] != U'\n') --i;
  return i;
}

bool ends_with_any(Text text, std::initializer_list<Text> endings) {
  return std::any_of(endings.begin(), endings.end(), [&](Text e) { return text.ends_with(e); });
}

bool starts_with_any(Text text, std::initializer_list<Text> starts) {
  return std::any_of(starts.begin(), starts.end(), [&](Text s) { return text.starts_with(s); });
}

// What follows a plain numeral and changes it: /2, 分の1, 点五, ^3, ×10^5, million, 1/2 of a mixed
// number. Leaves `value` empty where two readings remain.
class Suffixes {
 public:
  Suffixes(Text text, std::string_view language, std::optional<Rational> value, std::size_t end)
      : text_(text), language_(language), value_(value), end_(end) {}

  void read() {
    if (read_parts() || read_slash() || read_point()) return;
    read_mixed();
    read_power();
    read_scientific();
    read_scale();
    // 1.2.3, 12:30, 10³: not one number.
    if (more(U'.') || more(U':')) {
      value_.reset();
      while (end_ < text_.size() && (is_digit(text_[end_]) || more(U'.') || more(U':'))) ++end_;
    }
    if (end_ < text_.size() && is_superscript(text_[end_])) {
      value_.reset();
      ++end_;
    }
  }

  std::optional<Rational> value() const { return value_; }
  std::size_t end() const { return end_; }
  int per() const { return per_; }

 private:
  bool more(char32_t separator) const {
    return end_ + 1 < text_.size() && text_[end_] == separator && is_digit(text_[end_ + 1]);
  }

  // 3分の1 is 1/3; 百分之五十 is 50 percent.
  bool read_parts() {
    if (!is_at(text_, end_, U"分の") && !is_at(text_, end_, U"分之")) return false;
    const auto numerator = read_numeral(text_, end_ + 2, language_);
    if (!numerator) return false;
    if (value_ == Rational{100, 1} && text_[end_ + 1] == U'之') per_ = 100;
    std::optional<Rational> over = numerator->value;
    end_ = numerator->end;
    if (more(U'.')) over.reset();
    if (is_at(text_, end_, U"点"))  // 百分之三点五
      if (const auto decimals = read_kanji_decimals(text_, end_ + 1)) {
        over = over && decimals->value ? sum(*over, *decimals->value) : std::nullopt;
        end_ = decimals->end;
      }
    value_ = quotient(over, value_);
    return true;
  }

  bool read_slash() {
    if (!more(U'/')) return false;
    const auto denominator = read_numeral(text_, end_ + 1, language_);
    value_ = quotient(value_, denominator->value);
    end_ = denominator->end;
    // 184/46 is the question repeated, not its answer; 2024/5/3 is a date.
    if (value_ && value_->den == 1) value_.reset();
    if (more(U'/')) {
      value_.reset();
      while (more(U'/'))
        for (++end_; end_ < text_.size() && is_digit(text_[end_]); ++end_) {
        }
    }
    return true;
  }

  // 三点五 is 3.5. 三点十五分 is a time, 3点5 may be one.
  bool read_point() {
    if (!is_at(text_, end_, U"点") || end_ == 0) return false;
    const auto numeral = read_numeral(text_, end_ + 1, language_);
    if (!numeral) {
      if (is_at(text_, end_ + 1, U"半")) value_.reset();  // half past three
      return false;
    }
    const auto decimals = read_kanji_decimals(text_, end_ + 1);
    std::size_t end = decimals ? decimals->end : end_ + 1;
    const __int128 unit = end < text_.size() ? kanji_unit(text_[end]) : 0;
    // 三点五分 is five past three; 九十二点五分 is a score.
    const bool time = end < text_.size() && (text_[end] == U'分' || text_[end] == U'钟') &&
                      value_ && value_->num <= 24 * value_->den;
    if (!decimals || is_digit(text_[end_ - 1]) || time || (unit > 0 && unit < 10'000)) {
      value_.reset();
      end_ = std::max(end, numeral->end);
      return true;
    }
    value_ = value_ && decimals->value ? sum(*value_, *decimals->value) : std::nullopt;
    if (unit > 0) {
      value_ = product(value_, Rational{unit, 1});
      if (++end < text_.size() && kanji_digit_or_unit(text_[end])) value_.reset();
    }
    end_ = end;
    return true;
  }

  // "3 1/2", "3と1/2", "3½", "1と2分の1", "3 and a half".
  void read_mixed() {
    if (!value_ || value_->den != 1 || end_ >= text_.size()) return;
    std::optional<Rational> part = vulgar_fraction(text_[end_]);
    std::size_t end = end_ + 1;
    if (!part && (text_[end_] == U' ' || text_[end_] == U'と' || text_[end_] == U'又')) {
      if (const auto words = read_and_a_part(text_, end_)) {
        value_ = sum(*value_, *words->value);
        end_ = words->end;
        return;
      }
      const auto first = read_numeral(text_, end_ + 1, language_);
      if (!first) return;
      const bool slash = first->digits && is_at(text_, first->end, U"/");
      const bool parts = text_[end_] != U' ' &&
                         (is_at(text_, first->end, U"分の") || is_at(text_, first->end, U"分之"));
      if (!slash && !parts) return;
      const auto second = read_numeral(text_, first->end + (slash ? 1 : 2), language_);
      if (!second || is_at(text_, second->end, U"/")) return;
      part = slash ? quotient(first->value, second->value) : quotient(second->value, first->value);
      end = second->end;
      if (!part || part->num >= part->den) return;
    }
    if (!part) return;
    value_ = sum(*value_, *part);
    end_ = end;
  }

  std::optional<std::pair<Rational, std::size_t>> exponent_at(std::size_t i) const {
    const bool braced = is_at(text_, i, U"{");
    const auto exponent = read_numeral(text_, i + (braced ? 1 : 0), language_);
    if (!exponent || !exponent->value || (braced && !is_at(text_, exponent->end, U"}")))
      return std::nullopt;
    return std::pair(*exponent->value, exponent->end + (braced ? 1 : 0));
  }

  void read_power() {
    if (!is_at(text_, end_, U"^")) return;
    const auto exponent = exponent_at(end_ + 1);
    value_ = exponent && value_ ? power(*value_, exponent->first) : std::nullopt;
    end_ = exponent ? exponent->second : end_ + 1;
  }

  // 6.0×10^5, 6.0e5
  void read_scientific() {
    if (is_at(text_, end_, U"e") && end_ + 1 < text_.size() && is_digit(text_[end_ + 1])) {
      const auto exponent = exponent_at(end_ + 1);
      value_ =
          exponent && value_ ? product(*value_, power({10, 1}, exponent->first)) : std::nullopt;
      end_ = exponent ? exponent->second : end_ + 1;
      return;
    }
    std::size_t i = skip_spaces(text_, end_);
    if (i >= text_.size() || (text_[i] != U'×' && text_[i] != U'*' && text_[i] != U'x')) return;
    i = skip_spaces(text_, i + 1);
    if (!is_at(text_, i, U"10^")) return;
    const auto exponent = exponent_at(i + 3);
    if (!exponent) return;
    if (value_) value_ = product(*value_, power({10, 1}, exponent->first));
    end_ = exponent->second;
  }

  void read_scale() {
    const std::size_t i = skip_spaces(text_, end_);
    static constexpr std::array<std::pair<Text, int>, 5> kScales = {
        {{U"hundred", 2}, {U"thousand", 3}, {U"million", 6}, {U"billion", 9}, {U"trillion", 12}}};
    for (const auto& [word, exponent] : kScales) {
      const std::size_t after = i + word.size();
      if (!is_at(text_, i, word) || (after < text_.size() && is_letter(text_[after]))) continue;
      if (value_) value_ = product(*value_, power({10, 1}, Rational{exponent, 1}));
      end_ = after;
      // "3 million 500 thousand" has two readings for this reader.
      const std::size_t next = skip_spaces(text_, after);
      if (next < text_.size() && is_digit(text_[next])) value_.reset();
      return;
    }
    if (is_at(text_, i, U"dozen") && (i + 5 == text_.size() || !is_letter(text_[i + 5]))) {
      value_ = product(value_, Rational{12, 1});
      end_ = i + 5;
    }
    // 18k: a thousand, or a unit. 3bn: not read.
    for (const Text letters : {Text(U"k"), Text(U"bn"), Text(U"mn")}) {
      const std::size_t after = end_ + letters.size();
      if (is_at(text_, end_, letters) && (after == text_.size() || !is_letter(text_[after])))
        value_.reset();
    }
  }

  Text text_;
  std::string_view language_;
  std::optional<Rational> value_;
  std::size_t end_;
  int per_ = 1;
};

// \frac{1}{2}, also \dfrac and \tfrac.
std::optional<Literal> read_latex_fraction(Text text, std::size_t i, std::string_view language) {
  for (const Text command : {Text(U"\\frac{"), Text(U"\\dfrac{"), Text(U"\\tfrac{")}) {
    if (!is_at(text, i, command)) continue;
    // What is no number over a number has no value, but must not pass for one of its parts.
    const std::size_t begin = i + command.size();
    const bool minus = is_at(text, begin, U"-");
    const auto over = read_numeral(text, begin + (minus ? 1 : 0), language);
    if (!over || !is_at(text, over->end, U"}{")) return Literal{i, begin, std::nullopt};
    const auto under = read_numeral(text, over->end + 2, language);
    if (!under || !is_at(text, under->end, U"}")) return Literal{i, begin, std::nullopt};
    auto value = quotient(over->value, under->value);
    if (value && value->den == 1) value.reset();
    if (value && minus) value->num = -value->num;
    return Literal{i, under->end + 1, value};
  }
  return std::nullopt;
}

std::optional<Literal> read_literal(Text text, std::size_t i, std::string_view language) {
  if (text[i] == U'\\') return read_latex_fraction(text, i, language);
  if (const auto vulgar = vulgar_fraction(text[i])) return Literal{i, i + 1, vulgar};
  if (const auto words = read_word_number(text, i))
    return Literal{i, words->end, words->value, false};
  const auto numeral = read_numeral(text, i, language);
  if (!numeral) return std::nullopt;
  Suffixes suffixes(text, language, numeral->value, numeral->end);
  suffixes.read();
  return Literal{i, suffixes.end(), suffixes.value(), numeral->digits, true, suffixes.per()};
}

// 2時間半, 2个半: half a unit more. 24の半分: half of it.
bool half_follows(Text text, std::size_t i) {
  for (std::size_t n_between = 0; n_between <= 2 && i < text.size(); ++n_between, ++i) {
    if (text[i] == U'半') return true;
    if (is_space(text[i]) || text[i] < 0x3000 || Text(U"、。,.").find(text[i]) != Text::npos)
      return false;
  }
  return false;
}

// √2, 2π, 2x, 1m50, 20多个: not the number that stands there.
bool is_part_of_more(Text text, const Literal& literal) {
  const Text left = text.substr(0, literal.begin), right = text.substr(literal.end);
  if (ends_with_any(left, {U"√", U"\\sqrt{", U"\\sqrt"})) return true;
  if (starts_with_any(right, {U"√", U"\\sqrt", U"π", U"\\pi", U"几"})) return true;
  if (right.size() > 1 && (right[0] == U'多' || right[0] == U'来') &&
      Text(U"个名人元块只本年岁米公天次").find(right[1]) != Text::npos)
    return true;
  for (std::size_t n = 0; n < 2 && n < right.size() && is_letter(right[n]) && right[n] != U'x'; ++n)
    if (n + 1 < right.size() && is_digit(right[n + 1])) return true;
  if (right.empty() || Text(U"xyn").find(right[0]) == Text::npos) return false;
  const std::size_t next = skip_spaces(right, 1);
  return next == right.size() || (!is_letter(right[1]) && !is_digit(right[next]) &&
                                  right[next] != U'(' && right[1] != U'_');
}

// Kanji numerals and number words occur in ordinary prose.
bool reads_as_number(Text text, const Literal& literal, const std::vector<Literal>& before) {
  if (literal.digits) return true;
  if (!is_letter(text[literal.begin]))
    return kanji_reads_as_number(text, literal.begin, literal.end);
  const Text written = text.substr(literal.begin, literal.end - literal.begin);
  if (written.find_first_of(U" -") != Text::npos) return true;
  return word_reads_as_number(
      text, literal.begin, literal.end,
      before.empty() ? std::nullopt : std::optional<std::size_t>(before.back().end));
}

// A minus directly before the digits is a sign unless something stands before it to subtract from,
// such as the number that ends at previous_end.
void read_sign(Text text, Literal& literal, std::size_t previous_end) {
  const std::size_t at = literal.begin;
  const auto negate = [&](std::size_t begin) {
    if (literal.value) literal.value->num = -literal.value->num;
    literal.begin = begin;
  };
  const auto can_subtract = [](char32_t c) {
    return is_digit(c) || c == U')' || c == U'}' || kanji_digit_or_unit(c);
  };
  if (at > 0 && (text[at - 1] == U'-' || text[at - 1] == U'+')) {
    const char32_t previous = before(text, at - 1);
    const bool glued_to_word = at > 1 && is_letter(text[at - 2]);
    if (can_subtract(previous) || glued_to_word || previous == text[at - 1]) return;
    if (text[at - 1] == U'-') return negate(at - 1);
    literal.begin = at - 1;  // +5
    return;
  }
  // ー5, —5, ▲5: meant as a minus, perhaps; a long vowel or a dash behind a word.
  if (at > 0 && Text(U"ー—―─△▲▽▼").find(text[at - 1]) != Text::npos) {
    const char32_t previous = at > 1 ? text[at - 2] : 0;
    const bool vowel = text[at - 1] == U'ー' && previous >= U'ァ' && previous <= U'ヺ';
    if (!vowel && !is_letter(previous) && previous != text[at - 1]) literal.value.reset();
    return;
  }
  for (const Text word :
       {Text(U"マイナス"), Text(U"负"), Text(U"負"), Text(U"minus"), Text(U"negative"),
        Text(U"負の"), Text(U"零下"), Text(U"氷点下"), Text(U"负的"), Text(U"プラス")}) {
    std::size_t end = at;
    while (end > 0 && text[end - 1] == U' ') --end;
    if (!text.substr(0, end).ends_with(word)) continue;
    const std::size_t begin = end - word.size();
    std::size_t left = begin;
    while (left > 0 && text[left - 1] == U' ') --left;
    const bool behind_number = left > 0 && left == previous_end;
    if (behind_number || can_subtract(before(text, begin)) ||
        (begin > 0 && is_letter(text[begin - 1])))
      return;
    if (word != U"プラス") return negate(begin);
    literal.begin = begin;
    return;
  }
  for (const Text words : {Text(U"below zero"), Text(U"degrees below zero")})
    if (const std::size_t i = skip_spaces(text, literal.end); is_at(text, i, words)) {
      literal.end = i + words.size();
      return negate(at);
    }
  // "= - 5" is a sign; "答え: - 5" may be one or a dash. At the start of a line it is a bullet.
  std::size_t i = at;
  while (i > 0 && text[i - 1] == U' ') --i;
  if (i == at || i == 0 || text[i - 1] != U'-') return;
  const char32_t previous = before(text, i - 1);
  if (skip_spaces(text, line_begin(text, i - 1)) == i - 1 || can_subtract(previous)) return;
  if (previous == U'=') {
    negate(i - 1);
  } else if (!is_letter(previous)) {
    literal.value.reset();
  }
}

Literal::Role role_of(Text text, const Literal& literal) {
  const Text left = text.substr(0, literal.begin), right = text.substr(literal.end);
  const char32_t previous = literal.begin > 0 ? text[literal.begin - 1] : 0;
  // x2, CO2, #3, 第3条; and 3番目, 2nd, 3D.
  if (is_letter(previous) || previous == U'_' || previous == U'第') return Literal::Role::kLabel;
  if (previous == U'^' && literal.begin > 1 && is_letter(text[literal.begin - 2]))  // cm^3
    return Literal::Role::kLabel;
  if (previous == U'#' && !left.ends_with(U"##")) return Literal::Role::kLabel;
  if (starts_with_any(right, {U"番目", U"つ目", U"回目", U"个目", U"桁", U"位数"}))
    return Literal::Role::kLabel;
  if (starts_with_any(right, {U"st", U"nd", U"rd", U"th", U"d"})) {
    const std::size_t n = right[0] == U'd' ? 1 : 2;
    if (right.size() == n || !is_letter(right[n])) return Literal::Role::kLabel;
  }
  std::size_t end = left.size();
  while (end > 0 && left[end - 1] == U' ') --end;
  if (ends_with_any(left.substr(0, end),
                    {U"step", U"question", U"problem", U"ステップ", U"手順", U"問", U"問題",
                     U"步骤", U"第", U"问题", U"方法", U"room", U"page", U"chapter"}))
    return Literal::Role::kLabel;

  // "1. First …", "2) …", "(3) …": a mark only if something stands behind it on its line.
  std::size_t begin = line_begin(text, literal.begin);
  while (begin < literal.begin && (is_space(text[begin]) || text[begin] == U'(')) ++begin;
  if (begin != literal.begin || right.empty() || !literal.value || literal.value->den != 1 ||
      literal.value->num < 0 || literal.value->num > 20)
    return Literal::Role::kNumber;
  if (right[0] != U'.' && right[0] != U')' && right[0] != U'、' && right[0] != U':')
    return Literal::Role::kNumber;
  const Text rest = right.substr(1, right.find(U'\n') - 1);
  const bool has_text =
      std::any_of(rest.begin(), rest.end(), [](char32_t c) { return !is_space(c); });
  return has_text ? Literal::Role::kListMark : Literal::Role::kNumber;
}

}  // namespace

std::string to_string(const Rational& value) {
  return digits_of(value.num) + (value.den == 1 ? "" : "/" + digits_of(value.den));
}

std::vector<Literal> scan_numbers(Text text, std::string_view language) {
  std::vector<Literal> literals;
  for (std::size_t i = 0; i < text.size();) {
    auto literal = read_literal(text, i, language);
    if (!literal) {
      ++i;
      continue;
    }
    i = literal->end;
    read_share(text, language, *literal);
    if (half_follows(text, literal->end) || is_part_of_more(text, *literal)) literal->value.reset();
    i = literal->end;
    if (!reads_as_number(text, *literal, literals)) continue;
    const bool kanji = !literal->digits && !is_letter(text[literal->begin]);
    read_sign(text, *literal, literals.empty() ? 0 : literals.back().end);
    i = literal->end;
    literal->sure = !kanji || kanji_is_sure(text, literal->begin, literal->end);
    literal->role = role_of(text, *literal);
    literals.push_back(*literal);
  }
  return literals;
}

}  // namespace assay::harness
