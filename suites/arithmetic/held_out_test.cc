// Guards cases.csv of this suite: every question is new to the bundled model, every answer is
// right, and the triples are triples. Reads the committed file; needs neither the model nor Python.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/csv.h"
#include "base/file.h"
#include "base/json.h"

namespace assay {
namespace {

using Int = long long;

constexpr std::string_view kLanguages[] = {"ja", "en", "zh"};
constexpr std::string_view kOps[] = {"+", "-", "×", "÷", "%"};

// 7, 12.5 and 3/4; percentages are written 15/100, and not reduced: the question names both parts.
struct Number {
  Int top = 0, bottom = 1;

  bool is_whole() const { return bottom == 1; }
  bool operator==(const Number& other) const { return top * other.bottom == other.top * bottom; }
};

// Neither decimals nor fractions nor percentages occur in training, whatever the numbers.
const std::set<std::string_view> kNeverTrained = {"decimal", "fraction", "percent"};

struct Step {
  Number a;
  std::string op;
  Number b;
};

// zlib's crc32: reflected polynomial 0xEDB88320, all ones in and out.
std::uint32_t crc32(std::string_view bytes) {
  std::uint32_t crc = 0xFFFFFFFFu;
  for (const char byte : bytes) {
    crc ^= static_cast<std::uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) ? 0xEDB88320u : 0u);
  }
  return ~crc;
}

// The recipe's rule (golden/micro-glm/recipe/gen.py): its training never asks these.
bool held_out(Int a, std::string_view op, Int b) {
  const auto hashed = [op](Int x, Int y) {
    return crc32(std::to_string(x) + std::string(op) + std::to_string(y)) % 10 == 7;
  };
  const auto [low, high] = std::minmax(a, b);
  if (op == "×" && ((low == 8 && high == 127) || (low == 6 && high == 269))) return true;
  return hashed(a, b) || ((op == "+" || op == "×") && hashed(b, a));
}

std::optional<Int> parse_int(std::string_view text) {
  Int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<Number> parse_number(std::string_view text) {
  if (const std::size_t slash = text.find('/'); slash != std::string_view::npos) {
    const auto top = parse_int(text.substr(0, slash)), bottom = parse_int(text.substr(slash + 1));
    if (!top || !bottom || *bottom < 2) return std::nullopt;
    return Number{*top, *bottom};
  }
  const std::size_t point = text.find('.');
  std::string digits(text);
  Int bottom = 1;
  if (point != std::string_view::npos) {
    digits.erase(point, 1);
    for (std::size_t i = point + 1; i < text.size(); ++i) bottom *= 10;
  }
  const auto top = parse_int(digits);
  if (!top) return std::nullopt;
  return Number{*top, bottom};
}

// "31-1;30+123"; a first operand may be negative, hence the search from its second byte on.
std::optional<std::vector<Step>> parse_steps(std::string_view text) {
  std::vector<Step> steps;
  while (!text.empty()) {
    const std::string_view one = text.substr(0, text.find(';'));
    text.remove_prefix(std::min(text.size(), one.size() + 1));
    std::optional<Step> step;
    for (const std::string_view op : kOps) {
      const std::size_t at = one.find(op, 1);
      if (at == std::string_view::npos) continue;
      const auto a = parse_number(one.substr(0, at)), b = parse_number(one.substr(at + op.size()));
      if (a && b) step = Step{*a, std::string(op), *b};
    }
    if (!step) return std::nullopt;
    steps.push_back(*step);
  }
  return steps;
}

// No result for whole numbers whose division leaves a remainder: the answer would not be whole
// either.
std::optional<Number> result_of(const Step& step) {
  const auto& [a, op, b] = step;
  if (op == "+") return Number{a.top * b.bottom + b.top * a.bottom, a.bottom * b.bottom};
  if (op == "-") return Number{a.top * b.bottom - b.top * a.bottom, a.bottom * b.bottom};
  if (op == "×") return Number{a.top * b.top, a.bottom * b.bottom};
  if (b.top == 0) return std::nullopt;
  if (op == "%") {
    if (!a.is_whole() || !b.is_whole()) return std::nullopt;
    return Number{a.top % b.top};
  }
  if (a.is_whole() && b.is_whole()) {
    if (a.top % b.top != 0) return std::nullopt;
    return Number{a.top / b.top};
  }
  return Number{a.top * b.bottom, a.bottom * b.top};
}

// Full-width digits to ASCII, thousands commas dropped.
std::string plain_digits(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](std::size_t at) {
      return at < text.size() && text[at] >= '0' && text[at] <= '9';
    };
    if (i + 3 <= text.size() && text.substr(i, 2) == "\xEF\xBC" && text[i + 2] >= '\x90' &&
        text[i + 2] <= '\x99') {
      out += static_cast<char>('0' + (text[i + 2] - '\x90'));
      i += 2;
    } else if (!(text[i] == ',' && i > 0 && digit(i - 1) && digit(i + 1) && digit(i + 2) &&
                 digit(i + 3))) {
      out += text[i];
    }
  }
  return out;
}

