// Rules in order of trust, each with a name that reports show:
//
//   boxed        \boxed{18}
//   answer       答えは18です / the answer is 18 / 答案是18 (the last such place that has a number)
//   remainder    余りは4 / the remainder is 4 / 余数是4
//   bold         **18** as the only bold number
//   alone        the whole reply is one number
//   comparison   18のほうが大きい / 18 is larger / 18更大
//   equation     9×2 = 18: right of the last equals sign
//   last_number  the last number of what was said before any check of the result
//
// The strict pipeline stops behind `alone`; the flexible one has them all.
//
// The first rule that finds its place decides; if that place has two readings (170余り4, 3と5, an
// expression without a result), the reply is unextractable: no answer is better than a wrong one.
#include "harness/extract.h"

#include <algorithm>
#include <array>

#include "harness/extract_numerals.h"
#include "harness/extract_reply.h"

namespace assay::harness {
namespace {

using Text = std::u32string_view;

struct Found {
  enum class Kind { kNothing, kNumber, kAmbiguous } kind = Kind::kNothing;
  Literal literal;
};

constexpr Found::Kind kNothing = Found::Kind::kNothing;
const Found kAmbiguous = {Found::Kind::kAmbiguous, {}};

Found found(const Literal& literal) {
  return literal.value ? Found{Found::Kind::kNumber, literal} : kAmbiguous;
}

bool all_equal(const std::vector<Literal>& literals) {
  return std::all_of(literals.begin(), literals.end(), [&](const Literal& l) {
    return l.value && l.value == literals.front().value;
  });
}

// The result of the last equation in [begin, end): the number right of its last equals sign. An
// equals sign without a number behind it (= ?) is passed over; 18 = 3+15 has no result there.
Found equation_in(const Reply& reply, std::size_t begin, std::size_t end) {
  const Text text = reply.text();
  static constexpr std::array kEquals = {Text(U"="),    Text(U"equals"), Text(U"is equal to"),
                                         Text(U"等于"), Text(U"等於"),   Text(U"イコール")};
  for (std::size_t i = end; i-- > begin;) {
    const auto sign = std::find_if(kEquals.begin(), kEquals.end(),
                                   [&](Text s) { return text.substr(i, s.size()) == s; });
    if (sign == kEquals.end()) continue;
    const std::size_t after = i + sign->size();
    if (*sign == U"=" && ((i > 0 && Text(U"<>!=").find(text[i - 1]) != Text::npos) ||
                          (after < text.size() && Text(U"<>=").find(text[after]) != Text::npos)))
      continue;
    const Literal* result = reply.number_after(after);
    if (!result || result->end > end || (begin == 0 && reply.aside(result->begin))) continue;
    if (reply.operator_after(*result) || reply.with_remainder(*result)) return kAmbiguous;
    return found(*result);
  }
  return {};
}

// A place that holds one number and nothing to choose from: a box, a bold span.
Found only_number_in(const Reply& reply, std::size_t begin, std::size_t end) {
  if (const Found result = equation_in(reply, begin, end); result.kind != kNothing) return result;
  std::vector<Literal> inside;
  for (const Literal& literal : reply.all())
    if (literal.begin >= begin && literal.end <= end && literal.role == Literal::Role::kNumber)
      inside.push_back(literal);
  if (inside.empty()) return {};
  if (inside.size() > 1 || reply.operator_before(inside[0]) || reply.operator_after(inside[0]))
    return kAmbiguous;
  return found(inside[0]);
}

Found rule_boxed(const Reply& reply) {
  const Text text = reply.text();
  std::vector<Literal> boxes;
  static constexpr Text kBox = U"boxed{";
  for (std::size_t at = text.find(kBox); at != Text::npos; at = text.find(kBox, at + 1)) {
    const std::size_t begin = at + kBox.size();
    std::size_t end = begin;
    for (int depth = 1; end < text.size(); ++end) {
      if (text[end] == U'{') ++depth;
      if (text[end] == U'}' && --depth == 0) break;
    }
    const Found inside = only_number_in(reply, begin, end);
    if (inside.kind != Found::Kind::kNumber) return kAmbiguous;
    boxes.push_back(inside.literal);
  }
  if (boxes.empty()) return {};
  return all_equal(boxes) ? found(boxes.back()) : kAmbiguous;
}

// What the clause behind a marker gives; kNothing lets an earlier marker speak.
Found number_of_clause(const Reply& reply, std::size_t begin) {
  const Text text = reply.text();
  const Literal* first = reply.number_after(begin);
  const std::size_t end = reply.clause_end(first ? first->begin : begin);
  if (first) {
    if (reply.negated(*first)) {
      const auto others = reply.candidates_in(first->end, end);
      return others.size() == 1 ? found(others[0]) : kAmbiguous;
    }
    if (reply.operator_after(*first)) {
      const Found result = equation_in(reply, first->end, end);
      return result.kind == kNothing ? kAmbiguous : result;
    }
    if (reply.with_remainder(*first)) return kAmbiguous;
    const Literal* after = reply.next_number(*first);
    if (after && reply.joined(*first, *after) && !(after->value == first->value)) return kAmbiguous;
    return found(*first);
  }
  if (const Found result = equation_in(reply, begin, end); result.kind != kNothing) return result;
  auto inside = reply.candidates_in(begin, end);
  std::erase_if(inside, [&](const Literal& l) { return reply.negated(l); });
  if (inside.empty()) return {};
  // "The answer to 3+15 is 18": the number behind the clause's own "is".
  const Text left = trimmed(text.substr(begin, inside.back().begin - begin));
  if ((left.ends_with(U" is") || left.ends_with(U":")) && !reply.operator_after(inside.back()))
    return found(inside.back());
  // 答えはりんご18個です: one number, and the clause says what the answer is.
  const Text clause = trimmed(text.substr(begin, end - begin));
  const bool says = !clause.empty() && Text(U"はが:是为為=、").find(clause[0]) != Text::npos;
  if (says && inside.size() == 1 && !reply.operator_before(inside[0]) &&
      !reply.operator_after(inside[0]))
    return found(inside[0]);
  return {};
}

template <std::size_t N>
Found rule_marker(const Reply& reply, const std::array<Text, N>& markers) {
  const Text text = reply.text();
  for (std::size_t i = text.size(); i-- > 0;)
    for (const Text marker : markers) {
      if (text.substr(i, marker.size()) != marker) continue;
      if (is_letter(marker[0]) && i > 0 && is_letter(text[i - 1])) continue;
      if (const Found here = number_of_clause(reply, i + marker.size()); here.kind != kNothing)
        return here;
    }
  return {};
}

Found rule_answer(const Reply& reply) {
  static constexpr std::array kMarkers = {
      Text(U"答え"), Text(U"答案"), Text(U"正解"), Text(U"解答"),   Text(U"回答"),   Text(U"答:"),
      Text(U"結果"), Text(U"结果"), Text(U"得数"), Text(U"answer"), Text(U"result"), Text(U"####")};
  return rule_marker(reply, kMarkers);
}

Found rule_remainder(const Reply& reply) {
  static constexpr std::array kMarkers = {
      Text(U"余りは"),     Text(U"あまりは"),    Text(U"余りが"),       Text(U"余数是"),
      Text(U"余数为"),     Text(U"余数:"),       Text(U"remainder is"), Text(U"remainder of"),
      Text(U"remainder:"), Text(U"remainder ="), Text(U"余り:"),        Text(U"余り ="),
      Text(U"余り=")};
  const Found found_here = rule_marker(reply, kMarkers);
  if (found_here.kind != Found::Kind::kNumber) return found_here;
  // 商は170、余りは4です: asked for which of them?
  const Text text = reply.text();
  const std::size_t begin = reply.clause_begin(found_here.literal.begin);
  const Text clause = text.substr(begin, reply.clause_end(found_here.literal.end) - begin);
  const bool both = clause.find(U'商') != Text::npos || clause.find(U"quotient") != Text::npos;
  const std::size_t n = reply.candidates_in(begin, begin + clause.size()).size();
  return both && n > 1 ? kAmbiguous : found_here;
}

Found rule_bold(const Reply& reply) {
  std::vector<Literal> bold;
  for (const auto& [begin, end] : reply.folded().bold)
    if (const Found inside = only_number_in(reply, begin, end);
        inside.kind == Found::Kind::kNumber && inside.literal.sure)
      bold.push_back(inside.literal);
  if (bold.empty() || !all_equal(bold)) return {};
  if (reply.operator_before(bold.back()) || reply.operator_after(bold.back()) ||
      reply.with_remainder(bold.back()))
    return {};
  return found(bold.back());
}

// A reply to "only the number": nothing else stands there but quotes, a full stop, です.
Found rule_alone(const Reply& reply) {
  if (reply.all().size() != 1) return {};
  const Literal& only = reply.all()[0];
  static constexpr Text kAround = U"\"'“”「」『』()[].。!* ";
  const auto nothing = [](Text text) { return text.find_first_not_of(kAround) == Text::npos; };
  const Text left = trimmed(reply.text().substr(0, only.begin));
  Text right = trimmed(reply.text().substr(only.end));
  while (!right.empty() && kAround.find(right[0]) != Text::npos) right.remove_prefix(1);
  for (const Text copula : {Text(U"です"), Text(U"だ"), Text(U"である")})
    if (right.starts_with(copula)) right.remove_prefix(copula.size());
  const bool alone = nothing(left) && nothing(trimmed(right));
  return alone ? found(only) : Found{};
}

bool starts_with_any(Text text, std::initializer_list<Text> starts) {
  return std::any_of(starts.begin(), starts.end(), [&](Text s) { return text.starts_with(s); });
}

bool says_that_it_wins(const Reply& reply, const Literal& literal) {
  const Text right = trimmed(reply.text().substr(literal.end));
  const auto is_adjective = [](Text text) {
    return starts_with_any(text, {U"大き", U"小さ", U"多い", U"少な", U"高い", U"低い", U"長い",
                                  U"短い", U"重い", U"軽い"});
  };
  for (const Text particle : {Text(U"のほうが"), Text(U"の方が"), Text(U"の方は"), Text(U"が")})
    if (right.starts_with(particle) && is_adjective(trimmed(right.substr(particle.size()))))
      return true;
  if (right.starts_with(U"は") || right.starts_with(U"が")) {  // 95は78より大きい
    const std::size_t than = right.substr(0, 24).find(U"より");
    if (than != Text::npos) {
      Text rest = right.substr(than + 2);
      if (rest.starts_with(U"も")) rest.remove_prefix(1);
      if (is_adjective(trimmed(rest))) return true;
    }
  }
  if (starts_with_any(right, {U"更大", U"更小", U"更多", U"更少", U"比较大", U"比较小", U"较大",
                              U"较小", U"最大", U"最小", U"大于", U"小于"}))
    return true;
  if (right.starts_with(U"比")) {  // 95比78大
    const Text clause = right.substr(1, right.find_first_of(U"。,.!?\n") - 1);
    if (clause.find_first_of(U"大小多少") != Text::npos) return true;
  }
  if (right.starts_with(U"is ")) {
    Text rest = right.substr(3);
    if (rest.starts_with(U"the ")) rest.remove_prefix(4);
    return starts_with_any(rest, {U"larger", U"smaller", U"bigger", U"greater", U"less", U"lower",
                                  U"higher", U"largest", U"smallest", U"biggest", U"greatest"});
  }
  return false;
}

Found rule_comparison(const Reply& reply) {
  std::vector<Literal> winners;
  for (const Literal& literal : reply.candidates())
    if (says_that_it_wins(reply, literal)) winners.push_back(literal);
  const Text text = reply.text();
  for (const Text marker :
       {Text(U"larger is"), Text(U"larger number is"), Text(U"larger one is"), Text(U"smaller is"),
        Text(U"smaller number is"), Text(U"smaller one is"), Text(U"大きいのは"),
        Text(U"小さいのは"), Text(U"大きい方は"), Text(U"小さい方は"), Text(U"大きいほうは"),
        Text(U"小さいほうは"), Text(U"大的是"), Text(U"小的是"), Text(U"大的数是"),
        Text(U"小的数是"), Text(U"大きい数は"), Text(U"小さい数は")})
    if (const auto at = text.rfind(marker); at != Text::npos)
      if (const Literal* literal = reply.number_after(at + marker.size()))
        winners.push_back(*literal);
  if (winners.empty()) return {};
  return all_equal(winners) ? found(winners.back()) : kAmbiguous;
}

// Where a check or a reason of the result begins, if a number was said before it: what follows
// repeats the question's numbers.
std::size_t check_begin(const Reply& reply) {
  const Text text = reply.text();
  std::size_t first = text.size();
  const auto cut_at = [&](std::size_t at) {
    if (!reply.candidates_in(0, at).empty()) first = std::min(first, at);
  };
  for (const Text word : {Text(U"検算"), Text(U"確認"), Text(U"検証"), Text(U"正しい"),
                          Text(U"验算"), Text(U"验证"), Text(U"检验"), Text(U"检查"), Text(U"正确"),
                          Text(U"check"), Text(U"verif"), Text(U"correct")})
    if (const auto at = text.find(word); at != Text::npos) cut_at(reply.clause_begin(at));
  for (const Text word : {Text(U"because"), Text(U"since "), Text(U"なぜなら"), Text(U"因为")})
    if (const auto at = text.find(word); at != Text::npos) cut_at(at);
  return first;
}

Found rule_equation(const Reply& reply) {
  const std::size_t end = check_begin(reply);
  const Found result = equation_in(reply, 0, end);
  if (result.kind != Found::Kind::kNumber) return result;
  // x = 3 or x = -3
  if (const auto before = reply.candidates_in(0, result.literal.begin); !before.empty()) {
    const std::size_t at = before.back().end;
    if (starts_with_any(trimmed(reply.text().substr(at, result.literal.begin - at)),
                        {U"or ", U", or ", U"または", U"、または", U"或", U",或"}) &&
        !(before.back().value == result.literal.value))
      return kAmbiguous;
  }
  // What is said afterwards either repeats the result, or is one other number, or leaves a choice.
  auto later = reply.candidates_in(result.literal.end, end);
  std::erase_if(later, [&](const Literal& l) { return reply.aside(l.begin) || reply.negated(l); });
  const bool repeated = std::any_of(later.begin(), later.end(), [&](const Literal& l) {
    return l.value == result.literal.value;
  });
  if (later.empty() || repeated) return result;
  if (!all_equal(later)) return kAmbiguous;
  const Text text = reply.text();
  const std::size_t begin = reply.clause_begin(later[0].begin);
  const Text clause = trimmed(text.substr(begin, later[0].begin - begin));
  return starts_with_any(
             clause, {U"よって", U"したがって", U"ゆえに", U"だから", U"つまり", U"所以", U"因此",
                      U"于是", U"therefore", U"so ", U"so,", U"thus", U"hence"})
             ? found(later[0])
             : kAmbiguous;
}

Found rule_last_number(const Reply& reply) {
  auto numbers = reply.candidates_in(0, check_begin(reply));
  std::erase_if(numbers,
                [&](const Literal& l) { return reply.aside(l.begin) || reply.negated(l); });
  if (numbers.empty()) return {};
  const Literal& last = numbers.back();
  if (!last.value || reply.operator_before(last) || reply.operator_after(last)) return kAmbiguous;
  if (all_equal(numbers)) return found(last);
  const Literal& previous = numbers[numbers.size() - 2];
  if (reply.joined(previous, last) || reply.with_remainder(previous) ||
      reply.parallel(previous, last) || reply.in_brackets(last))
    return kAmbiguous;
  if (!last.sure) return kAmbiguous;  // several single kanji: words among them, perhaps
  if (reply.enumerated(last) && std::any_of(numbers.begin(), numbers.end() - 1,
                                            [&](const Literal& l) { return reply.enumerated(l); }))
    return kAmbiguous;  // (1) 12 (2) 13
  // "95 > 78" answers two questions.
  const Text between = reply.text().substr(previous.end, last.begin - previous.end);
  if (trimmed(between) == U">" || trimmed(between) == U"<") return kAmbiguous;
  return found(last);
}

struct Rule {
  std::string_view name;
  Found (*find)(const Reply&);
  bool strict;
};
constexpr Rule kRules[] = {
    {"boxed", rule_boxed, true},         {"answer", rule_answer, true},
    {"remainder", rule_remainder, true}, {"bold", rule_bold, true},
    {"alone", rule_alone, true},         {"comparison", rule_comparison, false},
    {"equation", rule_equation, false},  {"last_number", rule_last_number, false},
};

constexpr std::pair<std::string_view, int> kMarks[] = {{"%", 100}, {"割", 10}};

// The one number that `written` is.
std::optional<Literal> only_number(std::string_view written) {
  const Reply reply(written, "");
  if (reply.all().size() != 1) return std::nullopt;
  const Literal& only = reply.all()[0];
  const Text whole = reply.text();
  if (!only.value || !trimmed(whole.substr(0, only.begin)).empty() ||
      !trimmed(whole.substr(only.end)).empty())
    return std::nullopt;
  return only;
}

}  // namespace

std::string_view name_of(Pipeline pipeline) {
  return pipeline == Pipeline::kStrict ? "strict" : "flexible";
}

std::optional<Pipeline> parse_pipeline(std::string_view name) {
  for (const Pipeline pipeline : {Pipeline::kFlexible, Pipeline::kStrict})
    if (name == name_of(pipeline)) return pipeline;
  return std::nullopt;
}

std::optional<Extraction> extract_number(std::string_view text, std::string_view language,
                                         Pipeline pipeline) {
  const Reply reply(text, language);
  for (const Rule& rule : kRules) {
    if (pipeline == Pipeline::kStrict && !rule.strict) continue;
    const Found result = rule.find(reply);
    if (result.kind == Found::Kind::kAmbiguous) return std::nullopt;
    if (result.kind == kNothing) continue;
    const Literal& literal = result.literal;
    const auto& origin = reply.folded().origin;
    return Extraction{to_string(*literal.value), std::string(rule.name),
                      origin[literal.begin].begin, origin[literal.end - 1].end, literal.per};
  }
  return std::nullopt;
}

std::optional<std::string> canonical_number(std::string_view written) {
  const auto only = only_number(written);
  if (!only) return std::nullopt;
  for (const auto& [mark, per] : kMarks)
    if (only->per == per)
      if (const auto count = product(only->value, Rational{per, 1}))
        return to_string(*count) + std::string(mark);
  return to_string(*only->value);
}

bool answers(const Extraction& extraction, std::string_view expected) {
  if (extraction.value == expected) return true;
  for (const auto& [mark, per] : kMarks) {
    if (!expected.ends_with(mark)) continue;
    const auto whole = only_number(expected);
    return (whole && extraction.value == to_string(*whole->value)) ||
           (extraction.per == 1 && extraction.value + std::string(mark) == expected);
  }
  return false;
}

bool mentions_number(std::string_view text, std::string_view language, std::string_view expected) {
  const Reply reply(text, language);
  return std::any_of(reply.all().begin(), reply.all().end(), [&](const Literal& l) {
    return l.value && answers({.value = to_string(*l.value)}, expected);
  });
}

}  // namespace assay::harness
