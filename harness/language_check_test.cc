#include "harness/language_check.h"

#include <gtest/gtest.h>

#include "base/csv.h"
#include "base/file.h"

namespace assay::harness {
namespace {

TEST(LanguageCheck, TheMixedTextsAreJudgedAsTheirRowsSay) {
  const std::string path = ASSAY_SOURCE_DIR "/suites/detectors/mixed.csv";
  const auto file = read_file(path);
  ASSERT_TRUE(file) << file.error().message;
  const auto table = parse_csv(*file, path);
  ASSERT_TRUE(table) << table.error().message;
  ASSERT_EQ(table->header,
            (std::vector<std::string>{"id", "expected", "detected", "drift", "text"}));
  for (const CsvRow& row : table->rows) {
    const std::string& text = row.fields[4];
    if (row.fields[2] != "-") {  // half in one, half in another
      EXPECT_EQ(name_of(detect_language(text).language), row.fields[2]) << row.fields[0];
    }
    const auto expected = parse_language(row.fields[1]);
    ASSERT_TRUE(expected) << row.fields[0];
    const auto drift = find_drift(text, *expected);
    EXPECT_EQ(drift ? name_of(drift->language) : "none", row.fields[3])
        << row.fields[0]
        << (drift ? ": " + text.substr(drift->begin, drift->end - drift->begin) : "");
  }
}

TEST(LanguageCheck, DriftIsFoundWhereItStandsAndNoFurther) {
  const std::string before = "まず127に8をかけると1016になります。",
                    foreign = "然后我们把卖掉的数量减去，就得到剩下的数目",
                    after = "。よって答えは498です。";
  const std::string text = before + foreign + after;
  const auto drift = find_drift(text, Language::kJapanese);
  ASSERT_TRUE(drift);
  EXPECT_EQ(text.substr(drift->begin, drift->end - drift->begin), foreign);
  EXPECT_EQ(drift->language, Language::kChinese);
  EXPECT_FALSE(find_drift(before + after, Language::kJapanese));
}

TEST(LanguageCheck, SharesAreOfWhatIsRead) {
  const LanguageGuess guess = detect_language("漢字とかな 12345 `code` $x$ words");
  EXPECT_NEAR(guess.weight, 7.0, 1e-12);  // 2 Han, 3 kana, 5 letters of 0.4
  EXPECT_NEAR(guess.han, 2 / 7.0, 1e-12);
  EXPECT_NEAR(guess.kana, 3 / 7.0, 1e-12);
  EXPECT_NEAR(guess.latin, 2 / 7.0, 1e-12);
  EXPECT_EQ(detect_language("").weight, 0);
}

TEST(LanguageCheck, TheTwoChineseScriptsAreToldApart) {
  const LanguageGuess hans = detect_language("首先我们计算总数，然后减去卖掉的数量");
  EXPECT_GE(hans.n_simplified, 6);
  EXPECT_EQ(hans.n_traditional, 0);
  const LanguageGuess hant = detect_language("首先我們計算總數，然後減去賣掉的數量");
  EXPECT_GE(hant.n_traditional, 6);
  EXPECT_EQ(hant.n_simplified, 0);
}

TEST(LanguageCheck, NothingIsForeignWhereNoLanguageIsExpected) {
  EXPECT_FALSE(
      find_drift("这是中文，我们说中文。 It is English that we write here, and so on it goes.",
                 Language::kNone));
}

TEST(LanguageCheck, BrokenBytesAndOpenSpansEndWithTheText) {
  EXPECT_EQ(detect_language("\xFF\xE3\x81 abc \\boxed{never closed").language, Language::kNone);
  EXPECT_EQ(detect_language("``` the code that never ends").weight, 0);
  EXPECT_NEAR(detect_language("$5 and then $6 more").weight, 0.4 * 11, 1e-12);
}

}  // namespace
}  // namespace assay::harness