// 1 ≤ n ≤ 9999 as Japanese (百二十七) or Chinese (一百二十七, 八百零一) writes it.
std::string kanji(Int n, bool chinese) {
  static constexpr std::string_view kDigits[] = {"",   "一", "二", "三", "四",
                                                 "五", "六", "七", "八", "九"};
  static constexpr std::pair<Int, std::string_view> kUnits[] = {
      {1000, "千"}, {100, "百"}, {10, "十"}, {1, ""}};
  std::string out;
  bool gap = false;
  for (const auto& [unit, name] : kUnits) {
    const Int digit = n / unit % 10;
    if (digit == 0) {
      gap = true;
      continue;
    }
    if (chinese && gap && !out.empty()) out += "零";
    gap = false;
    const bool bare = digit == 1 && (chinese ? unit == 10 && out.empty() : unit > 1);
    if (!bare) out += kDigits[digit];
    out += name;
  }
  return out;
}

// 350000000 as 三億五千万; for amounts whose ten-thousands need no 零.
std::string large_kanji(Int n, bool chinese) {
  return kanji(n / 100'000'000, chinese) + (chinese ? "亿" : "億") +
         kanji(n / 10'000 % 10'000, chinese) + "万";
}

// 142000 as 14万2000, 350000000 as 3億5000万.
std::string large_mixed(Int n, std::string_view upper) {
  std::string out;
  if (n >= 100'000'000) out += std::to_string(n / 100'000'000) + std::string(upper);
  out += std::to_string(n / 10'000 % 10'000) + "万";
  if (n % 10'000 != 0) out += std::to_string(n % 10'000);
  return out;
}

// As a whole number, not as part of a longer run of digits.
bool mentions(const std::string& digits, const std::string& number) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  for (std::size_t at = digits.find(number); at != std::string::npos;
       at = digits.find(number, at + 1)) {
    const std::size_t end = at + number.size();
    if ((at == 0 || !is_digit(digits[at - 1])) && (end == digits.size() || !is_digit(digits[end])))
      return true;
  }
  return false;
}

bool asks_about(std::string_view prompt, Int operand) {
  const std::string digits = plain_digits(prompt);
  if (mentions(digits, std::to_string(operand))) return true;
  if (operand >= 10'000) {
    const auto says = [&](const std::string& text) {
      return digits.find(text) != std::string::npos;
    };
    return says(large_mixed(operand, "億")) || says(large_mixed(operand, "亿")) ||
           says(large_kanji(operand, false)) || says(large_kanji(operand, true));
  }
  return operand > 0 && (prompt.find(kanji(operand, false)) != std::string_view::npos ||
                         prompt.find(kanji(operand, true)) != std::string_view::npos);
}

// Fractions as 3/4 or 4分の3, percentages with their sign, decimals as written.
bool asks_about(std::string_view prompt, const Number& operand) {
  if (operand.is_whole()) return asks_about(prompt, operand.top);
  const std::string digits = plain_digits(prompt), top = std::to_string(operand.top),
                    bottom = std::to_string(operand.bottom);
  if (mentions(digits, top + "/" + bottom) || mentions(digits, bottom + "分の" + top)) return true;
  if (operand.bottom == 100 && mentions(digits, top + "%")) return true;
  std::string decimal = top;
  while (decimal.size() < bottom.size()) decimal.insert(0, "0");
  decimal.insert(decimal.size() + 1 - bottom.size(), ".");
  return mentions(digits, decimal);
}

class ArithmeticSuite : public testing::Test {
 protected:
  using Row = std::map<std::string, std::string>;

