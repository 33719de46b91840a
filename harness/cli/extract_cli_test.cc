// assay extract as a user meets it.
#include "base/json.h"
#include "harness/cli/cli_testing.h"

namespace assay {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST_F(Cli, ExtractPrintsValueRuleAndMarkedSpan) {
  const Outcome o = assay({"extract", "--lang", "ja", "答えは14万2000円です。"});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(o.out,
            "value  142000\nrule   answer\nspan   bytes 9 to 18: 答えは⟦14万2000⟧円です。\n");
  const Outcome none = assay({"extract", "--lang", "ja", "答えは3と5です。"});
  EXPECT_EQ(none.code, 0) << none.err;
  EXPECT_THAT(none.out, AllOf(HasSubstr("value  none"), HasSubstr("flexible")));
}

TEST_F(Cli, ExtractGivesTheSameAsJson) {
  const Outcome o = assay({"extract", "--json", "--lang", "en"}, "So\nit is **50 %**.");
  ASSERT_EQ(o.code, 0) << o.err;
  const Json json = Json::parse(o.out);
  EXPECT_EQ(json["pipeline"], "flexible");
  EXPECT_EQ(json["extraction"], (Json{{"value", "1/2"},
                                      {"rule", "bold"},
                                      {"begin", 11},
                                      {"end", 15},
                                      {"span", "50 %"},
                                      {"per", 100}}));
  EXPECT_TRUE(
      Json::parse(assay({"extract", "--json", "--lang", "en", "?"}).out)["extraction"].is_null());
}

TEST_F(Cli, ExtractStrictlyTakesNoLastNumber) {
  const std::vector<std::string> text = {"extract", "--lang", "en", "Tom has 18 apples."};
  EXPECT_THAT(assay(text).out, HasSubstr("value  18"));
  std::vector<std::string> strict = text;
  strict.insert(strict.end(), {"--pipeline", "strict"});
  EXPECT_THAT(assay(strict).out, AllOf(HasSubstr("value  none"), HasSubstr("strict")));
}

TEST_F(Cli, ExtractReadsTheCorpusAsCsv) {
  const std::string corpus = *read_file(fs::path(ASSAY_SOURCE_DIR) / "suites/extraction/cases.csv");
  const Outcome o = assay({"extract"}, corpus);
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, HasSubstr(" not read, 0 wrong\n"));
}

TEST_F(Cli, ExtractExitsWithOneOnAWrongNumberOnly) {
  const Outcome o = assay({"extract"},
                          "language,text,expected\nen,It is 18.,18\nen,It is 18.,17\n"
                          "en,It is 3 or 5.,3\nen,50 %,50%\nen,no number,none\n");
  EXPECT_EQ(o.code, 1) << o.err;
  EXPECT_THAT(o.out, AllOf(HasSubstr("    3  en  18 "), HasSubstr("WRONG: expected 17"),
                           HasSubstr("not read: expected 3"),
                           HasSubstr("3 of 5 rows agree, 1 not read, 1 wrong")));
  EXPECT_EQ(assay({"extract"}, "language,text,expected\nen,3 or 5,3\n").code, 0);
  EXPECT_EQ(assay({"extract"}, "language,text,expected\nen,It is 18.,none\n").code, 1);
  // Without expectations there is nothing to be wrong about, and nothing is counted.
  const Outcome plain = assay({"extract"}, "text,language\n\"a\nis 18\",en\n");
  EXPECT_EQ(plain.code, 0) << plain.err;
  EXPECT_EQ(plain.out, "    2  en  18             last_number  a⏎is ⟦18⟧\n");

  const Outcome json = assay({"extract", "--json"}, "language,text,expected\nen,It is 18.,17\n");
  EXPECT_EQ(json.code, 1) << json.err;
  const Json record = Json::parse(json.out);
  EXPECT_EQ(record["n_wrong"], 1);
  EXPECT_EQ(record["rows"][0]["agreement"], "wrong");
  EXPECT_EQ(record["rows"][0]["extraction"]["value"], "18");
}

TEST_F(Cli, ExtractNamesWhatIsWrongWithItsInput) {
  const auto csv = [](const std::string& text) { return assay({"extract"}, text); };
  expect_error(assay({"extract", "18"}), HasSubstr("--lang"));
  expect_error(assay({"extract", "--lang", "jp", "18"}),
               AllOf(HasSubstr("--lang"), HasSubstr("'jp'"), HasSubstr("'ja'")));
  expect_error(assay({"extract", "--lang", "en", "--pipeline", "strikt", "18"}),
               AllOf(HasSubstr("--pipeline"), HasSubstr("'strict'")));
  expect_error(assay({"extract", "--lang", "en", "18 \xff"}),
               AllOf(HasSubstr("UTF-8"), HasSubstr("0xff"), HasSubstr("byte 3")));
  expect_error(csv("language,text\nen,\xff\n"), AllOf(HasSubstr("input:2"), HasSubstr("UTF-8")));
  expect_error(csv(""), HasSubstr("header"));
  expect_error(csv("language,txt\nen,18\n"), AllOf(HasSubstr("'txt'"), HasSubstr("'text'")));
  expect_error(csv("The answer is 18.\n"), HasSubstr("--lang"));
  expect_error(csv("text\n18\n"), AllOf(HasSubstr("'language'"), HasSubstr("missing")));
  expect_error(csv("text,text,language\n"), HasSubstr("twice"));
  expect_error(csv("language,text\nen,\"18\n"), HasSubstr("never closed"));
  expect_error(csv("language,text\nen,1,016\n"),
               AllOf(HasSubstr("input:2"), HasSubstr("3 fields")));
  expect_error(csv("language,text\nfr,18\n"), AllOf(HasSubstr("input:2"), HasSubstr("'fr'")));
  expect_error(csv("language,text,expected\nen,18,many\n"),
               AllOf(HasSubstr("input:2"), HasSubstr("'many'"), HasSubstr("none")));
}

}  // namespace
}  // namespace assay
