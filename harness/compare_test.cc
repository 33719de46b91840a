#include "harness/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "harness/test_support.h"
#include "harness/verdict.h"

namespace assay::harness {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// n samples, each a cluster of its own; those whose number is in `wrong` are wrong.
std::vector<Sample> night(int n, const std::set<int>& wrong, const std::string& language = "en") {
  std::vector<Sample> out;
  for (int i = 0; i < n; ++i) {
    const std::string id = fmt::format("{}-{}", language, i);
    out.push_back(made_sample(id, id, language,
                              wrong.contains(i) ? Correctness::kWrong : Correctness::kCorrect,
                              "thinking"));
    out.back().n_thinking_tokens = 5;
  }
  return out;
}

std::set<int> first(int n) {
  std::set<int> out;
  for (int i = 0; i < n; ++i) out.insert(i);
  return out;
}

const PairedRow& row(const Comparison& c, const std::string& language, const std::string& metric) {
  for (const PairedRow& r : c.rows)
    if (r.language == language && r.metric == metric) return r;
  throw std::runtime_error("no row");
}

TEST(Compare, EqualRunsHaveNoFlipsAndSayWhatTheyCouldHaveSeen) {
  const auto base = night(100, {3, 4});
  const Comparison c = compare(base, base);
  EXPECT_THAT(c.flips, IsEmpty());
  EXPECT_THAT(c.regressions, IsEmpty());
  EXPECT_EQ(c.n_pairs, 100);
  EXPECT_EQ(c.n_same_tokens, 100);
  EXPECT_EQ(c.n_both_wrong, 2);
  const PairedRow& all = row(c, "", "accuracy");
  EXPECT_EQ(all.p, 1);
  EXPECT_EQ(all.difference.estimate, 0);
  EXPECT_LT(all.difference.lo, 0);
  // Eight rows (all and English; accuracy, closed, stopped, no loop) that the same samples may be
  // in: 8 · 2 · 2⁻ᵏ < 0.01 first at k = 11.
  EXPECT_THAT(c.rows, SizeIs(8));
  EXPECT_EQ(all.detectable, 11);
  EXPECT_EQ(all.detectable_points(), 11);
  EXPECT_EQ(all.verdict, RowVerdict::kPass);
}

TEST(Compare, ASmallDropIsChanceAndALargeOneIsARegression) {
  const auto base = night(100, {});
  const Comparison chance = compare(base, night(100, first(6)));
  EXPECT_THAT(chance.regressions, IsEmpty());
  EXPECT_THAT(chance.flips, SizeIs(6));
  EXPECT_EQ(row(chance, "", "accuracy").detectable, 5) << "six of eleven are there already";
  EXPECT_EQ(row(chance, "", "accuracy").detectable_points(), 11);
  EXPECT_DOUBLE_EQ(row(chance, "", "accuracy").p, 2.0 / 64);
  EXPECT_EQ(row(chance, "", "accuracy").verdict, RowVerdict::kWarn) << "as large as the floor";

  const Comparison drop = compare(base, night(100, first(10)));
  EXPECT_THAT(drop.regressions, SizeIs(2)) << "all, and English";
  EXPECT_THAT(drop.regressions[0], HasSubstr("accuracy fell from 100 to 90 of 100"));
  // Of eight rows only two can reach a small p at all, as nothing else changed: 2 · 2 · 2⁻¹⁰.
  EXPECT_DOUBLE_EQ(row(drop, "", "accuracy").p_holm, 4.0 / 1024);
  EXPECT_EQ(row(drop, "", "accuracy").verdict, RowVerdict::kRegression);
  EXPECT_EQ(row(drop, "", "closed").verdict, RowVerdict::kPass);
  EXPECT_LT(row(drop, "", "accuracy").difference.hi, 0);
}

TEST(Compare, GettingBetterIsNoRegression) {
  const Comparison c = compare(night(100, first(30)), night(100, {}));
  EXPECT_LT(row(c, "", "accuracy").p, 1e-6);
  EXPECT_THAT(c.regressions, IsEmpty());
  EXPECT_THAT(c.flips, SizeIs(30));
  EXPECT_FALSE(c.flips[0].regressed);
}

TEST(Compare, ADropBelowTheFloorIsNoRegressionHoweverSure) {
  // 12 of 1000 regressed and none fixed: p is tiny, 1.2 points are below the floor of 2.
  const Comparison c = compare(night(1000, {}), night(1000, first(12)));
  EXPECT_LT(row(c, "", "accuracy").p_holm, 0.01);
  EXPECT_THAT(c.regressions, IsEmpty());
  EXPECT_EQ(row(c, "", "accuracy").verdict, RowVerdict::kWarn) << "sure, though small";
  // The suite may ask for more, or for less.
  CompareRules strict;
  strict.floors["sums"] = 0.01;
  EXPECT_THAT(compare(night(1000, {}), night(1000, first(12)), strict).regressions, SizeIs(2));
}

// A model that lost its Japanese alone is called, though two thirds of the samples hold.
TEST(Compare, ADropInOneLanguageIsCalled) {
  std::vector<Sample> base, now;
  for (const char* language : {"ja", "en", "zh"})
    for (const Sample& s : night(150, {}, language)) base.push_back(s);
  for (const char* language : {"ja", "en", "zh"})
    for (const Sample& s :
         night(150, language == std::string("ja") ? first(9) : first(0), language))
      now.push_back(s);
  const Comparison c = compare(base, now);
  EXPECT_EQ(row(c, "ja", "accuracy").verdict, RowVerdict::kRegression);
  EXPECT_EQ(row(c, "en", "accuracy").verdict, RowVerdict::kPass);
  EXPECT_THAT(c.regressions, testing::Contains(HasSubstr("sums/thinking/ja: accuracy fell")));
}

TEST(Compare, WhatIsDrawnIsAtMostSuspected) {
  CompareRules rules;
  rules.sampled_arms.insert("sums/thinking");
  const Comparison c = compare(night(100, {}), night(100, first(30)), rules);
  EXPECT_EQ(row(c, "", "accuracy").verdict, RowVerdict::kSuspected);
  EXPECT_THAT(c.regressions, IsEmpty());
  EXPECT_THAT(c.suspicions, SizeIs(2));
  EXPECT_TRUE(c.needs_confirmation());
  CompareRules server;
  server.reproducible = false;
  EXPECT_TRUE(compare(night(100, {}), night(100, first(30)), server).needs_confirmation());
  EXPECT_FALSE(compare(night(100, {}), night(100, first(5)), rules).needs_confirmation());
  // p < 0.01 is enough to be suspected: nothing is adjusted before the second stage.
  EXPECT_EQ(row(c, "", "accuracy").detectable, 1);
  EXPECT_EQ(row(compare(night(100, {}), night(100, {}), rules), "", "accuracy").detectable, 8);
}

TEST(Compare, NaNIsARegressionAndAnErrorIsNoPair) {
  const auto base = night(100, {});
  auto now = base;
  now[3].outcome.termination = now[4].outcome.termination = Termination::kError;
  now[3].finish = "non_finite";
  const Comparison c = compare(base, now);
  EXPECT_EQ(c.n_non_finite, 1);
  EXPECT_EQ(c.n_not_run, 1);
  ASSERT_THAT(c.regressions, SizeIs(1));
  EXPECT_THAT(c.regressions[0], HasSubstr("1 replies met NaN or Inf"));
  EXPECT_EQ(compare(now, now).n_non_finite, 0) << "the base was no better";
}

TEST(Compare, SmallSuitesShareAFamily) {
  auto base = night(100, {});
  for (const char* suite : {"one", "two"})
    for (Sample& s : std::vector<Sample>(night(49, {}))) {
      s.suite = suite;
      base.push_back(s);
    }
  const Comparison c = compare(base, base);
  for (const PairedRow& r : c.rows)
    EXPECT_EQ(r.family, r.suite == "sums" ? "sums" : std::string(kSmallSuites));
}

TEST(Compare, MuchLongerThinkingIsARegressionAndMuchShorterAWarning) {
  const auto base = night(60, {});
  const auto thinking = [&](double factor) {
    auto out = night(60, {});
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i].n_thinking_tokens = static_cast<int>(factor * (100 + 7.0 * static_cast<double>(i)));
    return out;
  };
  const Comparison longer = compare(thinking(1), thinking(1.3));
  ASSERT_THAT(longer.lengths, SizeIs(2)) << "all, and English";
  const JudgedLength& all = longer.lengths[0];
  EXPECT_NEAR(all.ratio, 1.3, 0.01);
  ASSERT_TRUE(all.ratio95);
  EXPECT_LT(all.ratio95->lo, all.ratio);
  EXPECT_EQ(all.verdict, RowVerdict::kRegression);
  EXPECT_THAT(longer.regressions, testing::Contains(HasSubstr("1.30 times as long")));