  static void SetUpTestSuite() {
    const fs::path path = fs::path(ASSAY_SOURCE_DIR) / "suites/arithmetic/cases.csv";
    const auto text = read_file(path);
    ASSERT_TRUE(text) << text.error().message;
    const auto table = parse_csv(*text, path.string());
    ASSERT_TRUE(table) << table.error().message;
    ASSERT_THAT(table->header,
                testing::ElementsAre("id", "cluster", "language", "kind", "profile", "prompt",
                                     "messages", "answer", "steps", "note", "gated"));
    for (const CsvRow& fields : table->rows) {
      Row row;
      for (std::size_t i = 0; i < table->header.size(); ++i)
        row[table->header[i]] = fields.fields[i];
      all_rows.push_back(std::move(row));
    }
  }
  static void TearDownTestSuite() { all_rows.clear(); }

  void SetUp() override { ASSERT_GE(all_rows.size(), 900u); }

  // What the case says, all messages together.
  static std::string words_of(const Row& row) {
    if (!row.at("prompt").empty()) return row.at("prompt");
    std::string words;
    const auto messages = parse_json(row.at("messages"), row.at("id"));
    if (!messages) return words;  // FieldsKeepTheFormat says so
    for (const Json& message : *messages) words += message.at("content").get<std::string>() + "\n";
    return words;
  }

  static std::vector<Row> all_rows;
};

std::vector<ArithmeticSuite::Row> ArithmeticSuite::all_rows;

TEST(HeldOutRule, AgreesWithZlib) {
  EXPECT_EQ(crc32("123456789"), 0xCBF43926u);  // the check value of CRC-32
  EXPECT_TRUE(held_out(8, "×", 127));
  EXPECT_TRUE(held_out(6, "×", 269));
  EXPECT_FALSE(held_out(127, "+", 8));
}

TEST_F(ArithmeticSuite, EveryStepIsHeldOutFromTraining) {
  for (const Row& row : all_rows) {
    const auto steps = parse_steps(row.at("steps"));
    ASSERT_TRUE(steps) << row.at("id") << ": " << row.at("steps");
    EXPECT_EQ(steps->empty(), row.at("kind") == "compare") << row.at("id");
    if (kNeverTrained.contains(row.at("kind"))) continue;
    for (const Step& step : *steps) {
      ASSERT_TRUE(step.a.is_whole() && step.b.is_whole()) << row.at("id");
      EXPECT_TRUE(held_out(step.a.top, step.op, step.b.top))
          << row.at("id") << ": " << step.a.top << step.op << step.b.top
          << " may occur in training";
    }
  }
}

TEST_F(ArithmeticSuite, AnswersAreTheResultsOfTheirSteps) {
  for (const Row& row : all_rows) {
    const auto answer = parse_number(row.at("answer"));
    ASSERT_TRUE(answer) << row.at("id");
    if (answer->is_whole())
      EXPECT_EQ(std::to_string(answer->top), row.at("answer")) << row.at("id") << ": not canonical";
    else
      EXPECT_TRUE(kNeverTrained.contains(row.at("kind"))) << row.at("id");
    const auto steps = *parse_steps(row.at("steps"));
    if (steps.empty()) {
      EXPECT_TRUE(asks_about(words_of(row), *answer)) << row.at("id");
      continue;
    }
    EXPECT_EQ(result_of(steps.back()), answer) << row.at("id") << ": " << row.at("steps");
    // A later step starts from the result of the one before.
    for (std::size_t i = 1; i < steps.size(); ++i) {
      const auto before = result_of(steps[i - 1]);
      EXPECT_TRUE(before == steps[i].a || before == steps[i].b) << row.at("id");
    }
    // Echoing a number of the question must not score.
    for (const Step& step : steps)
      EXPECT_FALSE(step.a == *answer || step.b == *answer) << row.at("id");
  }
}

TEST_F(ArithmeticSuite, QuestionsMentionTheirOperands) {
  for (const Row& row : all_rows) {
    const std::string words = words_of(row);
    std::vector<Number> worked_out;  // results of earlier steps need not be asked
    const auto steps = *parse_steps(row.at("steps"));
    for (const Step& step : steps) {
      for (const Number& operand : {step.a, step.b})
        EXPECT_TRUE(std::find(worked_out.begin(), worked_out.end(), operand) != worked_out.end() ||
                    asks_about(words, operand))
            << row.at("id") << ": " << operand.top << "/" << operand.bottom
            << " is not in: " << words;
      if (const auto result = result_of(step)) worked_out.push_back(*result);
    }
  }
}

