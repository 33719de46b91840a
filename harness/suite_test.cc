#include "harness/suite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "harness/find_suites.h"
#include "harness/test_support.h"

namespace assay::harness {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string with(std::string text, std::string_view was, std::string_view is) {
  const auto at = text.find(was);
  if (at == std::string::npos) throw std::runtime_error("the test replaces nothing");
  return text.replace(at, was.size(), is);
}

std::string error_of_json(std::string_view was, std::string_view is) {
  const auto suite = parse_suite(with(kSuiteJson, was, is), "suite.json", kCasesCsv, "cases.csv");
  return suite ? "no error" : suite.error().message;
}

TEST(Suite, ReadsWhatWasWritten) {
  const auto suite = parse_suite(kSuiteJson, "suite.json", kCasesCsv, "cases.csv");
  ASSERT_TRUE(suite) << suite.error().message;
  EXPECT_EQ(suite->name, "sums");
  EXPECT_EQ(suite->version, 3);
  ASSERT_EQ(suite->arms.size(), 2u);
  EXPECT_EQ(suite->arms[0].max_thinking_tokens, 640);
  EXPECT_FALSE(suite->arms[1].enable_thinking);
  ASSERT_EQ(suite->cases.size(), 7u);
  EXPECT_EQ(suite->cases[0].messages[0]["content"], "2たす3は？");
  EXPECT_EQ(suite->cases[6].messages[0]["role"], "system");
  EXPECT_EQ(suite->gates[0].where.text(), "thinking");
}

TEST(Suite, AFloorOfItsOwnIsAShare) {
  const auto suite = parse_suite(
      with(kSuiteJson, "\"version\": 3,", "\"version\": 3, \"floor\": 0.05,"), "j", kCasesCsv, "c");
  ASSERT_TRUE(suite) << suite.error().message;
  EXPECT_EQ(suite->floor, 0.05);
  EXPECT_EQ(parse_suite(kSuiteJson, "j", kCasesCsv, "c")->floor, kDefaultFloor);
  EXPECT_THAT(error_of_json("\"version\": 3,", "\"version\": 3, \"floor\": 5,"),
              AllOf(HasSubstr("'floor'"), HasSubstr("5")));
}

TEST(Suite, TheHashChangesWithEitherFile) {
  const auto a = parse_suite(kSuiteJson, "j", kCasesCsv, "c");
  const auto b = parse_suite(with(kSuiteJson, "For tests.", "For test."), "j", kCasesCsv, "c");
  const auto c = parse_suite(kSuiteJson, "j", with(kCasesCsv, "2 + 3", "3 + 2"), "c");
  ASSERT_TRUE(a && b && c);
  EXPECT_NE(a->hash, b->hash);
  EXPECT_NE(a->hash, c->hash);
}

TEST(Suite, AnUnknownKeySuggestsTheNearest) {
  EXPECT_THAT(error_of_json("\"version\"", "\"versoin\""),
              AllOf(HasSubstr("suite.json"), HasSubstr("'versoin'"), HasSubstr("'version'")));
  EXPECT_THAT(error_of_json("\"metric\": \"accuracy\"", "\"metric\": \"acuracy\""),
              AllOf(HasSubstr("gates[0]"), HasSubstr("'accuracy'")));
}

TEST(Suite, WrongTypesNameExpectedAndGot) {
  EXPECT_THAT(error_of_json("\"version\": 3", "\"version\": \"3\""),
              AllOf(HasSubstr("whole number"), HasSubstr("got \"3\"")));
  EXPECT_THAT(error_of_json("\"max_tokens\": 768", "\"max_tokens\": 1e99"),
              HasSubstr("max_tokens"));
  EXPECT_THAT(error_of_json("\"enable_thinking\": true", "\"enable_thinking\": 1"),
              HasSubstr("true or false"));
  EXPECT_THAT(error_of_json("\"format\": 1", "\"format\": 2"), HasSubstr("format"));
  EXPECT_THAT(error_of_json("\"scoring\": \"number\"", "\"scoring\": \"vibes\""),
              HasSubstr("number"));
}

TEST(Suite, AGateThatSelectsNoCaseIsAnError) {
  // Chinese has no case of kind "add2"; "mul" and "quick" exist, but not together with direct and
  // fr.
  EXPECT_THAT(error_of_json("\"where\": {\"arm\": \"thinking\"}, \"min\": 0.75",
                            "\"where\": {\"kind\": \"addd\"}, \"min\": 0.75"),
              AllOf(HasSubstr("unknown kind 'addd'"), HasSubstr("'add'")));
  std::string csv = kCasesCsv;  // the only Chinese multiplication is taken out of the gates
  csv = with(csv, "steps,note\n", "steps,note,gated\n");
  for (std::size_t at = csv.find('\n') + 1; at < csv.size(); at = csv.find('\n', at) + 4)
    csv.insert(csv.find('\n', at), ",no");
  const auto suite = parse_suite(kSuiteJson, "suite.json", csv, "cases.csv");
  ASSERT_FALSE(suite);
  EXPECT_THAT(suite.error().message, AllOf(HasSubstr("gates[0]"), HasSubstr("selects no case")));
}

TEST(Suite, ANameThatCannotBePartOfAPathIsRefused) {
  EXPECT_THAT(error_of_json("\"name\": \"sums\"", "\"name\": \"../sums\""),
              AllOf(HasSubstr("suite.json"), HasSubstr("'name' may have"), HasSubstr("'../sums'")));
}

TEST(Suite, AGateNeedsExactlyOneLimit) {
  EXPECT_THAT(error_of_json("\"min\": 0.75", "\"min\": 0.75, \"max\": 1"),
              HasSubstr("exactly one"));
  EXPECT_THAT(error_of_json(", \"min\": 0.75", ""), HasSubstr("exactly one"));
  EXPECT_THAT(error_of_json("\"min\": 0.75", "\"min\": 75"), HasSubstr("from 0 to 1"));
}

TEST(Suite, InvalidUtf8AndBrokenJsonNameThePlace) {
  EXPECT_THAT(error_of_json("For tests.", "\xff"), HasSubstr("UTF-8"));
  EXPECT_THAT(error_of_json("\"version\": 3,", "\"version\": 3"), HasSubstr("suite.json:1:"));
}

TEST(Suite, AnUnknownSuiteSuggestsTheNearest) {
  const TemporaryFolder folder;
  fs::create_directories(folder.path() / "sums");
  ASSERT_TRUE(write_file_atomic(folder.path() / "sums/suite.json", kSuiteJson));
  ASSERT_TRUE(write_file_atomic(folder.path() / "sums/cases.csv", kCasesCsv));
  const std::vector<std::string> typo = {"sum"}, all = {"all"}, path = {folder.path() / "sums"};
  const auto unknown = find_suites(typo, folder.path());
  ASSERT_FALSE(unknown);
  EXPECT_THAT(unknown.error().message, HasSubstr("Did you mean 'sums'?"));
  EXPECT_EQ(find_suites(all, folder.path())->suites.size(), 1u);
  EXPECT_EQ(find_suites(path, "/nowhere")->suites.front().name, "sums");
  const std::vector<std::string> twice = {"sums", "all"};
  EXPECT_THAT(find_suites(twice, folder.path()).error().message, HasSubstr("twice"));
  const std::vector<std::string> no_suite = {(folder.path() / "empty").string()};
  EXPECT_THAT(find_suites(no_suite, folder.path()).error().message,
              AllOf(HasSubstr("empty: no suite.json there"), HasSubstr("by name: sums")));
}

TEST(Suite, EveryBundledSuiteIsValid) {
  const std::vector<std::string> all = {"all"};
  const auto found = find_suites(all, fs::path(ASSAY_SOURCE_DIR) / "suites");
  ASSERT_TRUE(found) << found.error().message;
  std::set<std::string> names;
  for (const Suite& suite : found->suites) {
    names.insert(suite.name);
    for (const Profile profile : suite.profiles) {
      const auto adds = [&](const auto& part) { return part.profile == profile; };
      EXPECT_TRUE(std::any_of(suite.cases.begin(), suite.cases.end(), adds) ||
                  std::any_of(suite.arms.begin(), suite.arms.end(), adds))
          << suite.name << " adds nothing for " << name_of(profile);
    }
  }
  for (const char* name : {"arithmetic", "facts", "language", "needle", "thinking"})
    EXPECT_TRUE(names.contains(name)) << name;
  EXPECT_EQ(found->measures.size(), 2u);
  ASSERT_EQ(found->skipped.size(), 1u);
  EXPECT_EQ(found->skipped[0].name, "mgsm");
  EXPECT_THAT(found->skipped[0].reason, HasSubstr("--data"));
}

TEST(Suite, AnArmMayRepeatCloseByForceAndAskSomeKindsOnly) {
  const std::string json =
      with(kSuiteJson, "\"max_tokens\": 128}",
           "\"max_tokens\": 128},\n {\"name\": \"tight\", \"enable_thinking\": true, "
           "\"max_tokens\": 256, "
           "\"max_thinking_tokens\": 24, \"force_close\": true, \"repeats\": 3, \"system\": \"Be "
           "brief.\", "
           "\"kinds\": [\"mul\"], \"profile\": \"full\", \"sampling\": {\"temperature\": 0.6}}");
  const auto suite = parse_suite(json, "suite.json", kCasesCsv, "cases.csv");
  ASSERT_TRUE(suite) << suite.error().message;
  const Arm& arm = suite->arms.back();
  EXPECT_TRUE(arm.force_close);
  EXPECT_EQ(arm.repeats, 3);
  EXPECT_EQ(arm.system, "Be brief.");
  EXPECT_EQ(arm.profile, Profile::kFull);
  EXPECT_EQ(arm.sampling->temperature, 0.6);
  EXPECT_FALSE(arm.asks(suite->cases[0]));
  EXPECT_TRUE(arm.asks(suite->cases[3]));

  const auto error = [&](const char* from, const char* to) {
    const auto bad = parse_suite(with(json, from, to), "suite.json", kCasesCsv, "cases.csv");
    return bad ? std::string("no error") : bad.error().message;
  };
  EXPECT_THAT(error("\"max_thinking_tokens\": 24, ", ""),
              AllOf(HasSubstr("arms[2]"), HasSubstr("force_close"), HasSubstr("below max_tokens")));
  EXPECT_THAT(error("[\"mul\"]", "[\"mull\"]"), AllOf(HasSubstr("'mull'"), HasSubstr("'mul'")));
  EXPECT_THAT(error("\"repeats\": 3", "\"repeats\": 0"), HasSubstr("repeats"));
  EXPECT_THAT(error("\"profile\": \"full\", \"samp", "\"profile\": \"ful\", \"samp"),
              HasSubstr("'full'"));
}

TEST(Suite, TheCasesFileMustLieInTheSuitesFolder) {
  const TemporaryFolder folder;
  ASSERT_TRUE(write_file_atomic(folder.path() / "suite.json",
                                with(kSuiteJson, "cases.csv", "../../etc/passwd")));
  const auto suite = load_suite(folder.path());
  ASSERT_FALSE(suite);
  EXPECT_THAT(suite.error().message, HasSubstr("in the suite's folder"));
}

}  // namespace
}  // namespace assay::harness