  const Comparison little = compare(thinking(1), thinking(1.06));
  EXPECT_LT(little.lengths[0].p, kAlpha);
  EXPECT_EQ(little.lengths[0].verdict, RowVerdict::kPass) << "sure, and too little to matter";

  const Comparison shorter = compare(thinking(1), thinking(0.6));
  EXPECT_EQ(shorter.lengths[0].verdict, RowVerdict::kWarn);
  EXPECT_THAT(shorter.regressions, IsEmpty());

  auto open = thinking(5);
  for (std::size_t i = 0; i < 50; ++i) open[i].outcome.termination = Termination::kNoClose;
  const Comparison few = compare(thinking(1), open);
  EXPECT_EQ(few.lengths[0].n, 10);
  EXPECT_EQ(few.lengths[0].n_left_out, 50) << "what a limit cut has no length";
}

TEST(Compare, EqualLengthsSayNothing) {
  const Comparison c = compare(night(60, {}), night(60, {}));
  EXPECT_EQ(c.lengths[0].ratio, 1);
  EXPECT_EQ(c.lengths[0].p, 1);
  EXPECT_FALSE(c.lengths[0].ratio95);
}

TEST(Compare, LoopsAndLimitsHaveRowsOfTheirOwn) {
  const auto base = night(100, {});
  auto now = base;
  for (std::size_t i = 0; i < 15; ++i) {
    now[i].outcome.degeneration = Degeneration::kLoopExact;
    if (i < 12) now[i].finish = "length";
  }
  const Comparison c = compare(base, now);
  EXPECT_EQ(row(c, "", "no_loop").n_regressed, 15);
  EXPECT_EQ(row(c, "", "no_loop").verdict, RowVerdict::kRegression);
  EXPECT_EQ(row(c, "", "stopped").n_regressed, 12);
  EXPECT_EQ(row(c, "", "stopped").verdict, RowVerdict::kRegression);
  EXPECT_EQ(row(c, "", "closed").verdict, RowVerdict::kPass);
}