TEST_F(ArithmeticSuite, ClustersHoldOneProblemInSeveralLanguages) {
  std::set<std::string> ids;
  std::map<std::string, const Row*> first;
  std::set<std::pair<std::string, std::string>> seen;
  for (const Row& row : all_rows) {
    EXPECT_TRUE(ids.insert(row.at("id")).second) << row.at("id") << " is there twice";
    EXPECT_EQ(row.at("id"), row.at("cluster") + "-" + row.at("language"));
    EXPECT_TRUE(seen.emplace(row.at("cluster"), row.at("language")).second) << row.at("id");
    const Row& head = *first.emplace(row.at("cluster"), &row).first->second;
    for (const char* same : {"answer", "steps", "kind", "profile", "gated"})
      EXPECT_EQ(row.at(same), head.at(same)) << row.at("id") << ": " << same;
  }
  std::set<std::string> problems;
  for (const auto& [cluster, row] : first) {
    if (row->at("steps").empty()) continue;
    EXPECT_TRUE(problems.insert(row->at("steps")).second) << cluster << " repeats a problem";
  }
}

TEST_F(ArithmeticSuite, FieldsKeepTheFormat) {
  for (const Row& row : all_rows) {
    EXPECT_THAT(kLanguages, testing::Contains(row.at("language"))) << row.at("id");
    EXPECT_THAT(row.at("profile"), testing::AnyOf("quick", "ci", "nightly", "full"));
    EXPECT_THAT(row.at("gated"), testing::AnyOf("yes", "no")) << row.at("id");
    EXPECT_NE(row.at("prompt").empty(), row.at("messages").empty()) << row.at("id");
    if (row.at("messages").empty()) continue;
    const auto messages = parse_json(row.at("messages"), row.at("id"));
    ASSERT_TRUE(messages && messages->is_array() && !messages->empty()) << row.at("id");
    EXPECT_EQ(messages->back().at("role"), "user") << row.at("id");
  }
}

TEST_F(ArithmeticSuite, QuickAsksEveryGatedKindInEveryLanguageThatHasIt) {
  using Cell = std::pair<std::string, std::string>;
  std::set<Cell> all, quick;
  std::map<std::string, int> n_quick;
  std::set<std::string> kinds;
  for (const Row& row : all_rows) {
    const Cell cell(row.at("kind"), row.at("language"));
    kinds.insert(row.at("kind"));
    if (row.at("gated") == "yes") all.insert(cell);
    if (row.at("profile") != "quick") continue;
    quick.insert(cell);
    ++n_quick[row.at("language")];
  }
  EXPECT_THAT(quick, testing::IsSupersetOf(all));
  for (const char* kind : {"add", "sub", "mul", "div", "rem", "two_step", "compare", "word",
                           "fullwidth", "kanji", "release"})
    EXPECT_TRUE(kinds.contains(kind)) << kind;
  for (const std::string_view language : kLanguages)
    EXPECT_GE(n_quick[std::string(language)], 40) << language;
}

TEST_F(ArithmeticSuite, GrowthStaysOutOfQuickAndCi) {
  std::map<std::string, int> n;
  for (const Row& row : all_rows) ++n[row.at("profile")];
  EXPECT_EQ(n["quick"], 144);
  EXPECT_EQ(n["quick"] + n["ci"], 287);
}

TEST_F(ArithmeticSuite, AsksTheReleasesOwnChecks) {
  std::map<std::string, std::string> answers;
  for (const Row& row : all_rows)
    if (row.at("kind") == "release")
      answers[row.at("id")] = row.at("steps") + "=" + row.at("answer");
  EXPECT_THAT(answers,
              testing::UnorderedElementsAre(testing::Pair("release-127x8-ja", "127×8=1016"),
                                            testing::Pair("release-127x8-en", "127×8=1016"),
                                            testing::Pair("release-127x8-zh", "127×8=1016"),
                                            testing::Pair("release-269x6-ja", "269×6=1614")));
}

}  // namespace
}  // namespace assay
