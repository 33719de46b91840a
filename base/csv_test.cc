#include "base/csv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace assay {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string error_of(std::string_view text) {
  const auto table = parse_csv(text, "cases.csv");
  return table ? "no error" : table.error().message;
}

TEST(Csv, ReadsHeaderAndRows) {
  const auto table = parse_csv("id,answer\na,1\nb,2\n", "cases.csv");
  ASSERT_TRUE(table) << table.error().message;
  EXPECT_THAT(table->header, ElementsAre("id", "answer"));
  ASSERT_EQ(table->rows.size(), 2u);
  EXPECT_THAT(table->rows[0].fields, ElementsAre("a", "1"));
  EXPECT_THAT(table->rows[1].fields, ElementsAre("b", "2"));
}

TEST(Csv, QuotedFieldsHoldCommasQuotesAndLineBreaks) {
  const auto table =
      parse_csv("id,text\na,\"1,000 \"\"yen\"\"\"\nb,\"two\nlines\"\nc,\"two\r\nlines\"\n", "c");
  ASSERT_TRUE(table) << table.error().message;
  ASSERT_EQ(table->rows.size(), 3u);
  EXPECT_EQ(table->rows[0].fields[1], "1,000 \"yen\"");
  EXPECT_EQ(table->rows[1].fields[1], "two\nlines");
  EXPECT_EQ(table->rows[2].fields[1], "two\r\nlines");
}

TEST(Csv, SpreadsheetFilesReadAsPlainOnes) {  // byte-order mark, CRLF, no line break at the end
  const auto plain = parse_csv("id,text\na,日本\n", "c");
  const auto saved_by_excel = parse_csv("\xEF\xBB\xBFid,text\r\na,日本", "c");
  ASSERT_TRUE(plain && saved_by_excel);
  EXPECT_EQ(saved_by_excel->header, plain->header);
  ASSERT_EQ(saved_by_excel->rows.size(), 1u);
  EXPECT_EQ(saved_by_excel->rows[0].fields, plain->rows[0].fields);
}

// Its quoted commas would be called broken quoting, hundreds of lines below.
TEST(Csv, AnotherSeparatorIsSaidOfTheHeader) {
  const std::string row = "a;\"x\";\"1, 2\"\n";
  EXPECT_THAT(error_of("id;text;answer\n" + row),
              HasSubstr("cases.csv:1: the header is one column: is ';' the separator? A comma is "
                        "expected"));
  EXPECT_THAT(error_of("\xEF\xBB\xBF\"id\";\"text\"\r\n"), HasSubstr("is ';' the separator?"));
  EXPECT_THAT(error_of("id\ttext\n"), HasSubstr("is a tab the separator?"));
  EXPECT_THAT(error_of("\"id\";\"text, long\"\n"), HasSubstr("is ';' the separator?"));
  EXPECT_EQ(error_of("\"text; more\"\na\n"), "no error") << "one column of that name";
  EXPECT_EQ(error_of("id,text;more\na,b\n"), "no error");
  EXPECT_EQ(error_of("text\na;b\n"), "no error") << "a column of its own";
}

TEST(Csv, EmptyFieldsAreKept) {
  const auto table = parse_csv("a,b,c\n,\"\",\n", "c");
  ASSERT_TRUE(table) << table.error().message;
  EXPECT_THAT(table->rows[0].fields, ElementsAre("", "", ""));
}

TEST(Csv, RowsKnowTheLineTheyStartOn) {
  // Line breaks inside first, middle and last fields, empty lines between rows.
  const auto table = parse_csv(
      "a,b\n"           // 1
      "\"x\ny\",1\n"    // 2, 3
      "\n"              // 4
      "z,\"1\n2\n\"\n"  // 5, 6, 7
      "  \r\n"          // 8: blank
      "\"p\n\nq\",2\n"  // 9, 10, 11
      "last,3",         // 12
      "c");
  ASSERT_TRUE(table) << table.error().message;
  std::vector<int> lines;
  for (const CsvRow& row : table->rows) lines.push_back(row.line);
  EXPECT_THAT(lines, ElementsAre(2, 5, 9, 12));
}

TEST(Csv, WrongNumberOfFieldsNamesTheLineAndBothCounts) {
  EXPECT_THAT(error_of("a,b\n1,2\n\"x\ny\"\n"),
              AllOf(HasSubstr("cases.csv:3: 1 fields, expected 2 as in the header. "),
                    HasSubstr("Quote fields that hold commas")));
  EXPECT_THAT(error_of("a,b\r\n1,2,3\r\n"),
              HasSubstr("cases.csv:2: 3 fields, expected 2 as in the header"));
}

TEST(Csv, UnclosedQuoteNamesTheLineWhereItsRowBegan) {
  for (const char* row : {"3,\"open\n5,6\n7,8\n", "\"open,3\n5,6\n"})
    EXPECT_THAT(error_of(std::string("a,b\n1,2\n") + row),
                AllOf(HasSubstr("cases.csv:3: a quoted field of the row that begins here is never"),
                      HasSubstr("Close it")));
}

TEST(Csv, AQuoteThatTurnsUpLaterNamesTheRowThatItMayBelongTo) {
  EXPECT_THAT(error_of("a,b\n1,\"open\n3,4\n5,\"six\"\n"),
              HasSubstr("cases.csv:4: broken quoting in the row that begins on line 2. Quote"));
}

TEST(Csv, StrayQuotesAreErrorsAndNotData) {
  EXPECT_THAT(error_of("a,b\n1,5\" pipe\n"),
              AllOf(HasSubstr("cases.csv:2:"), HasSubstr("broken quoting")));
  EXPECT_THAT(error_of("a,b\n1,2\n\"x\"y,2\n"),
              AllOf(HasSubstr("cases.csv:3:"), HasSubstr("broken quoting")));
}

TEST(Csv, AnEmptyFileIsAnError) {
  EXPECT_EQ(error_of(""), "cases.csv: empty, expected a header row");
  EXPECT_EQ(error_of("\xEF\xBB\xBF\r\n\n"), "cases.csv: empty, expected a header row");
}

TEST(Csv, AHeaderAloneIsATableWithoutRows) {
  const auto table = parse_csv("a,b\n", "c");
  ASSERT_TRUE(table);
  EXPECT_TRUE(table->rows.empty());
}

}  // namespace
}  // namespace assay