// The same sum in three languages that fails in all three is one observation, not three.
// Few clusters: the exact test cannot be sure, and yet a half is gone.
TEST(Compare, ALargeLossThatTheIntervalExcludesIsAWarning) {
  const Comparison c = compare(night(12, {}), night(12, first(5)));
  const PairedRow& all = row(c, "", "accuracy");
  EXPECT_GT(all.p, 0.05);
  EXPECT_LT(all.difference.hi, 0);
  EXPECT_EQ(all.verdict, RowVerdict::kWarn);
}

TEST(Compare, ClustersAreNotCountedTwice) {
  std::vector<Sample> base, now;
  for (int i = 0; i < 40; ++i)
    for (const char* language : {"ja", "en", "zh"}) {
      const std::string id = fmt::format("{}-{}", language, i), cluster = fmt::format("sum-{}", i);
      base.push_back(made_sample(id, cluster, language, Correctness::kCorrect, "thinking"));
      now.push_back(made_sample(id, cluster, language,
                                i < 4 ? Correctness::kWrong : Correctness::kCorrect, "thinking"));
    }
  const Comparison c = compare(base, now);
  const PairedRow& all = row(c, "", "accuracy");
  EXPECT_EQ(all.n_regressed, 12);
  EXPECT_EQ(all.n_clusters, 40);
  EXPECT_DOUBLE_EQ(all.p, 2.0 / 16) << "four clusters, not twelve samples (2/4096)";
  EXPECT_THAT(c.regressions, IsEmpty());
}

TEST(Compare, FlipsSayWhereTheRepliesPart) {
  auto base = night(3, {}), now = night(3, {1});
  base[1].ids = {7, 8, 9, 10};
  now[1].ids = {7, 8, 3};
  now[1].answer = "wrong";
  const Comparison c = compare(base, now);
  ASSERT_THAT(c.flips, SizeIs(1));
  EXPECT_TRUE(c.flips[0].regressed);
  EXPECT_EQ(c.flips[0].first_difference, 2);
  EXPECT_EQ(c.flips[0].candidate_answer, "wrong");
  EXPECT_EQ(c.flips[0].candidate_class, "wrong");
}

