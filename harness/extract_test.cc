// The corpus suites/extraction/cases.csv, the oracle's own replies, and the laws that every
// extraction keeps.
#include "harness/extract.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <string>
#include <tuple>

#include "base/csv.h"
#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"

namespace assay::harness {
namespace {

fs::path source(const char* path) { return fs::path(ASSAY_SOURCE_DIR) / path; }

std::string shown(const std::optional<Extraction>& extraction) {
  return extraction ? extraction->value + " (" + extraction->rule + ")" : "none";
}

CsvTable read_corpus() {
  const fs::path path = source("suites/extraction/cases.csv");
  const auto text = read_file(path);
  auto table = text ? parse_csv(*text, path.string()) : tl::unexpected(text.error());
  EXPECT_TRUE(table) << table.error().message;
  return table ? *table : CsvTable{};
}

// Answerable rows that no rule reads today: "none" is no wrong number. Take a line away when a rule
// learns to read it.
constexpr std::string_view kUnread[] = {
    "答えは12ではありません。15です。",     "Profit: $70,000 (that is 35% more).",
    "税込で1,980円（本体1,800円）です。",   "So there are 18 students (9 boys and 9 girls).",
    "三人で分けると一人五個です。",         "半径是5厘米，面积是78.5平方厘米。",
    "5 × 170 + 4 = 854, thus remainder 4.", "2 + 2 = 4, minus 1 that's 3, quick maths.",
};

TEST(Extract, ReadsTheCorpusAndNeverAWrongNumber) {
  const CsvTable corpus = read_corpus();
  ASSERT_EQ(corpus.header, (std::vector<std::string>{"language", "text", "expected", "reason"}));
  EXPECT_GE(corpus.rows.size(), 1100u);
  int n_answerable = 0, n_right = 0, n_unread = 0;
  for (const CsvRow& row : corpus.rows) {
    const std::string &text = row.fields[1], &expected = row.fields[2];
    const auto got = extract_number(text, row.fields[0]);
    const bool unread =
        std::find(std::begin(kUnread), std::end(kUnread), text) != std::end(kUnread);
    n_answerable += expected != "none";
    n_right += got && got->value == expected;
    n_unread += unread;
    EXPECT_EQ(got ? got->value : "none", unread ? "none" : expected)
        << "line " << row.line << ", " << row.fields[0] << ": " << text << "\n  " << row.fields[3]
        << "; got " << shown(got);
  }
  EXPECT_EQ(n_unread, std::ssize(kUnread)) << "a text of kUnread is no row of the corpus";
  EXPECT_GE(n_right, 0.98 * n_answerable);
  std::cout << corpus.rows.size() << " rows, " << n_right << " of " << n_answerable
            << " answerable read\n";
}

TEST(Extract, TheStrictPipelineReadsOnlyPlacesThatSayTheyHoldTheAnswer) {
  const auto strict = [](std::string_view text, std::string_view language = "en") {
    return shown(extract_number(text, language, Pipeline::kStrict));
  };
  EXPECT_EQ(strict("So \\boxed{18}."), "18 (boxed)");
  EXPECT_EQ(strict("The answer is 18."), "18 (answer)");
  EXPECT_EQ(strict("#### 18"), "18 (answer)");
  EXPECT_EQ(strict("The remainder is 4."), "4 (remainder)");
  EXPECT_EQ(strict("They pay **18** euros."), "18 (bold)");
  EXPECT_EQ(strict("「18」です。", "ja"), "18 (alone)");
  for (const auto& [text, flexible] : std::initializer_list<std::pair<const char*, const char*>>{
           {"95 is larger.", "95 (comparison)"},
           {"9 × 2 = 18", "18 (equation)"},
           {"Tom has 18 apples.", "18 (last_number)"}}) {
    EXPECT_EQ(strict(text), "none") << text;
    EXPECT_EQ(shown(extract_number(text, "en")), flexible) << text;
  }
}

TEST(Extract, TheStrictPipelineNeverContradictsTheFlexibleOne) {
  int n_strict = 0;
  for (const CsvRow& row : read_corpus().rows) {
    const auto strict = extract_number(row.fields[1], row.fields[0], Pipeline::kStrict);
    if (!strict) continue;
    ++n_strict;
    EXPECT_EQ(shown(strict), shown(extract_number(row.fields[1], row.fields[0]))) << row.fields[1];
  }
  EXPECT_GE(n_strict, 400);
}

TEST(Extract, PipelinesGoByTheirNames) {
  for (const Pipeline pipeline : {Pipeline::kFlexible, Pipeline::kStrict})
    EXPECT_EQ(parse_pipeline(name_of(pipeline)), pipeline);
  EXPECT_EQ(parse_pipeline("lenient"), std::nullopt);
}

TEST(Extract, AShareCarriesHowItWasWritten) {
  for (const auto& [text, language, value, per] :
       std::initializer_list<std::tuple<const char*, const char*, const char*, int>>{
           {"50 %", "en", "1/2", 100},
           {"fifty percent", "en", "1/2", 100},
           {"百分之五十", "zh", "1/2", 100},
           {"5割", "ja", "1/2", 10},
           {"五成", "zh", "1/2", 10},
           {"0.5", "en", "1/2", 1},
           {"2分の1", "ja", "1/2", 1}}) {
    const auto got = extract_number(text, language);
    ASSERT_TRUE(got) << text;
    EXPECT_EQ(got->value, value) << text;
    EXPECT_EQ(got->per, per) << text;
    EXPECT_EQ(got->end, std::string_view(text).size()) << text << ": the mark belongs to the span";
  }
}

TEST(Answers, ComparesValuesExactlyAndKnowsWhatTheQuestionAsksFor) {
  const auto right = [](std::string_view reply, std::string_view expected) {
    return answers(*extract_number(reply, "ja"), *canonical_number(expected));
  };
  EXPECT_TRUE(right("0.50", "1/2"));
  EXPECT_TRUE(right("50%", "0.5"));
  EXPECT_FALSE(right("50%", "50")) << "50 % is not 50; a question in percent expects 50%";
  EXPECT_FALSE(right("50", "0.5"));
  // How many percent?
  EXPECT_TRUE(right("50%", "50%"));
  EXPECT_TRUE(right("50", "50%"));
  EXPECT_TRUE(right("0.5", "50%"));
  EXPECT_TRUE(right("5割", "50%"));
  EXPECT_FALSE(right("5", "50%"));
  EXPECT_FALSE(right("50%", "0.5%"));
  EXPECT_TRUE(right("12.5", "12.5%"));
  EXPECT_TRUE(right("-5", "-5%"));
  // 何割ですか
  EXPECT_TRUE(right("5", "5割"));
  EXPECT_TRUE(right("50%", "5割"));
  EXPECT_FALSE(right("50", "5割"));
  EXPECT_FALSE(answers({"0.333", "alone", 0, 5}, "1/3")) << "a third is not 0.333";
}

TEST(Extract, SpansReadBackAsTheirValue) {
  int n_read = 0;
  for (const CsvRow& row : read_corpus().rows) {
    const std::string& text = row.fields[1];
    const auto got = extract_number(text, row.fields[0]);
    if (!got) continue;
    ASSERT_LT(got->begin, got->end) << text;
    ASSERT_LE(got->end, text.size()) << text;
    const std::string span = text.substr(got->begin, got->end - got->begin);
    if (span.starts_with("- ")) continue;  // alone it would be a bullet
    const auto alone = extract_number(span, row.fields[0]);
    ASSERT_TRUE(alone) << text << ": span '" << span << "'";
    EXPECT_EQ(alone->value, got->value) << text << ": span '" << span << "'";
    ++n_read;
  }
  EXPECT_GE(n_read, 100);
}

TEST(Extract, ReadsEveryArithmeticReplyOfTheOracleAsItsExpectedAnswerSays) {
  const auto oracle = read_json(source("golden/micro-glm/oracle/continuations.json.gz"));
  ASSERT_TRUE(oracle) << oracle.error().message;
  int n = 0, n_correct = 0;
  for (const Json& record : *oracle) {
    const std::string group = record["group"], expected = record["expected"];
    const bool arithmetic =
        group.starts_with("arithmetic") || group == "reserved" ||
        (group == "reason in Japanese" && expected.find(" = ") != std::string::npos);
    if (!arithmetic) continue;
    std::string reply = record["text"];
    if (const auto close = reply.find("</think>"); close != std::string::npos)
      reply.erase(0, close + std::string_view("</think>").size());
    if (const auto stop = reply.find("<|user|>"); stop != std::string::npos) reply.erase(stop);
    const std::string language = record["lang"];
    const auto want = extract_number(expected, language), got = extract_number(reply, language);
    ASSERT_TRUE(want) << expected;
    ASSERT_TRUE(got) << reply;
    ++n;
    n_correct += want->value == got->value;
    // The recipe's own scorer: the last run of digits.
    const auto last_digits = [](const std::string& text) {
      const auto end = text.find_last_of("0123456789");
      auto begin = end;
      while (begin > 0 && text[begin - 1] >= '0' && text[begin - 1] <= '9') --begin;
      return text.substr(begin, end - begin + 1);
    };
    EXPECT_EQ(want->value, last_digits(expected)) << expected;
    EXPECT_EQ(got->value, last_digits(reply)) << reply;
  }
  EXPECT_GE(n, 15);
  EXPECT_GE(n_correct, n - 3) << "the oracle's README: nearly all are right";
}

TEST(Extract, SurvivesAnyBytes) {
  // Pieces that rules look for, in random order, cut anywhere.
  const std::string pieces[] = {
      "答え", "は",         "18",      "\\boxed{", "}",        "**",   "−",     "1/2",  "万",
      "千",   "answer is ", "=",       "×",        "\xff\xfe", "，",   "1,234", "十",   ".",
      "\n",   "余り",       "\\frac{", "^",        "より",     "大き", "０",    "$",    "\xe4\xb8",
      "%",    "割",         "forty-",  "two ",     "hundred ", "点",   "半",    "not ", " percent"};
  for (int round = 0; round < 4000; ++round) {
    std::string text;
    for (int k = 0; k < 12; ++k)
      text += pieces[static_cast<std::size_t>(
          uniform_at(7, static_cast<std::uint64_t>(round), static_cast<std::uint64_t>(k)) *
          static_cast<double>(std::size(pieces)))];
    const auto got = extract_number(text, round % 2 ? "ja" : "zh");
    if (!got) continue;
    ASSERT_LT(got->begin, got->end);
    ASSERT_LE(got->end, text.size());
    EXPECT_TRUE(canonical_number(got->value)) << text << " -> " << got->value;
  }
}

TEST(CanonicalNumber, WritesOneFormPerValue) {
  for (const auto& [written, canonical] :
       std::initializer_list<std::pair<const char*, const char*>>{{"1016", "1016"},
                                                                  {" 1,016 ", "1016"},
                                                                  {"１０１６", "1016"},
                                                                  {"千十六", "1016"},
                                                                  {"-0", "0"},
                                                                  {"−5", "-5"},
                                                                  {"2/4", "1/2"},
                                                                  {"0.5", "1/2"},
                                                                  {"-8.5", "-17/2"},
                                                                  {"14万2000", "142000"},
                                                                  {"forty-two", "42"},
                                                                  {"50 %", "50%"},
                                                                  {"50パーセント", "50%"},
                                                                  {"-12.5%", "-25/2%"},
                                                                  {"-25/2%", "-25/2%"},
                                                                  {"2割5分", "5/2割"},
                                                                  {"18.00", "18"}})
    EXPECT_EQ(canonical_number(written), canonical) << written;
}

TEST(CanonicalNumber, RejectsWhatIsNotOneNumber) {
  for (const char* written : {"", " ", "18円", "18 5", "3+15", "answer 18", "1/0", "1.2.3", "x"})
    EXPECT_EQ(canonical_number(written), std::nullopt) << written;
}

}  // namespace
}  // namespace assay::harness
