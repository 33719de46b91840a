#include "harness/cases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace assay::harness {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const std::string kHead = "id,cluster,language,kind,profile,prompt,messages,answer,steps,note\n";
const std::vector<std::string> kLanguages = {"ja", "en"};

std::string error_of(const std::string& csv) {
  const auto cases = parse_cases(csv, "cases.csv", kLanguages, Scoring::kNumber);
  return cases ? "no error" : cases.error().message;
}

TEST(Cases, ColumnsMayComeInAnyOrder) {
  const auto cases = parse_cases(
      "note,answer,id,cluster,kind,language,profile,messages,prompt,steps,gated\n"
      "n,12,a,c,add,ja,ci,,\"1,2\n3\",2,no\n",
      "cases.csv", kLanguages, Scoring::kNumber);
  ASSERT_TRUE(cases) << cases.error().message;
  const Case& c = cases->front();
  EXPECT_EQ(c.id, "a");
  EXPECT_EQ(c.answer, "12");
  EXPECT_EQ(c.profile, Profile::kCi);
  EXPECT_EQ(c.messages[0]["content"], "1,2\n3");
  EXPECT_FALSE(c.gated);
}

TEST(Cases, AnAnswerInPercentStaysOne) {
  const auto cases =
      parse_cases(kHead + "a,c,ja,k,ci,何%？,,50 %,,\nb,c,ja,k,ci,確率は？,,0.50,,\n", "cases.csv",
                  kLanguages, Scoring::kNumber);
  ASSERT_TRUE(cases) << cases.error().message;
  EXPECT_EQ(cases->at(0).answer, "50%");
  EXPECT_EQ(cases->at(1).answer, "1/2");
}

struct Bad {
  const char* name;
  std::string csv;
  std::vector<std::string> expected;
};

class CasesBadInput : public testing::TestWithParam<Bad> {};

TEST_P(CasesBadInput, NamesTheLineAndTheReason) {
  const std::string message = error_of(GetParam().csv);
  for (const std::string& part : GetParam().expected) EXPECT_THAT(message, HasSubstr(part));
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, CasesBadInput,
    testing::Values(
        Bad{"unknown_column",
            "id,cluster,language,kind,profile,promt,messages,answer,steps,note\n",
            {"cases.csv:1", "'promt'", "'prompt'"}},
        Bad{"missing_column", "id,cluster\n", {"cases.csv:1", "missing column 'language'"}},
        Bad{"double_column", "id,id\n", {"'id' is there twice"}},
        Bad{"double_id",
            kHead + "a,c,ja,k,ci,p,,1,,\nb,c,ja,k,ci,p,,1,,\na,c,ja,k,ci,p,,1,,\n",
            {"cases.csv:4", "'a' is already on line 2"}},
        Bad{"language", kHead + "a,c,jp,k,ci,p,,1,,\n", {"cases.csv:2", "'jp'"}},
        Bad{"profile", kHead + "a,c,ja,k,nightl,p,,1,,\n", {"cases.csv:2", "'nightly'"}},
        Bad{"empty_kind", kHead + "a,c,ja,,ci,p,,1,,\n", {"cases.csv:2", "'kind' is empty"}},
        Bad{"no_prompt", kHead + "a,c,ja,k,ci,,,1,,\n", {"exactly one of", "neither"}},
        Bad{"both", kHead + "a,c,ja,k,ci,p,[],1,,\n", {"exactly one of", "both"}},
        Bad{"answer", kHead + "a,c,ja,k,ci,p,,many,,\n", {"cases.csv:2", "number", "'many'"}},
        Bad{"messages_json", kHead + "a,c,ja,k,ci,,[{,1,,\n", {"cases.csv:2", "JSON"}},
        Bad{"messages_shape", kHead + "a,c,ja,k,ci,,\"{\"\"role\"\":1}\",1,,\n", {"'messages'"}},
        Bad{"role",
            kHead + "a,c,ja,k,ci,,\"[{\"\"role\"\":\"\"bot\"\",\"\"content\"\":\"\"\"\"}]\",1,,\n",
            {"unknown role 'bot'"}},
        Bad{"utf8",
            kHead + "a,c,ja,k,ci,p,,1,,\nb,c,ja,k,ci,\xff,,1,,\n",
            {"cases.csv:3", "UTF-8"}},
        Bad{"field_count", kHead + "a,c,ja\n", {"cases.csv:2"}},
        Bad{"no_rows", kHead, {"only a header"}}, Bad{"empty", "", {"cases.csv"}}),
    [](const auto& one) { return one.param.name; });

TEST(Cases, GatedMustBeYesOrNo) {
  EXPECT_THAT(error_of("id,cluster,language,kind,profile,prompt,messages,answer,steps,note,gated\n"
                       "a,c,ja,k,ci,p,,1,,,maybe\n"),
              AllOf(HasSubstr("'gated'"), HasSubstr("'maybe'")));
}

TEST(Cases, SayHowTheyAreJudgedWhereTheSuiteDoesNot) {
  const std::string head =
      "id,cluster,language,kind,profile,prompt,messages,answer,steps,note,scoring,"
      "reasoning_language,prefill\n";
  const auto cases = parse_cases(
      head + "a,a,ja,k,ci,p,,北岳|Kita,,,text,en,\n" + "b,b,en,k,ci,p,,,,,,,Let me see.\n",
      "cases.csv", kLanguages, Scoring::kNone);
  ASSERT_TRUE(cases) << cases.error().message;
  EXPECT_EQ((*cases)[0].scoring, Scoring::kText);
  EXPECT_EQ((*cases)[0].answer, "北岳|Kita");
  EXPECT_EQ((*cases)[0].reasoning_language, "en");
  EXPECT_EQ((*cases)[1].scoring, Scoring::kNone);
  EXPECT_EQ((*cases)[1].prefill, "Let me see.");
  const auto error = [&](const std::string& row) {
    const auto bad = parse_cases(head + row, "cases.csv", kLanguages, Scoring::kNone);
    return bad ? std::string("no error") : bad.error().message;
  };
  EXPECT_THAT(error("a,a,ja,k,ci,p,,5,,,,,\n"), HasSubstr("'answer' must be empty"));
  EXPECT_THAT(error("a,a,ja,k,ci,p,,,,,text,,\n"), HasSubstr("separated by |"));
  EXPECT_THAT(error("a,a,ja,k,ci,p,,x,,,number,,\n"), HasSubstr("must be a number"));
  EXPECT_THAT(error("a,a,ja,k,ci,p,,,,,numbr,,\n"), HasSubstr("'number'"));
  EXPECT_THAT(error("a,a,ja,k,ci,p,,,,,,zh,\n"), HasSubstr("reasoning_language"));
}

}  // namespace
}  // namespace assay::harness