TEST(Compare, FlipsShowWhatBothSidesThoughtWhereTheyPart) {
  auto base = night(3, {}), now = night(3, {1});
  base[1].ids = {7, 8, 9};
  now[1].ids = {7, 8};
  base[1].steps.resize(3);
  base[1].steps[2].top[0] = {9, -0.25F};
  base[1].steps[2].top[1] = {4, -1.5F};
  const Comparison c = compare(base, now);
  ASSERT_THAT(c.flips, SizeIs(1));
  EXPECT_EQ(c.flips[0].base_token.id, 9);
  ASSERT_THAT(c.flips[0].base_token.top, SizeIs(2));
  EXPECT_EQ(c.flips[0].base_token.top[1].id, 4);
  EXPECT_EQ(c.flips[0].candidate_token.id, -1) << "it had ended";
  const Json json = to_json(c, [](int id) { return fmt::format("<{}>", id); }).at("flips").at(0);
  EXPECT_EQ(json.at("base_token").at("text"), "<9>");
  EXPECT_EQ(json.at("base_token").at("top").at(1).at("text"), "<4>");
  EXPECT_TRUE(json.at("candidate_token").is_null());
}

TEST(Compare, UngatedSamplesFlipButCountInNoRow) {
  const auto base = night(100, {});
  auto now = night(100, first(20));
  for (Sample& s : now) s.gated = false;
  const Comparison c = compare(base, now);
  EXPECT_EQ(c.n_pairs, 100);
  EXPECT_THAT(c.flips, SizeIs(20));
  EXPECT_THAT(c.rows, IsEmpty());
  EXPECT_THAT(c.regressions, IsEmpty());
}

TEST(Compare, SamplesThatDidNotRunAreNoPairs) {
  auto base = night(10, {}), now = night(10, {});
  now[4].outcome.termination = Termination::kError;
  EXPECT_EQ(compare(base, now).n_pairs, 9);
}

TEST(NotComparable, NamesWhatDiffers) {
  const auto base = night(4, {});
  const Json run = {{"status", "complete"}, {"plan", {{"seed", 0}, {"profile", "quick"}}}};
  EXPECT_EQ(not_comparable(run, run, base, base), "");
  Json cold = run, warm = run;
  cold["plan"]["suites"] = {
      {{"name", "s"}, {"arms", {{{"name", "thinking"}, {"long", 1}, {"temperature", 0}}}}}};
  warm["plan"]["suites"] = cold["plan"]["suites"];
  warm["plan"]["suites"][0]["arms"][0]["temperature"] = 0.6;
  EXPECT_THAT(not_comparable(cold, warm, base, base),
              HasSubstr("arms/thinking/temperature is 0, here 0.6"));
  Json few = cold, alone = cold;
  few["plan"]["suites"][0]["n_items"] = 4;
  EXPECT_THAT(
      not_comparable(few, alone, base, base),
      AllOf(HasSubstr("the baseline was asked 4 of its samples, this run was asked it alone"),
            HasSubstr("the suites and the --limit of the other")));
  alone["plan"]["suites"][0]["n_items"] = 20;
  EXPECT_THAT(not_comparable(few, alone, base, base), HasSubstr("this run was asked 20 of its"));
  Json other = run;
  other["plan"]["seed"] = 1;
  EXPECT_THAT(not_comparable(other, run, base, base), HasSubstr("\"seed\" (1 against 0)"));
  Json running = run;
  running["status"] = "running";
  EXPECT_THAT(not_comparable(running, run, base, base), HasSubstr("--resume"));
  auto prompts = base;
  prompts[2].prompt_ids = {1, 2};
  EXPECT_THAT(not_comparable(run, run, prompts, base), HasSubstr("en-2: the prompt's token ids"));
  EXPECT_THAT(not_comparable(run, run, std::span(base).first(3), base), HasSubstr("no sample"));
}

TEST(Verdict, ABaselineCanOnlyMakeItWorse) {
  const auto base = night(100, {});
  Verdict pass;
  pass.state = VerdictState::kPass;
  Verdict v = pass;
  add_comparison(v, compare(base, base), "");
  EXPECT_EQ(v.state, VerdictState::kPass);
  EXPECT_THAT(v.summary, HasSubstr("a net drop of 11.0 points of accuracy in sums/thinking would "
                                   "have been called"));
  v = pass;
  add_comparison(v, compare(base, night(100, first(20))), "");
  EXPECT_EQ(v.state, VerdictState::kRegression);
  EXPECT_THAT(v.problems, SizeIs(2));
  v = pass;
  const auto few = night(3, {});
  add_comparison(v, compare(few, few), "");
  EXPECT_EQ(v.state, VerdictState::kInvalid) << "where no drop could show, nothing is concluded";
  EXPECT_THAT(v.summary, HasSubstr("no drop could have shown"));
  v = pass;
  add_comparison(v, {}, "the seed differs");
  EXPECT_EQ(v.state, VerdictState::kInvalid);
  v.state = VerdictState::kRegression;
  add_comparison(v, {}, "the seed differs");
  EXPECT_EQ(v.state, VerdictState::kRegression) << "a gate that failed stays failed";
}

