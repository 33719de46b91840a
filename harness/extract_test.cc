// The corpus harness/extract_cases.csv, the oracle's own replies, and the laws that every
// extraction keeps.
#include "harness/extract.h"

#include <gtest/gtest.h>

#include <string>

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
  const fs::path path = source("harness/extract_cases.csv");
  const auto text = read_file(path);
  auto table = text ? parse_csv(*text, path.string()) : tl::unexpected(text.error());
  EXPECT_TRUE(table) << table.error().message;
  return table ? *table : CsvTable{};
}

TEST(Extract, AgreesWithTheCorpus) {
  const CsvTable corpus = read_corpus();
  ASSERT_EQ(corpus.header, (std::vector<std::string>{"language", "text", "expected", "reason"}));
  EXPECT_GE(corpus.rows.size(), 120u);
  for (const CsvRow& row : corpus.rows) {
    const auto got = extract_number(row.fields[1], row.fields[0]);
    EXPECT_EQ(got ? got->value : "none", row.fields[2])
        << "line " << row.line << ", " << row.fields[0] << ": " << row.fields[1] << "\n  "
        << row.fields[3] << "; got " << shown(got);
  }
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
  const auto oracle = read_json(source("golden/micro-glm/oracle/continuations.json"));
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
  const std::string pieces[] = {"答え", "は",    "18",   "\\boxed{",   "}",  "**",      "−",
                                "1/2",  "万",    "千",   "answer is ", "=",  "×",       "\xff\xfe",
                                "，",   "1,234", "十",   ".",          "\n", "余り",    "\\frac{",
                                "^",    "より",  "大き", "０",         "$",  "\xe4\xb8"};
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
                                                                  {"18.00", "18"}})
    EXPECT_EQ(canonical_number(written), canonical) << written;
}

TEST(CanonicalNumber, RejectsWhatIsNotOneNumber) {
  for (const char* written : {"", " ", "18円", "18 5", "3+15", "answer 18", "1/0", "1.2.3", "x"})
    EXPECT_EQ(canonical_number(written), std::nullopt) << written;
}

}  // namespace
}  // namespace assay::harness
