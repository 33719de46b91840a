#include "harness/compare_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/compare_fidelity.h"
#include "harness/compare_speed.h"
#include "harness/confirm.h"
#include "harness/releases_table.h"

namespace assay::harness {
namespace {

using testing::AllOf;
using testing::ContainsRegex;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

Flip flip(int i) {
  Flip f;
  f.key = fmt::format("sums/thinking/case-{}", i);
  f.question = "2 + 3?";
  f.expected = "5";
  f.base_class = "correct";
  f.candidate_class = "wrong";
  f.base_answer = "It is\n5.";
  f.candidate_answer = std::string(200, 'x') + "あ";
  f.first_difference = 3;
  f.base_token = {7, {{7, -0.105}, {8, -2.3}}};
  f.regressed = true;
  return f;
}

TEST(CompareTable, FlipsComeFirstWithWhatBothFoundLikely) {
  Comparison c;
  for (int i = 0; i < 4; ++i) c.flips.push_back(flip(i));
  c.n_pairs = 9;
  c.n_both_wrong = 2;
  const auto text = [](int id) { return fmt::format("t{}", id); };
  const std::string some = render_comparison(to_json(c, text), {.n_flips = 3});
  EXPECT_THAT(some, HasSubstr("4 regressed, 0 fixed, 2 wrong in both, of 9 pairs"));
  EXPECT_THAT(some,
              HasSubstr("part at token 3: \"t7\" (\"t7\" 90.0 %, \"t8\" 10.0 %) against it had "
                        "ended"));
  EXPECT_THAT(some, HasSubstr("It is 5.\n")) << "one line";
  EXPECT_THAT(some, HasSubstr("case-2"));
  EXPECT_THAT(some, Not(HasSubstr("case-3")));
  EXPECT_THAT(some, HasSubstr("1 more: all with assay compare BASE CANDIDATE --flips 0"));
  EXPECT_THAT(
      render_comparison(to_json(c), {.n_flips = 3, .command = "assay compare 'out/a b' out/c"}),
      HasSubstr("all with assay compare 'out/a b' out/c --flips 0\n"));
  EXPECT_THAT(render_comparison(to_json(c), {.n_flips = 0}), HasSubstr("case-3"));
  EXPECT_THAT(render_comparison(to_json(c), {}), HasSubstr("token 3: #7 (#7 90.0 %, #8"));
}

TEST(CompareTable, RowsSayTheirVerdictAndWhatWouldHaveShown) {
  Comparison c;
  PairedRow held, suspect;
  held.suite = suspect.suite = "sums";
  held.arm = suspect.arm = "thinking";
  held.metric = suspect.metric = "accuracy";
  held.n = suspect.n = 200;
  held.n_base = held.n_candidate = 190;
  held.detectable = 9;
  suspect.language = "ja";
  suspect.n_base = 190;
  suspect.n_candidate = 150;
  suspect.n_regressed = 40;
  suspect.verdict = RowVerdict::kSuspected;
  c.rows = {held, suspect};
  JudgedLength length;
  length.suite = "sums";
  length.arm = "thinking";
  length.n = 180;
  length.ratio = 1.25;
  length.ratio95 = Interval{1.25, 1.1, 1.4};
  length.verdict = RowVerdict::kRegression;
  c.lengths = {length};
  const std::string text = render_comparison(to_json(c), {});
  EXPECT_THAT(text, ContainsRegex("sums · thinking +200 +95.0 % +95.0 % .*pass +−4.5"));
  EXPECT_THAT(text, ContainsRegex("sums · thinking · ja +200 .*suspected +–"));
  EXPECT_THAT(text, ContainsRegex("sums · thinking +– .*1.25 .1.10, 1.40. +180 .*regression"));
  EXPECT_THAT(render_comparison(to_json(c), {.colour = true}), HasSubstr("\x1b["));
}

TEST(CompareTable, ALengthThatCouldNotHaveShownHasNotPassed) {
  const auto label = [](int n_clusters, double ratio, std::optional<Interval> interval) {
    Comparison c;
    JudgedLength length;
    length.suite = "sums";
    length.arm = "thinking";
    length.n = length.n_clusters = n_clusters;
    length.ratio = ratio;
    length.ratio95 = interval;
    c.lengths = {length};
    return render_comparison(to_json(c), {});
  };
  EXPECT_THAT(label(2, 1, {}), ContainsRegex("sums · thinking .*cannot tell"));
  EXPECT_THAT(label(2, 1, Interval{1, 1, 1}), HasSubstr("cannot tell")) << "no test of two calls";
  EXPECT_THAT(label(40, 1.02, Interval{1.02, 0.9, 1.31}), HasSubstr("up to × 1.31"));
  EXPECT_THAT(label(40, 1.02, Interval{1.02, 1.0, 1.05}), ContainsRegex("sums · thinking .*pass"));
  EXPECT_THAT(label(40, 1, {}), ContainsRegex("sums · thinking .*pass")) << "all as long";
}

TEST(CompareTable, ManyRowsAreCutToWhatChanged) {
  Comparison c;
  for (int i = 0; i < 30; ++i) {
    PairedRow row;
    row.suite = "sums";
    row.arm = fmt::format("arm{}", i);
    row.language = "ja";
    row.metric = "accuracy";
    row.n = 10;
    row.n_fixed = i == 7;
    c.rows.push_back(row);
  }
  const std::string text = render_comparison(to_json(c), {});
  EXPECT_THAT(text, HasSubstr("arm7"));
  EXPECT_THAT(text, Not(HasSubstr("arm8")));
  EXPECT_THAT(text, HasSubstr("29 more rows, in which nothing worth a line changed: all with "
                              "assay compare BASE CANDIDATE --rows"));
  EXPECT_THAT(render_comparison(to_json(c), {.every_row = true}), HasSubstr("arm8"));
}

TEST(CompareTable, ReadsWhatWasRecordedBeforeThereWereVerdictsPerRow) {
  const Json old =
      Json::parse(R"({"n_pairs": 3, "n_same_tokens": 1, "n_both_wrong": 0, "alpha": 0.01,
    "floor": 0.02, "rows": [{"suite": "s", "arm": "a", "language": "", "metric": "accuracy", "n": 3,
    "n_clusters": 3, "n_base": 3, "n_candidate": 0, "n_regressed": 3, "n_fixed": 0, "difference": -1,
    "lo": -1, "hi": 0, "p": 0.001, "p_holm": 0.001, "detectable": 1, "regressed": true}],
    "flips": [{"key": "s/a/1", "language": "ja", "kind": "k", "question": "q", "expected": "1",
    "base_class": "correct", "candidate_class": "wrong", "base_answer": "1", "candidate_answer": "2",
    "first_difference": 0, "regressed": true}]})");
  const std::string text = render_comparison(old, {});
  EXPECT_THAT(text, HasSubstr("regression"));
  EXPECT_THAT(text, HasSubstr("s/a/1"));
}

TEST(CompareTable, TheSecondStageAndMeasuresFollow) {
  Json comparison = to_json(Comparison{});
  Confirmation second;
  second.state = ConfirmationState::kConfirmed;
  ConfirmedRow row;
  row.suite = "sums";
  row.arm = "thinking";
  row.metric = "accuracy";
  row.n_cases = 40;
  row.n = 160;
  row.n_base = 150;
  row.n_candidate = 100;
  row.confirmed = true;
  second.rows = {row};
  comparison["confirmation"] = to_json(second);
  Fidelity fidelity;
  FidelityRow all;
  all.language = "all";
  all.n_texts = 12;
  all.candidate = Estimate{.value = 0.25, .error = 0.01};
  fidelity.rows = {all};
  fidelity.reason = "the baseline has none";
  comparison["fidelity"] = to_json(fidelity);
  const std::string text = render_comparison(comparison, {});
  EXPECT_THAT(text, ContainsRegex("sums · thinking · accuracy +40 +160 +150 +100 .* confirmed"));
  EXPECT_THAT(text, ContainsRegex("all +12 +– +0.2500 ± 0.0100 +– *\n"))
      << "no column of a judgement that there is not";
  EXPECT_THAT(text, HasSubstr("not judged against each other: the baseline has none"));
  SpeedRow slow;
  slow.name = "decode";
  slow.unit = "tokens/s";
  Speed speed;
  speed.rows = {slow};
  speed.alone = {"gone"};
  const std::string shown = render_speed(to_json(speed), "in turns", false);
  EXPECT_THAT(shown, ContainsRegex("speed, in turns +repetitions"));
  EXPECT_THAT(shown, ContainsRegex("decode .*too few"));
  EXPECT_THAT(shown, HasSubstr("too few: so few repetitions"));
  EXPECT_THAT(shown, HasSubstr("gone stands in one of the files"));
}

TEST(CompareTable, ASpeedOfAnotherSizeIsARatio) {
  const auto shown = [](const char* unit, double slower) {
    SpeedRow row;
    row.name = "gemv";
    row.unit = unit;
    row.conclusive = true;
    row.slower = {slower, slower - 0.25, slower + 0.5};
    Speed speed;
    speed.rows = {row};
    return render_speed(to_json(speed), "from two files", false);
  };
  EXPECT_THAT(shown("ns", 0.5), HasSubstr("+50.0 % [+25.0, +100.0]"));
  EXPECT_THAT(shown("ns", 11.3), AllOf(HasSubstr("× 12.3 [12.1, 12.8]"), Not(HasSubstr("113"))));
  EXPECT_THAT(shown("ns", -0.9), HasSubstr("−90.0 %")) << "of a time no more can be gained";
  EXPECT_THAT(shown("tokens/s", -2.0 / 3), HasSubstr("faster × 3.00 [1.20, 12.0]"));
  EXPECT_THAT(shown("ns", 0), AllOf(HasSubstr("speed, from two files"), Not(HasSubstr("turns")),
                                    Not(HasSubstr("too few"))));
}

Json run_with(double accuracy, bool thinks, const Json& measurements) {
  const Json rate = {{"n", 50}, {"estimate", accuracy}, {"lo", accuracy - 0.1}, {"hi", accuracy}};
  Json survival = Json::array();
  if (thinks) survival.push_back(1);
  return {{"metrics",
           {{{"suite", "sums"},
             {"arm", "thinking"},
             {"language", ""},
             {"kind", ""},
             {"gated", true},
             {"accuracy", rate},
             {"closed", rate},
             {"thinking_tokens", {{"p50", 33}, {"survival", survival}}}}}},
          {"measurements", measurements},
          {"provenance", {{"target", {{"active_bytes", 12500000}}}}}};
}

TEST(CompareTable, ARowThatLostAsMuchAsTheFloorDoesNotHold) {
  Comparison c;
  PairedRow row;
  row.suite = "sums", row.arm = "direct", row.metric = "accuracy";
  row.n = 30, row.n_clusters = 11, row.n_base = 30, row.n_candidate = 17, row.n_regressed = 13;
  row.detectable = 7;
  c.rows = {row};
  EXPECT_THAT(render_comparison(to_json(c), {}), HasSubstr("cannot tell"));
  c.rows[0].n_candidate = 30, c.rows[0].n_regressed = 0;
  EXPECT_THAT(render_comparison(to_json(c), {}), Not(HasSubstr("cannot tell")));
  c.rows[0].detectable = 31;  // not even all of them would have shown
  EXPECT_THAT(render_comparison(to_json(c), {}), HasSubstr("cannot tell"));
}

TEST(CompareTable, SaysBelowItsRowsWhatTheyAreJudgedBy) {
  Comparison c;
  PairedRow row;
  row.suite = "sums", row.arm = "direct", row.metric = "accuracy";
  row.n = row.n_base = row.n_candidate = 30;
  row.detectable = 7;
  c.rows = {row, row};
  EXPECT_THAT(render_comparison(to_json(c), {}),
              AllOf(HasSubstr("at least 2 % of the row's samples lost, net (the floor)\n"),
                    Not(HasSubstr("cannot tell"))));
  c.rows[1].suite = "facts";
  c.rows[1].floor = 0.05;
  c.rows[1].detectable = 31;
  EXPECT_THAT(render_comparison(to_json(c), {}),
              AllOf(HasSubstr("(the floor, facts 5 %)\n"),
                    HasSubstr("  cannot tell: too few samples for any drop to show\n")));
  c.rows[0].n_candidate = 20;
  EXPECT_THAT(render_comparison(to_json(c), {}), HasSubstr("  cannot tell: as much was lost"));
  c.rows.clear();
  EXPECT_THAT(render_comparison(to_json(c), {}), Not(HasSubstr("the floor")));
}

TEST(Releases, AreNamedByWhatTellsTheirFoldersApart) {
  EXPECT_THAT(names_apart(std::vector<std::string>{"out/a", "out/b/"}), ElementsAre("a", "b"));
  EXPECT_THAT(names_apart(std::vector<std::string>{"n/1/m/run", "n/1/vq/run", "n/1/m/run"}),
              ElementsAre("m/run", "vq/run", "m/run (2)"));
  EXPECT_THAT(names_apart(std::vector<std::string>{"/x/run", "run", "y/run"}),
              ElementsAre("x/run", "run", "y/run"));
}

TEST(Releases, StandSideBySide) {
  const Json speed = {
      {{"measure", "throughput"},
       {"state", "measured"},
       {"result",
        {{"decode", {{{"depth", 0}, {"batch", 4}, {"tokens_per_s", {{"median", 812.25}}}}}}}}}};
  const Json a = run_with(0.9, true, Json::array()), b = run_with(0.8, false, speed);
  const Release releases[] = {{"v1", &a}, {"v2", &b}};
  const std::string text = render_releases(releases, false);
  EXPECT_THAT(text, ContainsRegex("v1 +v2"));
  EXPECT_THAT(text, ContainsRegex("sums · thinking +90.0 % .80.0, 90.0. +80.0 % .70.0, 80.0."));
  EXPECT_THAT(text, HasSubstr("thinking closes"));
  EXPECT_THAT(text, ContainsRegex("decode tokens/s, depth 0, batch 4 +– +812.2"));
  EXPECT_THAT(text, ContainsRegex("weight MB a token reads +12.5 +12.5"));
  EXPECT_THAT(text, Not(HasSubstr("KLD"))) << "a line that no run fills is left out";
  // A language in which all are equal is left out, one in which they differ is not.
  Json c = a, d = a;
  for (Json* run : {&c, &d}) {
    (*run)["metrics"].push_back((*run)["metrics"][0]);
    (*run)["metrics"][1]["language"] = "ja";
  }
  d["metrics"][1]["accuracy"]["estimate"] = 0.5;
  const Release two[] = {{"v1", &c}, {"v2", &d}};
  EXPECT_THAT(render_releases(two, false), ContainsRegex("sums · thinking · ja +90.0 %.* 50.0 %"));
  EXPECT_THAT(render_releases(two, false), HasSubstr("1 rows of single languages"))
      << "of how thinking closes";
  const Json json = releases_json(releases);
  EXPECT_EQ(json["runs"], Json({"v1", "v2"}));
  EXPECT_EQ(json["rows"][0]["figure"], "accuracy");
}

}  // namespace
}  // namespace assay::harness
