#include "harness/extract_reply.h"

#include <algorithm>
#include <array>

namespace assay::harness {
namespace {

using Text = std::u32string_view;

// What may stand between "the answer" and its number.
constexpr std::array kFillers = {
    Text(U"は"),        Text(U"が"),       Text(U"も"),
    Text(U":"),         Text(U"="),        Text(U"、"),
    Text(U","),         Text(U"「"),       Text(U"『"),
    Text(U"“"),         Text(U"\""),       Text(U"'"),
    Text(U"("),         Text(U"["),        Text(U"{"),
    Text(U"*"),         Text(U"→"),        Text(U"⇒"),
    Text(U"->"),        Text(U"- "),       Text(U"应该是"),
    Text(U"应为"),      Text(U"就是"),     Text(U"等于"),
    Text(U"等於"),      Text(U"是"),       Text(U"为"),
    Text(U"為"),        Text(U"即"),       Text(U"约"),
    Text(U"約"),        Text(U"大约"),     Text(U"およそ"),
    Text(U"全部で"),    Text(U"合わせて"), Text(U"合計で"),
    Text(U"合計"),      Text(U"合计"),     Text(U"总共"),
    Text(U"一共"),      Text(U"共"),       Text(U"有"),
    Text(U"つまり"),    Text(U"すなわち"), Text(U"is"),
    Text(U"was"),       Text(U"be"),       Text(U"would"),
    Text(U"should"),    Text(U"will"),     Text(U"equals"),
    Text(U"equal to"),  Text(U"exactly"),  Text(U"approximately"),
    Text(U"about"),     Text(U"simply"),   Text(U"just"),
    Text(U"therefore"), Text(U"thus"),     Text(U"the number"),
    Text(U"#"),         Text(U"_"),
};

constexpr std::array kOperatorWordsBefore = {
    Text(U"plus"), Text(U"minus"), Text(U"times"), Text(U"divided by"), Text(U"multiplied by"),
    Text(U"mod"),  Text(U"足す"),  Text(U"引く"),  Text(U"かける"),     Text(U"掛ける"),
    Text(U"割る"), Text(U"わる"),  Text(U"加"),    Text(U"加上"),       Text(U"减"),
    Text(U"减去"), Text(U"乘以"),  Text(U"乘"),    Text(U"除以"),       Text(U"プラス"),
};

bool starts_word(Text text, std::size_t i, Text word) {
  if (text.substr(i, word.size()) != word) return false;
  const std::size_t end = i + word.size();
  return !is_letter(word.back()) || end == text.size() || !is_letter(text[end]);
}

std::size_t skip_spaces(Text text, std::size_t i) {
  while (i < text.size() && is_space(text[i])) ++i;
  return i;
}

bool starts_line(Text text, std::size_t i) {
  while (i > 0 && text[i - 1] == U' ') --i;
  return i == 0 || text[i - 1] == U'\n';
}

// The word that counts what was counted: up to the next space, digit or punctuation.
Text unit_after(Text text, std::size_t i) {
  i = skip_spaces(text, i);
  std::size_t end = i;
  while (end < text.size() && end - i < 12 && !is_space(text[end]) && !is_digit(text[end]) &&
         Text(U".,。、!?)}]」』:;と和及或").find(text[end]) == Text::npos)
    ++end;
  return text.substr(i, end - i);
}

// 2時間30分, 5 ft 3 in, 5月3日: one quantity in two units. Neither number is it.
bool one_quantity(Text text, const Literal& first, const Literal& second) {
  struct Units {
    Text larger, smaller;
    int n_smaller;  // in a larger one: from there on it is no rest but another quantity
  };
  static constexpr Units kUnits[] = {
      {U"時間", U"分", 60},
      {U"小时", U"分", 60},
      {U"時", U"分", 60},
      {U"时", U"分", 60},
      {U"年", U"月", 13},
      {U"月", U"日", 32},
      {U"分", U"秒", 60},
      {U"hour", U"minute", 60},
      {U"minute", U"second", 60},
      {U"h", U"m", 60},
      {U"ドル", U"セント", 100},
      {U"dollar", U"cent", 100},
      {U"元", U"角", 10},
      {U"块", U"毛", 10},
      {U"feet", U"inch", 12},
      {U"foot", U"inch", 12},
      {U"ft", U"in", 12},
      {U"km", U"m", 1000},
      {U"m", U"cm", 100},
      {U"cm", U"mm", 10},
      {U"kg", U"g", 1000},
      {U"year", U"month", 12},
      {U"年", U"か月", 12},
      {U"年", U"ヶ月", 12},
      {U"年", U"个月", 12},
      {U"week", U"day", 7},
      {U"day", U"hour", 24},
      {U"日", U"時間", 24},
      {U"天", U"小时", 24},
      {U"pound", U"ounce", 16},
      {U"メートル", U"センチ", 100},
      {U"キロ", U"メートル", 1000},
      {U"l", U"ml", 1000},
      {U"千克", U"克", 1000},
      {U"千米", U"米", 1000},
      {U"公里", U"米", 1000},
      {U"米", U"厘米", 100},
      {U"リットル", U"ミリ", 1000},
      {U"pound", U"pence", 100},
  };
  Text between = trimmed(text.substr(first.end, second.begin - first.end));
  for (const Text joint : {Text(U"and"), Text(U"と"), Text(U",")})
    if (between.ends_with(joint) && between.size() > joint.size())
      between = trimmed(between.substr(0, between.size() - joint.size()));
  const Text right = trimmed(text.substr(second.end));
  return std::any_of(std::begin(kUnits), std::end(kUnits), [&](const auto& units) {
    const Text plural = between.ends_with(U's') ? between.substr(0, between.size() - 1) : between;
    return (between == units.larger || plural == units.larger) &&
           right.starts_with(units.smaller) &&
           !(second.value && second.value->num / second.value->den >= units.n_smaller);
  });
}

}  // namespace

Text trimmed(Text text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

Reply::Reply(std::string_view utf8, std::string_view language) : folded_(fold_reply(utf8)) {
  all_ = scan_numbers(folded_.chars, language);
  const auto take = [&](auto test) {
    std::copy_if(all_.begin(), all_.end(), std::back_inserter(candidates_), test);
  };
  take([](const Literal& l) { return l.role == Literal::Role::kNumber && l.sure; });
  if (candidates_.empty()) take([](const Literal& l) { return l.role == Literal::Role::kNumber; });
  if (candidates_.empty())
    take([](const Literal& l) { return l.role == Literal::Role::kListMark; });
  if (candidates_.size() > 1 && candidates_[0].role == Literal::Role::kListMark)
    candidates_.clear();
}

const Literal* Reply::number_after(std::size_t i) const {
  const Text text = folded_.chars;
  for (;;) {
    i = skip_spaces(text, i);
    for (const Literal& literal : all_)
      if (literal.begin == i && literal.role != Literal::Role::kLabel) return &literal;
    const auto filler = std::find_if(kFillers.begin(), kFillers.end(),
                                     [&](Text f) { return starts_word(text, i, f); });
    if (filler == kFillers.end()) return nullptr;
    i += filler->size();
  }
}

const Literal* Reply::next_number(const Literal& literal) const {
  const auto next = std::find_if(all_.begin(), all_.end(), [&](const Literal& other) {
    return other.begin >= literal.end && other.role == Literal::Role::kNumber;
  });
  return next == all_.end() ? nullptr : &*next;
}

std::vector<Literal> Reply::candidates_in(std::size_t begin, std::size_t end) const {
  std::vector<Literal> in;
  for (const Literal& literal : candidates_)
    if (literal.begin >= begin && literal.end <= end) in.push_back(literal);
  return in;
}

bool Reply::operator_before(const Literal& literal) const {
  const Text text = folded_.chars;
  std::size_t i = literal.begin;
  while (i > 0 && (is_space(text[i - 1]) || text[i - 1] == U'(')) --i;
  if (i == 0) return false;
  const char32_t c = text[i - 1];
  const bool closes_a_share = std::any_of(  // 50% 18: no remainder of a division
      all_.begin(), all_.end(), [&](const Literal& l) { return l.end == i && l.per != 1; });
  if (Text(U"+-×÷*/^%").find(c) != Text::npos && !closes_a_share) {
    const bool bullet = i < literal.begin && is_space(text[i]) && starts_line(text, i - 1);
    const bool italics = c == U'*' && literal.end < text.size() && text[literal.end] == U'*';
    return !bullet && !italics;
  }
  if (c == U'x') {
    const Text left = trimmed(text.substr(0, i - 1));
    return !left.empty() && (is_digit(left.back()) || left.back() == U')');
  }
  const Text left = text.substr(0, i);
  return std::any_of(kOperatorWordsBefore.begin(), kOperatorWordsBefore.end(), [&](Text word) {
    if (!left.ends_with(word)) return false;
    const std::size_t before = left.size() - word.size();
    return !is_letter(word[0]) || before == 0 || !is_letter(left[before - 1]);
  });
}

bool Reply::operator_after(const Literal& literal) const {
  const Text text = folded_.chars;
  const std::size_t i = skip_spaces(text, literal.end);
  if (i >= text.size()) return false;
  const char32_t c = text[i];
  if (Text(U"+×÷/^").find(c) != Text::npos) return true;
  const auto operand_at = [&](std::size_t k) {
    return std::any_of(all_.begin(), all_.end(), [&](const Literal& l) { return l.begin == k; });
  };
  const std::size_t next = skip_spaces(text, i + 1);
  const bool operand = next < text.size() && (is_digit(text[next]) || text[next] == U'(');
  if (c == U'-' || c == U'*' || c == U'x' || c == U'%') return operand;
  return std::any_of(kOperatorWordsBefore.begin(), kOperatorWordsBefore.end(), [&](Text word) {
    if (!starts_word(text, i, word)) return false;
    return operand_at(skip_spaces(text, i + word.size()));
  });
}

bool Reply::joined(const Literal& first, const Literal& second) const {
  const Text text = folded_.chars;
  Text between = text.substr(first.end, second.begin - first.end);
  const Text unit = unit_after(text, first.end);
  if (!unit.empty() && trimmed(text.substr(second.end)).starts_with(unit) &&
      trimmed(between).starts_with(unit))
    between = trimmed(between).substr(unit.size());
  between = trimmed(between);
  static constexpr std::array kJoints = {
      Text(U""),      Text(U","),    Text(U"、"),     Text(U"・"),  Text(U";"),      Text(U"と"),
      Text(U"和"),    Text(U"及"),   Text(U"或"),     Text(U"か"),  Text(U"and"),    Text(U"or"),
      Text(U", and"), Text(U", or"), Text(U"&"),      Text(U"~"),   Text(U"〜"),     Text(U"-"),
      Text(U"から"),  Text(U"至"),   Text(U"到"),     Text(U"to"),  Text(U"または"), Text(U"或者"),
      Text(U"·"),     Text(U"in"),   Text(U"out of"), Text(U"over")};
  return std::find(kJoints.begin(), kJoints.end(), between) != kJoints.end() ||
         one_quantity(text, first, second);
}

bool Reply::parallel(const Literal& first, const Literal& second) const {
  const Text text = folded_.chars;
  const Text between = trimmed(text.substr(first.end, second.begin - first.end));
  if (between.find_first_of(U"。!?\n.=") != Text::npos) return false;
  static constexpr std::array kConclusions = {
      Text(U"so "),  Text(U"therefore"),  Text(U"total"), Text(U"thus"),   Text(U"hence"),
      Text(U"left"), Text(U"全部"),       Text(U"合計"),  Text(U"合计"),   Text(U"よって"),
      Text(U"残り"), Text(U"したがって"), Text(U"所以"),  Text(U"因此"),   Text(U"共"),
      Text(U"ので"), Text(U"から"),       Text(U"剩"),    Text(U"总"),     Text(U"還"),
      Text(U"还"),   Text(U"合わせて"),   Text(U"差"),    Text(U"つまり"), Text(U"即")};
  if (std::any_of(kConclusions.begin(), kConclusions.end(),
                  [&](Text word) { return between.find(word) != Text::npos; }))
    return false;
  // 12 on Monday and 15 on Tuesday; 苹果3个，梨5个; 男子3人と女子5人
  if (between.ends_with(U" and")) return true;
  const Text unit = unit_after(text, first.end);
  if (!unit.empty() && unit_after(text, second.end).starts_with(unit) &&
      between.size() > unit.size() && between.starts_with(unit)) {
    const Text rest = between.substr(unit.size());
    if (rest.size() <= 6 && Text(U"、,と和及").find(rest[0]) != Text::npos) return true;
  }
  static constexpr std::array kSays = {Text(U"は"), Text(U"が"),   Text(U"有"),     Text(U"是"),
                                       Text(U"余"), Text(U"商"),   Text(U" is"),    Text(U" has"),
                                       Text(U":"),  Text(U"余り"), Text(U"あまり"), Text(U" got")};
  const auto said = [&](const Literal& literal) {
    const Text left = trimmed(text.substr(0, literal.begin));
    return std::any_of(kSays.begin(), kSays.end(), [&](Text s) { return left.ends_with(s); });
  };
  return said(first) && said(second);
}

bool Reply::in_brackets(const Literal& literal) const {
  const Text text = folded_.chars;
  const std::size_t open = text.substr(0, literal.begin).rfind(U'(');
  if (open == Text::npos || candidates_in(0, open).empty()) return false;
  const std::size_t close = text.find(U')', open);
  return close != Text::npos && close >= literal.end;
}

bool Reply::enumerated(const Literal& literal) const {
  const Text text = folded_.chars;
  const Text left = trimmed(text.substr(0, literal.begin));
  if (!left.empty() && left.back() >= U'①' && left.back() <= U'⑳') return true;
  for (const Literal& mark : all_) {
    if (mark.end > left.size() || !marks_an_item(mark)) continue;
    const Text between = left.substr(mark.end);
    if (between.find_first_not_of(U".):、 ") == Text::npos) return true;
  }
  if (!left.ends_with(U")")) return false;  // a) 12
  const Text letter = left.substr(0, left.size() - 1);
  return !letter.empty() && is_letter(letter.back()) &&
         (letter.size() == 1 || !is_letter(letter[letter.size() - 2]));
}

bool Reply::marks_an_item(const Literal& literal) const {
  const Text text = folded_.chars;
  return literal.role != Literal::Role::kNumber ||
         (literal.begin > 0 && text[literal.begin - 1] == U'(' &&
          text.substr(literal.end).starts_with(U')'));
}

bool Reply::with_remainder(const Literal& quotient) const {
  const Text text = folded_.chars;
  const std::size_t i = skip_spaces(text, quotient.end);
  for (const Text word : {Text(U"余"), Text(U"あまり"), Text(U"..."), Text(U"…"),
                          Text(U"remainder"), Text(U", remainder"), Text(U"with remainder"),
                          Text(U"with a remainder"), Text(U", with a remainder"), Text(U"r "),
                          Text(U"、余"), Text(U",余"), Text(U"で余"), Text(U"で、余")}) {
    if (text.substr(i, word.size()) != word) continue;
    const std::size_t end = clause_end(i);
    return std::any_of(all_.begin(), all_.end(),
                       [&](const Literal& l) { return l.begin > i && l.end <= end; });
  }
  return i < text.size() && text[i] == U'r' && i + 1 < text.size() && is_digit(text[i + 1]);
}

bool Reply::negated(const Literal& literal) const {
  const Text text = folded_.chars;
  const Text unit = unit_after(text, literal.end);
  for (const Text word : {Text(U"ではな"), Text(U"ではあり"), Text(U"じゃな"), Text(U"でな")})
    if (unit.find(word) != Text::npos) return true;
  const Text left = trimmed(text.substr(0, literal.begin));
  static constexpr std::array kDenials = {
      Text(U"not"),  Text(U"n't"),  Text(U"not equal to"), Text(U"rather than"),
      Text(U"不是"), Text(U"并非"), Text(U"而非"),         Text(U"instead of"),
      Text(U"≠"),    Text(U"不为"), Text(U"不等于"),
  };
  return std::any_of(kDenials.begin(), kDenials.end(), [&](Text word) {
    if (!left.ends_with(word)) return false;
    const std::size_t before = left.size() - word.size();
    return !is_letter(word[0]) || word == U"n't" || before == 0 || !is_letter(left[before - 1]);
  });
}

bool Reply::aside(std::size_t i) const {
  const Text text = folded_.chars;
  std::size_t open = i;
  for (int depth = 0; open > 0; --open) {
    if (text[open - 1] == U')') ++depth;
    if (text[open - 1] == U'(' && depth-- == 0) break;
  }
  if (open == 0 || candidates_in(0, open).empty()) return false;
  const Text left = trimmed(text.substr(0, open - 1));
  if (left.empty() || Text(U"=+-×÷*/^(:").find(left.back()) != Text::npos) return false;
  const Text inside = text.substr(open, text.find(U')', i) - open);
  const std::size_t after = skip_spaces(text, open + inside.size() + 1);
  if (after < text.size() && Text(U"=+-×÷*/^").find(text[after]) != Text::npos) return false;
  return inside.find_first_of(U"=+-×÷*") != Text::npos;
}

std::size_t Reply::clause_begin(std::size_t i) const {
  const Text text = folded_.chars;
  while (i > 0 && Text(U"。!?\n").find(text[i - 1]) == Text::npos &&
         !(text[i - 1] == U'.' && i < text.size() && is_space(text[i])))
    --i;
  return i;
}

std::size_t Reply::clause_end(std::size_t i) const {
  const Text text = folded_.chars;
  for (; i < text.size(); ++i) {
    if (Text(U"。!?\n").find(text[i]) != Text::npos) return i;
    if (text[i] == U'.' && (i + 1 == text.size() || is_space(text[i + 1]))) return i;
  }
  return i;
}

}  // namespace assay::harness