TEST(Verdict, WarnsWithoutFailing) {
  Verdict v;
  v.state = VerdictState::kPass;
  add_comparison(v, compare(night(100, {}), night(100, first(6))), "");
  EXPECT_EQ(v.state, VerdictState::kWarn);
  EXPECT_EQ(exit_code_of(v.state), 0);
  EXPECT_THAT(v.problems, IsEmpty());
  EXPECT_THAT(v.warnings, testing::Contains(HasSubstr("accuracy fell from 100 to 94")));
  EXPECT_EQ(to_json(v).at("state"), "warn");
}

TEST(Verdict, ASuspicionIsInconclusiveAndSaysHowToDecide) {
  CompareRules rules;
  rules.sampled_arms.insert("sums/thinking");
  const Comparison c = compare(night(100, {}), night(100, first(30)), rules);
  Verdict v;
  v.state = VerdictState::kPass;
  add_comparison(v, c, "", {}, {"out/a", "out/b"});
  EXPECT_EQ(v.state, VerdictState::kInvalid);
  EXPECT_EQ(exit_code_of(v.state), 3);
  EXPECT_THAT(v.summary, HasSubstr("assay compare out/a out/b --confirm"));
  EXPECT_THAT(v.problems, testing::Contains(HasSubstr("suspected, not confirmed: sums/thinking")));
}

TEST(Verdict, ValidFirstAndWhatIsDecidedStays) {
  const Comparison drop = compare(night(100, {}), night(100, first(30)));
  CompareRules rules;
  rules.sampled_arms.insert("sums/thinking");
  const Comparison open = compare(night(100, {}), night(100, first(30)), rules);
  Verdict v;
  v.state = VerdictState::kInvalid;
  add_comparison(v, drop, "");
  EXPECT_EQ(v.state, VerdictState::kInvalid) << "samples were missing: nothing is concluded";
  v.state = VerdictState::kPass;
  add_finding(v, VerdictState::kRegression, "slower");
  add_comparison(v, open, "");
  EXPECT_EQ(v.state, VerdictState::kRegression);
  v.state = VerdictState::kWarn;
  add_comparison(v, drop, "");
  EXPECT_EQ(v.state, VerdictState::kRegression);
}

TEST(Verdict, TooManyErrorsMakeAComparisonInvalid) {
  const auto base = night(100, {});
  auto now = base;
  for (std::size_t i = 0; i < 2; ++i) now[i].outcome.termination = Termination::kError;
  Verdict v;
  v.state = VerdictState::kPass;
  add_comparison(v, compare(base, now), "");
  EXPECT_EQ(v.state, VerdictState::kInvalid);
  EXPECT_THAT(v.problems, testing::Contains(HasSubstr("2 of 100 pairs could not be compared")));
}

TEST(Compare, AnArmThatClosesByForceIsNotJudgedByClosing) {
  std::vector<Sample> base, candidate;
  for (int i = 0; i < 40; ++i) {
    Sample s =
        made_sample("a" + std::to_string(i), "c" + std::to_string(i), "ja", Correctness::kCorrect);
    s.n_thinking_tokens = 20;
    base.push_back(s);
    s.forced_close = true;  // a little more than the budget
    candidate.push_back(s);
  }
  const Comparison c = compare(base, candidate);
  EXPECT_TRUE(c.regressions.empty());
  for (const PairedRow& row : c.rows) EXPECT_NE(row.metric, "closed");
  EXPECT_THAT(c.lengths, IsEmpty());
}

TEST(Compare, WhatNobodyJudgesIsInNoAccuracyRow) {
  std::vector<Sample> samples = {made_sample("a", "a", "ja", Correctness::kCorrect),
                                 made_sample("b", "b", "ja", Correctness::kNotJudged)};
  samples[1].scoring = Scoring::kNone;
  const Comparison c = compare(samples, samples);
  EXPECT_EQ(c.n_pairs, 2);
  EXPECT_EQ(c.n_both_wrong, 0);
  EXPECT_EQ(c.rows.at(0).n, 1);
}

}  // namespace
}  // namespace assay::harness
