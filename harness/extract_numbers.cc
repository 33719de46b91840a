#include "harness/extract_numbers.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "harness/extract_numerals.h"
#include "harness/extract_text.h"

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

// What follows a plain numeral and changes it: /2, 分の1, ^3, ×10^5, million, 1/2 of a mixed
// number. Leaves `value` empty where two readings remain.
class Suffixes {
 public:
  Suffixes(Text text, std::string_view language, std::optional<Rational> value, std::size_t end)
      : text_(text), language_(language), value_(value), end_(end) {}

  void read() {
    if (read_parts() || read_slash()) return;
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

 private:
  bool more(char32_t separator) const {
    return end_ + 1 < text_.size() && text_[end_] == separator && is_digit(text_[end_ + 1]);
  }

  // 3分の1 is 1/3; 百分之五十 is 50 percent, and percent is a unit here.
  bool read_parts() {
    if (!is_at(text_, end_, U"分の") && !is_at(text_, end_, U"分之")) return false;
    const auto numerator = read_numeral(text_, end_ + 2, language_);
    if (!numerator) return false;
    if (value_ && value_->num == 100 && text_[end_ + 1] == U'之') {
      value_ = numerator->value;
    } else {
      value_ = quotient(numerator->value, value_);
    }
    end_ = numerator->end;
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

  // "3 1/2", "3と1/2", "3½".
  void read_mixed() {
    if (!value_ || value_->den != 1 || end_ >= text_.size()) return;
    std::optional<Rational> part = vulgar_fraction(text_[end_]);
    std::size_t end = end_ + 1;
    if (!part && (text_[end_] == U' ' || text_[end_] == U'と' || text_[end_] == U'又')) {
      const auto over = read_numeral(text_, end_ + 1, language_);
      if (!over || !over->digits || !is_at(text_, over->end, U"/")) return;
      const auto under = read_numeral(text_, over->end + 1, language_);
      if (!under || is_at(text_, under->end, U"/")) return;
      part = quotient(over->value, under->value);
      end = under->end;
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
    // 18k: a thousand, or a unit.
    if (is_at(text_, end_, U"k") && (end_ + 1 == text_.size() || !is_letter(text_[end_ + 1])))
      value_.reset();
  }

  Text text_;
  std::string_view language_;
  std::optional<Rational> value_;
  std::size_t end_;
};

// \frac{1}{2}, also \dfrac and \tfrac.
std::optional<Literal> read_latex_fraction(Text text, std::size_t i, std::string_view language) {
  for (const Text command : {Text(U"\\frac{"), Text(U"\\dfrac{"), Text(U"\\tfrac{")}) {
    if (!is_at(text, i, command)) continue;
    const auto over = read_numeral(text, i + command.size(), language);
    if (!over || !is_at(text, over->end, U"}{")) return std::nullopt;
    const auto under = read_numeral(text, over->end + 2, language);
    if (!under || !is_at(text, under->end, U"}")) return std::nullopt;
    auto value = quotient(over->value, under->value);
    if (value && value->den == 1) value.reset();
    return Literal{i, under->end + 1, value};
  }
  return std::nullopt;
}

std::optional<Literal> read_literal(Text text, std::size_t i, std::string_view language) {
  if (text[i] == U'\\') return read_latex_fraction(text, i, language);
  if (const auto vulgar = vulgar_fraction(text[i])) return Literal{i, i + 1, vulgar};
  const auto numeral = read_numeral(text, i, language);
  if (!numeral) return std::nullopt;
  Suffixes suffixes(text, language, numeral->value, numeral->end);
  suffixes.read();
  return Literal{i, suffixes.end(), suffixes.value(), numeral->digits};
}

// A minus directly before the digits is a sign unless something stands before it to subtract from.
void read_sign(Text text, Literal& literal) {
  const std::size_t at = literal.begin;
  const auto negate = [&](std::size_t begin) {
    if (literal.value) literal.value->num = -literal.value->num;
    literal.begin = begin;
  };
  const auto can_subtract = [](char32_t c) {
    return is_digit(c) || c == U')' || c == U'}' || kanji_digit_or_unit(c);
  };
  if (at > 0 && text[at - 1] == U'-') {
    const char32_t previous = before(text, at - 1);
    const bool glued_to_word = at > 1 && is_letter(text[at - 2]);
    if (!can_subtract(previous) && !glued_to_word && previous != U'-') negate(at - 1);
    return;
  }
  for (const Text word : {Text(U"マイナス"), Text(U"负"), Text(U"負"), Text(U"minus"),
                          Text(U"negative"), Text(U"負の")}) {
    std::size_t end = at;
    while (end > 0 && text[end - 1] == U' ') --end;
    if (!text.substr(0, end).ends_with(word)) continue;
    const std::size_t begin = end - word.size();
    if (!can_subtract(before(text, begin)) && !(begin > 0 && is_letter(text[begin - 1])))
      negate(begin);
    return;
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
  if (previous == U'#' && !left.ends_with(U"##")) return Literal::Role::kLabel;
  if (starts_with_any(right, {U"番目", U"つ目", U"回目", U"个目", U"桁", U"位数"}))
    return Literal::Role::kLabel;
  if (starts_with_any(right, {U"st", U"nd", U"rd", U"th", U"d"})) {
    const std::size_t n = right[0] == U'd' ? 1 : 2;
    if (right.size() == n || !is_letter(right[n])) return Literal::Role::kLabel;
  }
  std::size_t end = left.size();
  while (end > 0 && left[end - 1] == U' ') --end;
  if (ends_with_any(left.substr(0, end), {U"step", U"question", U"problem", U"ステップ", U"手順",
                                          U"問", U"問題", U"步骤", U"第", U"问题", U"方法"}))
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
    if (!literal->digits && !kanji_reads_as_number(text, literal->begin, literal->end)) continue;
    read_sign(text, *literal);
    literal->role = role_of(text, *literal);
    literals.push_back(*literal);
  }
  return literals;
}

}  // namespace assay::harness
