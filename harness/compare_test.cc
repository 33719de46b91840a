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
  // Four rows (all and English, accuracy and closed): 4 · 2 · 2⁻ᵏ < 0.01 first at k = 10.
  EXPECT_THAT(c.rows, SizeIs(4));
  EXPECT_EQ(all.detectable, 10);
}

TEST(Compare, ASmallDropIsChanceAndALargeOneIsARegression) {
  const auto base = night(100, {});
  const Comparison chance = compare(base, night(100, first(6)));
  EXPECT_THAT(chance.regressions, IsEmpty());
  EXPECT_THAT(chance.flips, SizeIs(6));
  EXPECT_EQ(row(chance, "", "accuracy").detectable, 4) << "six of ten are there already";
  EXPECT_DOUBLE_EQ(row(chance, "", "accuracy").p, 2.0 / 64);

  const Comparison drop = compare(base, night(100, first(10)));
  EXPECT_THAT(drop.regressions, SizeIs(2)) << "all, and English";
  EXPECT_THAT(drop.regressions[0], HasSubstr("accuracy fell from 100 to 90 of 100"));
  EXPECT_TRUE(row(drop, "", "accuracy").regressed);
  EXPECT_FALSE(row(drop, "", "closed").regressed);
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
}

// The same sum in three languages that fails in all three is one observation, not three.
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
  EXPECT_THAT(v.summary, HasSubstr("10 more regressed in one arm would have been a regression"));
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
  for (const PairedRow& row : c.rows) EXPECT_EQ(row.metric, "accuracy");
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
