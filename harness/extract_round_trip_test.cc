// Number → rendering in a sentence → number: 100,000 drawn numbers in three languages. The writers
// here share no code with the extractor. A wrong number is a failure; "none" may be rare.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <iostream>
#include <map>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "base/rng.h"
#include "harness/extract.h"

namespace assay::harness {
namespace {

using Strings = std::vector<std::string>;
enum Language { kJapanese, kEnglish, kChinese };
constexpr std::array kLanguages = {"ja", "en", "zh"};

class Draws {
 public:
  explicit Draws(std::uint64_t stream) : stream_(stream) {}
  std::int64_t below(std::int64_t n) {
    return static_cast<std::int64_t>(uniform_at(2024, stream_, position_++) *
                                     static_cast<double>(n));
  }
  std::int64_t between(std::int64_t lo, std::int64_t hi) { return lo + below(hi - lo + 1); }
  const std::string& of(const Strings& choices) {
    return choices[static_cast<std::size_t>(below(std::ssize(choices)))];
  }
  // Every number of digits up to n_digits is as likely as the others.
  std::int64_t number(int n_digits) {
    std::int64_t limit = 10;
    for (std::int64_t n = below(n_digits); n > 0; --n) limit *= 10;
    return below(limit);
  }

 private:
  std::uint64_t stream_, position_ = 0;
};

std::string with_commas(std::int64_t n, std::string_view comma = ",") {
  std::string out = std::to_string(n);
  for (std::ptrdiff_t i = std::ssize(out) - 3; i > 0; i -= 3)
    out.insert(static_cast<std::size_t>(i), comma);
  return out;
}

// ASCII digits and separators to their full-width forms.
std::string full_width(std::string_view ascii) {
  static const std::map<char, std::string> kWide = {{',', "，"}, {'.', "．"}, {'/', "／"}};
  std::string out;
  for (const char c : ascii)
    out += c >= '0' && c <= '9' ? std::string("\xEF\xBC") + static_cast<char>(0x90 + (c - '0'))
                                : kWide.at(c);
  return out;
}

struct KanjiStyle {
  std::array<const char*, 10> digits;
  std::array<const char*, 4> small;  // 1, 10, 100, 1000
  std::array<const char*, 4> big;    // 1, 10^4, 10^8, 10^12
  bool one_before_unit;              // 一十, 一百
  const char* gap;                   // 零, or nothing
};
const KanjiStyle kJapaneseKanji = {{"〇", "一", "二", "三", "四", "五", "六", "七", "八", "九"},
                                   {"", "十", "百", "千"},
                                   {"", "万", "億", "兆"},
                                   false,
                                   ""};
const KanjiStyle kDaiji = {{"零", "壱", "弐", "参", "四", "五", "六", "七", "八", "九"},
                           {"", "拾", "百", "千"},
                           {"", "万", "億", "兆"},
                           true,
                           ""};
const KanjiStyle kChineseKanji = {{"零", "一", "二", "三", "四", "五", "六", "七", "八", "九"},
                                  {"", "十", "百", "千"},
                                  {"", "万", "亿", "兆"},
                                  true,
                                  "零"};
const KanjiStyle kDaxie = {{"零", "壹", "贰", "叁", "肆", "伍", "陆", "柒", "捌", "玖"},
                           {"", "拾", "佰", "仟"},
                           {"", "万", "亿", "兆"},
                           true,
                           "零"};

// 1 to 9999. Chinese puts one 零 for a gap between two digits.
std::string kanji_section(std::int64_t n, const KanjiStyle& style) {
  std::string out;
  bool gap = false;
  for (std::size_t k = 4; k-- > 0;) {
    const std::int64_t unit = std::array<std::int64_t, 4>{1, 10, 100, 1000}[k];
    const std::int64_t digit = n / unit % 10;
    if (digit == 0) {
      gap = !out.empty();
      continue;
    }
    if (gap) out += style.gap;
    gap = false;
    if (digit > 1 || k == 0 || style.one_before_unit)
      out += style.digits[static_cast<std::size_t>(digit)];
    out += style.small[k];
  }
  return out;
}

std::string kanji(std::int64_t n, const KanjiStyle& style) {
  if (n == 0) return style.digits[0];
  std::string out;
  for (std::size_t k = 4; k-- > 0;) {
    std::int64_t unit = 1;
    for (std::size_t i = 0; i < k; ++i) unit *= 10'000;
    const std::int64_t section = n / unit % 10'000;
    if (section == 0) continue;
    if (!out.empty() && section < 1000) out += style.gap;
    out += kanji_section(section, style) + style.big[k];
  }
  return out;
}

std::string kanji_digit_by_digit(std::string_view digits, const KanjiStyle& style) {
  std::string out;
  for (const char c : digits) out += style.digits[static_cast<std::size_t>(c - '0')];
  return out;
}

// 14万2000, 1億8990万
std::string mixed(std::int64_t n, const KanjiStyle& style) {
  std::string out;
  for (std::size_t k = 4; k-- > 0;) {
    std::int64_t unit = 1;
    for (std::size_t i = 0; i < k; ++i) unit *= 10'000;
    const std::int64_t section = n / unit % 10'000;
    if (section > 0) out += std::to_string(section) + style.big[k];
  }
  return out.empty() ? "0" : out;
}

constexpr std::array kUnits = {"zero",    "one",     "two",       "three",    "four",
                               "five",    "six",     "seven",     "eight",    "nine",
                               "ten",     "eleven",  "twelve",    "thirteen", "fourteen",
                               "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"};
constexpr std::array kTens = {"",      "",      "twenty",  "thirty", "forty",
                              "fifty", "sixty", "seventy", "eighty", "ninety"};

std::string words_below_thousand(std::int64_t n, bool with_and) {
  std::string out;
  if (n >= 100) {
    out = std::string(kUnits[static_cast<std::size_t>(n / 100)]) + " hundred";
    n %= 100;
    if (n > 0) out += with_and ? " and " : " ";
    if (n == 0) return out;
  }
  if (n < 20) return out + kUnits[static_cast<std::size_t>(n)];
  out += kTens[static_cast<std::size_t>(n / 10)];
  return n % 10 == 0 ? out : out + "-" + kUnits[static_cast<std::size_t>(n % 10)];
}

std::string words(std::int64_t n, bool with_and) {
  if (n == 0) return "zero";
  static const std::pair<std::int64_t, const char*> kScales[] = {
      {1'000'000'000, " billion"}, {1'000'000, " million"}, {1000, " thousand"}, {1, ""}};
  std::string out;
  for (const auto& [scale, name] : kScales) {
    const std::int64_t group = n / scale % 1000;
    if (group == 0) continue;
    const bool last_and = scale == 1 && group < 100 && with_and;
    if (!out.empty()) out += last_and ? " and " : " ";
    out += words_below_thousand(group, with_and) + name;
  }
  return out;
}

struct Rendered {
  std::string text, kind;
  std::int64_t num = 0, den = 1;
};

// n / 10^places as people write it.
std::string decimal(std::int64_t n, int places) {
  std::string digits = std::to_string(n);
  while (std::ssize(digits) <= places) digits.insert(0, "0");
  return digits.insert(digits.size() - static_cast<std::size_t>(places), ".");
}

const KanjiStyle& everyday(Language language) {
  return language == kChinese ? kChineseKanji : kJapaneseKanji;
}

Rendered integer(Draws& draws, Language language) {
  const std::int64_t n = draws.number(12);
  if (language == kEnglish) {
    switch (draws.below(4)) {
      case 0:
        return {std::to_string(n), "digits", n};
      case 1:
        return {with_commas(n), "commas", n};
      case 2:
        return {with_commas(n, "{,}"), "LaTeX commas", n};
      default:
        return {words(n, draws.below(2) == 0), "words", n};
    }
  }
  switch (draws.below(7)) {
    case 0:
      return {std::to_string(n), "digits", n};
    case 1:
      return {with_commas(n), "commas", n};
    case 2:
      return {full_width(std::to_string(n)), "full-width", n};
    case 3:
      return {full_width(with_commas(n)), "full-width commas", n};
    case 4:
      return {kanji(n, everyday(language)), "kanji", n};
    case 5:
      return {kanji(n, language == kChinese ? kDaxie : kDaiji), "formal kanji", n};
    default:
      // Below ten behind 万 a Chinese reader takes it for thousands; nobody writes that.
      if (language == kChinese && n >= 10'000 && n % 10'000 > 0 && n % 10'000 < 10)
        return {std::to_string(n), "digits", n};
      return {mixed(n, everyday(language)), "mixed", n};
  }
}

Rendered decimals(Draws& draws, Language language) {
  const int places = static_cast<int>(draws.between(1, 3));
  const std::int64_t den = std::array<std::int64_t, 4>{1, 10, 100, 1000}[std::size_t(places)];
  const std::int64_t n = draws.number(7);
  const std::string text = decimal(n, places);
  const std::string behind_point = text.substr(text.find('.') + 1);
  if (language == kEnglish) {
    if (draws.below(3) > 0) return {text, "decimal", n, den};
    std::string said = words(n / den, false) + " point";
    for (const char c : behind_point) said += std::string(" ") + kUnits[std::size_t(c - '0')];
    return {said, "decimal words", n, den};
  }
  switch (draws.below(4)) {
    case 0:
      return {text, "decimal", n, den};
    case 1:
      return {full_width(text), "full-width decimal", n, den};
    case 2:
      return {text + "万", "decimal 万", n * 10'000, den};
    default:
      return {kanji(n / den, everyday(language)) + "点" +
                  kanji_digit_by_digit(behind_point, everyday(language)),
              "kanji decimal", n, den};
  }
}

Rendered fraction(Draws& draws, Language language) {
  const std::int64_t den = draws.between(2, 40), num = draws.between(1, 60);
  if (num % den == 0) return {std::to_string(num), "digits", num};
  const std::string over = std::to_string(num), under = std::to_string(den);
  const std::string slash = over + "/" + under;
  if (draws.below(4) == 0) return {"\\frac{" + over + "}{" + under + "}", "\\frac", num, den};
  if (language == kEnglish) {
    static const Strings kNames = {"",      "",        "half",   "third", "quarter", "fifth",
                                   "sixth", "seventh", "eighth", "ninth", "tenth"};
    const bool sayable = den <= 10 && num < 20 && (den > 2 || num == 1);
    switch (draws.below(3)) {
      case 0:
        return {slash, "slash", num, den};
      case 1:
        if (num < den) return {slash, "slash", num, den};
        return {std::to_string(num / den) + " " + std::to_string(num % den) + "/" + under,
                "mixed number", num, den};
      default:
        if (!sayable) return {slash, "slash", num, den};
        return {std::string(kUnits[std::size_t(num)]) + (draws.below(2) == 0 ? " " : "-") +
                    kNames[std::size_t(den)] + (num == 1 ? "" : "s"),
                "fraction words", num, den};
    }
  }
  const std::string of = language == kChinese ? "分之" : "分の";
  switch (draws.below(4)) {
    case 0:
      return {slash, "slash", num, den};
    case 1:
      return {full_width(slash), "full-width slash", num, den};
    case 2:
      return {under + of + over, "分の", num, den};
    default:
      return {kanji(den, everyday(language)) + of + kanji(num, everyday(language)), "kanji 分の",
              num, den};
  }
}

Rendered share(Draws& draws, Language language) {
  const bool tenths = draws.below(2) == 0;
  const std::int64_t n = draws.between(1, tenths ? 1500 : 150), den = tenths ? 1000 : 100;
  const std::string digits = tenths ? decimal(n, 1) : std::to_string(n);
  switch (draws.below(4)) {
    case 0:
      return {digits + "%", "percent", n, den};
    case 1:
      return {digits + (language == kEnglish ? "\\%" : " %"), "percent", n, den};
    case 2:
      if (language == kEnglish)
        return tenths ? Rendered{digits + " percent", "percent", n, den}
                      : Rendered{words(n, true) + " percent", "percent words", n, den};
      return {full_width(digits) + "％", "full-width percent", n, den};
    default:
      if (language == kEnglish) return {digits + " percent", "percent", n, den};
      if (language == kChinese)
        return tenths ? Rendered{"百分之" + digits, "百分之", n, den}
                      : Rendered{"百分之" + kanji(n, kChineseKanji), "百分之", n, den};
      if (tenths || n >= 100 || n < 10) return {digits + "パーセント", "パーセント", n, den};
      return {std::to_string(n / 10) + "割" + (n % 10 == 0 ? "" : std::to_string(n % 10) + "分"),
              "割", n, den};
  }
}

void negate(Rendered& rendered, Draws& draws, Language language) {
  static const Strings kSigns[] = {{"-", "−", "－", "マイナス", "マイナス"},
                                   {"-", "−", "minus ", "negative "},
                                   {"-", "−", "－", "负", "负"}};
  if (rendered.num == 0) return;
  rendered.text = draws.of(kSigns[language]) + rendered.text;
  rendered.kind = "negative " + rendered.kind;
  rendered.num = -rendered.num;
}

// @ is where the number goes. Some hold other numbers: a check, the question, what it is not.
const Strings& sentences(Language language) {
  static const Strings kSentences[] = {{"答えは@です。",
                                        "答え：@",
                                        "@",
                                        "@です。",
                                        "答えは@円です。",
                                        "したがって、答えは@個です。",
                                        "答えは@です。検算は3+15です。",
                                        "答え: \\boxed{@}",
                                        "**@**",
                                        "答えは**@**です。",
                                        "127×8を計算すると、答えは@になります。",
                                        "12ではなく@です。",
                                        "3+15=18ではないので、答えは@です。",
                                        "まず6人を2組に分けます。\n\n最終的な答え：@",
                                        "正解は「@」です。",
                                        "127×8＝@",
                                        "計算の結果は@でした。",
                                        "【答え】@",
                                        "答えは約@です。",
                                        "答え\n@",
                                        "全部で@個になります。",
                                        "6個ずつ2回なので、残りは@円です。",
                                        "おつりは **@円** です。"},
                                       {"The answer is @.",
                                        "Answer: @",
                                        "@",
                                        "It is @.",
                                        "The answer is $@.",
                                        "So the answer is @ apples.",
                                        "The answer is @. Check: 3+15.",
                                        "\\boxed{@}",
                                        "$\\boxed{@}$",
                                        "**@**",
                                        "The answer is **@**.",
                                        "127 × 8 = @",
                                        "The answer is not 12 but @.",
                                        "First, 3 + 15 = 18. Therefore, the answer is @.",
                                        "There are 6 people in 2 groups.\n\nFinal answer: @",
                                        "The result of 127 × 8 is @.",
                                        "#### @",
                                        "The answer is @, because 3+15=18.",
                                        "The answer is \"@\".",
                                        "Answer:\n\n@",
                                        "Tom has @ apples left.",
                                        "6 people bought 2 each, so they pay $@ in total.",
                                        "That makes @ km."},
                                       {"答案是@。",
                                        "答案：@",
                                        "@",
                                        "是@。",
                                        "答案是@元。",
                                        "所以答案是@个。",
                                        "答案是@。验算：3+15",
                                        "答案：\\boxed{@}",
                                        "**@**",
                                        "答案是**@**。",
                                        "127×8=@",
                                        "不是12，而是@。",
                                        "先算3+15=18，所以答案是@。",
                                        "6个人分成2组。\n\n最终答案：@",
                                        "127×8的结果是@。",
                                        "等于@",
                                        "答案为@。",
                                        "答案是“@”。",
                                        "答：@",
                                        "答案\n@",
                                        "一共@个。",
                                        "6个人每人2个，还剩@元。",
                                        "应找回 **@元**。"}};
  return kSentences[language];
}

std::string value_of(const Rendered& rendered) {
  const std::int64_t divisor = std::gcd(rendered.num, rendered.den);
  const std::int64_t den = rendered.den / divisor;
  return std::to_string(rendered.num / divisor) + (den == 1 ? "" : "/" + std::to_string(den));
}

TEST(Extract, AHundredThousandNumbersComeBackFromTheirSentences) {
  constexpr int kRounds = 100'000;
  int n_wrong = 0, n_shown = 0;
  std::map<std::string, int> n_unread_of, n_of;
  for (int round = 0; round < kRounds; ++round) {
    Draws draws(static_cast<std::uint64_t>(round));
    const auto language = static_cast<Language>(round % 3);
    const std::int64_t form = draws.below(10);
    Rendered rendered = form < 5   ? integer(draws, language)
                        : form < 7 ? decimals(draws, language)
                        : form < 8 ? fraction(draws, language)
                                   : share(draws, language);
    if (draws.below(5) == 0) negate(rendered, draws, language);
    const std::string& sentence = draws.of(sentences(language));
    const std::size_t at = sentence.find('@');
    const std::string text = sentence.substr(0, at) + rendered.text + sentence.substr(at + 1);

    const std::string kind = std::string(kLanguages[language]) + " " + rendered.kind;
    ++n_of[kind];
    const auto got = extract_number(text, kLanguages[language]);
    if (!got) {
      if (++n_unread_of[kind] <= 3 && n_shown++ < 60) std::cout << "unread: " << text << "\n";
      continue;
    }
    const bool inside = got->begin >= at && got->end <= at + rendered.text.size();
    if (got->value == value_of(rendered) && inside) continue;
    ++n_wrong;
    if (n_wrong <= 40)
      ADD_FAILURE() << "round " << round << ", " << kind << ": " << text << "\n  expected "
                    << value_of(rendered) << ", got " << got->value << " (" << got->rule << ")";
  }
  EXPECT_EQ(n_wrong, 0);
  int n_unread = 0;
  for (const auto& [kind, n] : n_unread_of) {
    n_unread += n;
    EXPECT_LE(n, 0.05 * n_of[kind]) << kind;
  }
  EXPECT_LE(n_unread, 0.02 * kRounds);
  std::cout << kRounds << " round trips, " << n_of.size() << " kinds: " << n_unread << " unread, "
            << n_wrong << " wrong\n";
}

}  // namespace
}  // namespace assay::harness
