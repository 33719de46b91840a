// The public MGSM files, as people have them; every fault is named with its line.
#include "harness/mgsm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/find_suites.h"
#include "harness/test_support.h"

namespace assay::harness {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TEST(Mgsm, ALineIsAQuestionAndItsNumber) {
  const auto problems = parse_mgsm("Janet has 16 eggs. How many?\t18\r\nA robe?\t2,125", "x.tsv");
  ASSERT_TRUE(problems) << problems.error().message;
  ASSERT_EQ(problems->size(), 2u);
  EXPECT_EQ((*problems)[0].first, "Janet has 16 eggs. How many?");
  EXPECT_EQ((*problems)[1].second, "2125");
}

TEST(Mgsm, EveryFaultIsNamedWithItsLine) {
  const auto error = [](std::string_view tsv) {
    const auto bad = parse_mgsm(tsv, "x.tsv");
    return bad ? std::string("no error") : bad.error().message;
  };
  EXPECT_THAT(error("a\t1\nno tab\n"), AllOf(HasSubstr("x.tsv:2"), HasSubstr("no tab")));
  EXPECT_THAT(error("a\tb\tc\n"), HasSubstr("x.tsv:1"));
  EXPECT_THAT(error("a\tmany\n"), AllOf(HasSubstr("x.tsv:1"), HasSubstr("'many'")));
  EXPECT_THAT(error(""), HasSubstr("no problem"));
  EXPECT_THAT(error("\xff\t1\n"), HasSubstr("UTF-8"));
}

class MgsmSuite : public testing::Test {
 protected:
  Result<Suite> load(const std::vector<std::string>& languages = {}) const {
    SuiteInputs inputs;
    inputs.languages = languages;
    inputs.data = data_.path();
    return load_suite(fs::path(ASSAY_SOURCE_DIR) / "suites/mgsm", inputs);
  }
  void write(const std::string& name, const std::string& text) const {
    ASSERT_TRUE(write_file_atomic(data_.path() / name, text));
  }
  TemporaryFolder data_;
};

TEST_F(MgsmSuite, ReadsTheUsersFilesIntoClustersOfThree) {
  write("mgsm_ja.tsv", "一つ目は？\t18\n二つ目は？\t3\n");
  write("mgsm_en.tsv", "The first?\t18\nThe second?\t3\n");
  write("mgsm_zh.tsv", "第一题？\t18\n第二题？\t3\n");
  const auto suite = load();
  ASSERT_TRUE(suite) << suite.error().message;
  ASSERT_EQ(suite->cases.size(), 6u);
  const Case& c = suite->cases[0];
  EXPECT_EQ(c.id, "mgsm-001-ja");
  EXPECT_EQ(c.cluster, suite->cases[2].cluster);
  EXPECT_EQ(c.answer, "18");
  EXPECT_THAT(c.messages[0]["content"].get<std::string>(), HasSubstr("一つ目は？"));
}

TEST_F(MgsmSuite, FilesThatDoNotMatchAreAnError) {
  write("mgsm_ja.tsv", "一\t18\n");
  EXPECT_THAT(load().error().message, HasSubstr("mgsm_en.tsv"));
  write("mgsm_en.tsv", "1?\t18\n2?\t3\n");
  EXPECT_THAT(load().error().message, AllOf(HasSubstr("mgsm_en.tsv"), HasSubstr("expected 1")));
}

TEST_F(MgsmSuite, WithoutOneLanguagesFileTheOthersCanBeAsked) {
  write("mgsm_ja.tsv", "一\t18\n");
  write("mgsm_en.tsv", "1?\t18\n");
  const auto says =
      AllOf(HasSubstr("--data: there is no " + (data_.path() / "mgsm_zh.tsv").string()),
            HasSubstr("url-nlp"), HasSubstr("--languages ja,en"));
  EXPECT_THAT(load().error().message, says);
  const auto two = load({"ja", "en"});
  ASSERT_TRUE(two) << two.error().message;
  EXPECT_EQ(two->cases.size(), 2u);
  EXPECT_THAT(load({"en", "zh"}).error().message, HasSubstr("--languages en"));
  write("mgsm_zh.tsv", "一\t18\n");
  EXPECT_EQ(load({"en"})->hash, load()->hash) << "of every file that is there";
}

TEST(Mgsm, ItsSuiteSaysWhereTheFilesComeFrom) {
  const std::vector<std::string> names = {"mgsm"};
  const auto found = find_suites(names, fs::path(ASSAY_SOURCE_DIR) / "suites");
  ASSERT_FALSE(found);
  EXPECT_THAT(found.error().message, AllOf(HasSubstr("--data"), HasSubstr("url-nlp")));
}

}  // namespace
}  // namespace assay::harness
