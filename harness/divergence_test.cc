#include "harness/divergence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "base/file.h"
#include "base/hash.h"
#include "base/rng.h"
#include "harness/divergence_base.h"

namespace assay::harness {
namespace {

using ::testing::HasSubstr;

std::vector<float> random_logits(int n, std::uint64_t seed) {
  std::vector<float> out;
  for (int i = 0; i < n; ++i)
    out.push_back(static_cast<float>(8 * uniform_at(seed, 0, static_cast<std::uint64_t>(i))));
  return out;
}

// p = (1/2, 1/4, 1/4) and q = (1/4, 1/4, 1/2): KL = 1/2 log 2 + 0 + 1/4 log 1/2 = 1/4 log 2.
const std::vector<float> kP = {std::log(2.0f), 0, 0}, kQ = {0, 0, std::log(2.0f)};

TEST(Diverge, ByHand) {
  const PositionDivergence d = diverge(kP, kQ, 0);
  EXPECT_NEAR(d.kld, 0.25 * std::log(2), 1e-6);
  EXPECT_NEAR(d.delta_p, -0.25, 1e-6);
  EXPECT_NEAR(d.nll_base, std::log(2), 1e-6);
  EXPECT_NEAR(d.nll_candidate, std::log(4), 1e-6);
  EXPECT_FALSE(d.same_top1);
  EXPECT_NEAR(d.kld_top, d.kld, 1e-6) << "all three tokens are among the top";
  EXPECT_EQ(diverge(kP, kP, 1).kld, 0);
  EXPECT_TRUE(diverge(kP, kP, 1).same_top1);
}

TEST(Diverge, ACapturedBaseNeverSeesMoreAndAgreesWithTheDefinition) {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const auto p = random_logits(200, seed), q = random_logits(200, seed + 1000);
    double zp = 0, zq = 0, kld = 0;
    for (std::size_t i = 0; i < p.size(); ++i)
      zp += std::exp(static_cast<double>(p[i])), zq += std::exp(static_cast<double>(q[i]));
    for (std::size_t i = 0; i < p.size(); ++i)
      kld += std::exp(static_cast<double>(p[i])) / zp *
             (static_cast<double>(p[i]) - std::log(zp) - static_cast<double>(q[i]) + std::log(zq));
    const PositionDivergence exact = diverge(p, q, 7);
    EXPECT_NEAR(exact.kld, kld, 1e-9 + 1e-6 * kld);
    EXPECT_LE(exact.kld_top, exact.kld + 1e-9);
    EXPECT_GT(exact.kld_top, 0);
    const PositionDivergence captured = diverge(summarise_base(p, 7), q);
    EXPECT_EQ(captured.kld, captured.kld_top);
    EXPECT_NEAR(captured.kld_top, exact.kld_top, 1e-9);
    EXPECT_NEAR(captured.delta_p, exact.delta_p, 1e-6);
    EXPECT_TRUE(captured.is_lower_bound);
    EXPECT_FALSE(exact.is_lower_bound);
    EXPECT_EQ(exact.kld_at_most, exact.kld);
    EXPECT_GE(captured.kld_at_most, exact.kld - 1e-9);
  }
}

// One token of the tail has all of it, and the candidate thinks least of that one: then the most
// that a captured base can have missed is what it has missed.
TEST(Diverge, TheMostThatACapturedBaseCanMissIsReached) {
  constexpr int kTop = BasePosition::kTop;
  std::vector<float> p(kTop + 3, 0.0f), q(kTop + 3, 0.0f);
  p[kTop] = -1;                     // the tail's mass …
  p[kTop + 1] = p[kTop + 2] = -40;  // … and none of it here
  q[kTop] = -8, q[kTop + 1] = q[kTop + 2] = 2;
  const double exact = diverge(p, q, 0).kld;
  const PositionDivergence captured = diverge(summarise_base(p, 0), q);
  EXPECT_NEAR(captured.tail, std::exp(-1) / (kTop + std::exp(-1)), 1e-6);
  EXPECT_LT(captured.kld, exact - 0.1);
  EXPECT_NEAR(captured.kld_at_most, exact, 1e-6);
}

TEST(Diverge, ABaseWithoutATailMissesNothing) {
  const PositionDivergence d = diverge(summarise_base(kP, 0), kQ);
  EXPECT_EQ(d.tail, 0);
  EXPECT_EQ(d.kld_at_most, d.kld);
}

TEST(SummariseBase, TopTokensAndTheRest) {
  const auto logits = random_logits(500, 3);
  const BasePosition b = summarise_base(logits, 250);
  ASSERT_EQ(b.top.size(), static_cast<std::size_t>(BasePosition::kTop));
  double mass = static_cast<double>(b.tail);
  for (std::size_t i = 0; i < b.top.size(); ++i) {
    mass += std::exp(static_cast<double>(b.top[i].second));
    if (i > 0) {
      EXPECT_GE(b.top[i - 1].second, b.top[i].second);
    }
  }
  EXPECT_NEAR(mass, 1, 1e-5);
}

std::vector<ScoredPosition> positions(int n_texts, int per_text, double spread) {
  std::vector<ScoredPosition> out;
  for (int t = 0; t < n_texts; ++t) {
    const double of_text = spread * uniform_at(1, 0, static_cast<std::uint64_t>(t));
    for (int i = 0; i < per_text; ++i) {
      PositionDivergence d;
      d.kld = d.kld_top = 0.1 + of_text;
      d.nll_base = 1, d.nll_candidate = 1.2;
      d.same_top1 = i % 4 != 0;
      d.delta_p = i % 2 == 0 ? 0.1 : -0.1;
      out.push_back({t, t % 2 == 0 ? "ja" : "en",
                     i < per_text / 2 ? TextPart::kThinking : TextPart::kAnswer, i, d});
    }
  }
  return out;
}

TEST(Summarise, GroupsAndFigures) {
  const auto all = positions(40, 20, 0);
  const auto s = summarise(all);
  ASSERT_EQ(s.size(), 9u);  // (all, en, ja) × (all, answer, thinking)
  EXPECT_EQ(s[0].lang, "all");
  EXPECT_EQ(s[0].part, "all");
  EXPECT_EQ(s[0].n_positions, 800);
  EXPECT_EQ(s[0].n_texts, 40);
  EXPECT_NEAR(s[0].kld_mean.value, 0.1, 1e-12);
  EXPECT_NEAR(s[0].kld_p99.value, 0.1, 1e-12);
  EXPECT_NEAR(s[0].top1_agreement.value, 0.75, 1e-12);
  EXPECT_NEAR(s[0].delta_p_mean.value, 0, 1e-12);
  EXPECT_NEAR(s[0].delta_p_rms.value, 0.1, 1e-12);
  EXPECT_NEAR(s[0].perplexity_ratio.value, std::exp(0.2), 1e-9);
}

// Positions of a text move together: the error is that of the mean of 40 texts, not of 800 values.
TEST(Summarise, ErrorsAreOverTexts) {
  const auto all = positions(40, 20, 1);
  double mean = 0, square = 0;
  for (int t = 0; t < 40; ++t) {
    const double v = uniform_at(1, 0, static_cast<std::uint64_t>(t));
    mean += v / 40, square += v * v / 40;
  }
  const double expected = std::sqrt((square - mean * mean) / 40);
  const auto s = summarise(all, 1000);
  ASSERT_TRUE(s[0].kld_mean.error);
  EXPECT_NEAR(*s[0].kld_mean.error, expected, 0.1 * expected);
}

// Positions of two texts, in turn, with these KLDs.
std::vector<ScoredPosition> with_klds(const std::vector<double>& klds) {
  std::vector<ScoredPosition> out;
  for (const double kld : klds) {
    PositionDivergence d;
    d.kld = d.kld_top = d.kld_at_most = kld;
    const int n = static_cast<int>(out.size());
    out.push_back({n % 2, "ja", TextPart::kAnswer, n, d});
  }
  return out;
}

// i / n for i = 0 … n: the quantile q is q itself.
TEST(Summarise, QuantilesAreThoseOfTheGrid) {
  constexpr int kN = 1000;
  std::vector<double> klds;
  for (int i = 0; i <= kN; ++i)  // in another order: 8 and 1001 have no common divisor
    klds.push_back(static_cast<double>(8 * i % (kN + 1)) / kN);
  const auto all = with_klds(klds);
  const DivergenceSummary s = summarise(all).front();
  EXPECT_EQ(s.n_positions, kN + 1);
  EXPECT_NEAR(s.kld_mean.value, 0.5, 1e-12);
  EXPECT_NEAR(s.kld_median.value, 0.5, 1e-12);
  EXPECT_NEAR(s.kld_p90.value, 0.9, 1e-12);
  EXPECT_NEAR(s.kld_p95.value, 0.95, 1e-12);
  EXPECT_NEAR(s.kld_p99.value, 0.99, 1e-12);
  EXPECT_NEAR(s.kld_p999.value, 0.999, 1e-12);
  EXPECT_EQ(s.kld_max.value, 1);
  const Json json = to_json(s);
  EXPECT_EQ(json["kld"]["p99.9"]["value"], s.kld_p999.value);
  EXPECT_EQ(json["kld"]["median"]["value"], s.kld_median.value);
}

TEST(Summarise, QuantilesBetweenTwoPositionsAreInterpolated) {
  const auto all = with_klds({0.75, 0, 0.5, 0.25});
  const DivergenceSummary s = summarise(all).front();
  EXPECT_NEAR(s.kld_median.value, 0.375, 1e-12);
  EXPECT_NEAR(s.kld_p90.value, 0.9 * 0.75, 1e-12);
  EXPECT_NEAR(s.kld_p999.value, 0.999 * 0.75, 1e-12);
  EXPECT_EQ(s.kld_max.value, 0.75);
}

TEST(Summarise, DeltaPKeepsItsSignInTheMeanAndNotInTheRms) {
  auto all = with_klds({0, 0, 0, 0});
  const double delta_p[] = {0.3, -0.1, -0.1, 0.1};
  for (std::size_t i = 0; i < all.size(); ++i) all[i].d.delta_p = delta_p[i];
  const DivergenceSummary s = summarise(all).front();
  EXPECT_NEAR(s.delta_p_mean.value, 0.05, 1e-12);
  EXPECT_NEAR(s.delta_p_rms.value, std::sqrt(0.12 / 4), 1e-12);
}

TEST(Summarise, AnErrorThatIsNotKnownIsNotZero) {
  auto of_two = with_klds({0.1, 0.2, 0.3, 0.5});
  const DivergenceSummary two = summarise(of_two).front();
  ASSERT_TRUE(two.kld_mean.error);
  EXPECT_GT(*two.kld_mean.error, 0);
  EXPECT_FALSE(two.kld_max.error) << "a maximum has none";
  for (ScoredPosition& p : of_two) p.text = 0;
  const DivergenceSummary one = summarise(of_two).front();
  EXPECT_FALSE(one.kld_mean.error);
  EXPECT_FALSE(one.top1_agreement.error);
  const Json json = to_json(one);
  EXPECT_TRUE(json["kld"]["mean"]["error"].is_null());
  EXPECT_NEAR(json["kld"]["mean"]["value"].get<double>(), 0.275, 1e-12);
  EXPECT_TRUE(to_json(two)["kld"]["max"]["error"].is_null());
}

TEST(Summarise, WhatACapturedBaseMissesIsBoundedNotZero) {
  auto all = with_klds({0.1, 0.2});
  for (ScoredPosition& p : all) p.d.kld_top = p.d.kld - 0.05, p.d.tail = 0.01;
  const DivergenceSummary whole = summarise(all).front();
  ASSERT_TRUE(whole.coarsening);
  EXPECT_NEAR(*whole.coarsening, 0.05, 1e-12);
  EXPECT_FALSE(whole.kld_mean_at_most);
  for (ScoredPosition& p : all)
    p.d.kld = p.d.kld_top, p.d.kld_at_most = p.d.kld + 0.3, p.d.is_lower_bound = true;
  const DivergenceSummary captured = summarise(all).front();
  EXPECT_FALSE(captured.coarsening);
  ASSERT_TRUE(captured.kld_mean_at_most);
  EXPECT_NEAR(*captured.kld_mean_at_most, captured.kld_mean.value + 0.3, 1e-12);
  EXPECT_NEAR(captured.tail_mass, 0.01, 1e-12);
  const Json json = to_json(captured);
  EXPECT_TRUE(json["kld_coarsening"].is_null());
  EXPECT_EQ(json["tail_mass"], captured.tail_mass);
}

DivergenceBase small_base() {
  DivergenceBase base;
  base.vocab = 100;
  base.model = {{"tokenizer", "abc"}, {"dir", "xyz"}};
  for (int t = 0; t < 3; ++t) {
    DivergenceBase::Text text{.id = fmt::format("t{}", t),
                              .lang = "ja",
                              .ids = {5, 6, 7, 8},
                              .reply = 1,
                              .answer = 2,
                              .positions = {}};
    for (int i = 1; i < 4; ++i)
      text.positions.push_back(summarise_base(
          random_logits(100, 10 * static_cast<std::uint64_t>(t) + static_cast<std::uint64_t>(i)),
          text.ids[static_cast<std::size_t>(i)]));
    base.texts.push_back(text);
  }
  return base;
}

class BaseFile : public ::testing::Test {
 protected:
  BaseFile() : path_(fs::temp_directory_path() / fmt::format("assay-base-{}.div", ::getpid())) {}
  ~BaseFile() override { fs::remove(path_); }
  fs::path path_;
};

TEST_F(BaseFile, RoundTripsInLessThan200BytesAPosition) {
  const DivergenceBase base = small_base();
  ASSERT_TRUE(write_base(path_, base));
  const auto again = read_base(path_);
  ASSERT_TRUE(again) << again.error().message;
  ASSERT_EQ(again->texts.size(), 3u);
  for (std::size_t t = 0; t < 3; ++t)
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(again->texts[t].positions[i].top, base.texts[t].positions[i].top);
      EXPECT_EQ(again->texts[t].positions[i].tail, base.texts[t].positions[i].tail);
      EXPECT_EQ(again->texts[t].positions[i].next_logprob, base.texts[t].positions[i].next_logprob);
    }
  DivergenceBase twice = base;
  for (auto& text : twice.texts) {
    text.ids.insert(text.ids.end(), text.ids.begin() + 1, text.ids.end());
    text.positions.insert(text.positions.end(), text.positions.begin(), text.positions.end());
  }
  const auto before = fs::file_size(path_);
  ASSERT_TRUE(write_base(path_, twice));
  EXPECT_LE((fs::file_size(path_) - before) / 9.0, 200);
}

TEST_F(BaseFile, DamageIsNamed) {
  ASSERT_TRUE(write_base(path_, small_base()));
  const std::string good = *read_file(path_);
  const auto error_of = [&](const std::string& bytes) {
    EXPECT_TRUE(write_file_atomic(path_, bytes));
    const auto base = read_base(path_);
    return base ? std::string() : base.error().message;
  };
  EXPECT_THAT(error_of("hello"), HasSubstr("not a captured base"));
  for (std::size_t size = 24; size < good.size(); size += 7)
    EXPECT_THAT(error_of(good.substr(0, size)), HasSubstr("truncated or damaged")) << size;
  for (std::size_t at = 24; at < good.size(); at += 5) {
    std::string flipped = good;
    flipped[at] ^= 1;  // of a probability, for one: nothing else would notice
    EXPECT_THAT(error_of(flipped), HasSubstr("truncated or damaged")) << at;
  }
  EXPECT_EQ(error_of(good), "");
}

TEST_F(BaseFile, WhatHasADigestIsCheckedAllTheSame) {
  ASSERT_TRUE(write_base(path_, small_base()));
  const std::string good = *read_file(path_);
  const std::string body = good.substr(0, good.size() - 32);
  const auto error_of = [&](const std::string& bytes) {
    EXPECT_TRUE(write_file_atomic(path_, bytes + hash_hex(bytes)));
    const auto base = read_base(path_);
    return base ? std::string() : base.error().message;
  };
  const auto with = [&](std::string_view from, std::string_view to) {
    std::string changed = body;
    changed.replace(changed.find(from), from.size(), to);
    return error_of(changed);
  };
  EXPECT_EQ(error_of(body), "");
  EXPECT_THAT(error_of(body.substr(0, body.size() - 1)),
              HasSubstr("bytes of distributions, expected"));
  EXPECT_THAT(error_of(body.substr(0, 40)), HasSubstr("the file only"));
  std::string next = body;
  next[body.size() - 2 * 179 + 1] = '\x7F';  // the next token's id
  EXPECT_THAT(error_of(next), HasSubstr("is no distribution"));
  EXPECT_THAT(with("\"n_top\":24", "\"n_top\":23"), HasSubstr("23 tokens a position"));
  EXPECT_THAT(with("\"n_top\":24", "\"n_top\":[]"), HasSubstr("its header is not that"));
  EXPECT_THAT(with("\"reply\":1", "\"reply\":9"), HasSubstr("reply begins at 9"));
  EXPECT_THAT(with("\"tokenizer\"", "\"tokeniser\""), HasSubstr("its header is not that"));
  EXPECT_THAT(with("\"dir\":\"xyz\"", "\"dir\":12345"), HasSubstr("its header is not that"));
  EXPECT_THAT(with("\"vocab\":100", "\"vocab\":  6"), HasSubstr("expected 0 to 5"));
}

TEST_F(BaseFile, AVocabularyBeyondItsIdsIsRefused) {
  DivergenceBase base = small_base();
  base.vocab = (1 << 24) + 1;
  const auto written = write_base(path_, base);
  ASSERT_FALSE(written);
  EXPECT_THAT(written.error().message, HasSubstr("16777216 at most"));
}

TEST(Summaries, AllIsFirstWhateverTheLanguagesAreCalled) {
  std::vector<ScoredPosition> positions;
  for (const char* lang : {"?", "JA", "all", "zh"})
    positions.push_back({static_cast<int>(positions.size()), lang, TextPart::kAnswer, 1, {}});
  const auto summaries = summarise(positions, 2);
  ASSERT_EQ(summaries.size(), 8u);
  EXPECT_EQ(summaries.front().lang, "all");
  EXPECT_EQ(summaries.front().part, "all");
  EXPECT_EQ(summaries.front().n_positions, 4) << "a position counts once";
}

}  // namespace
}  // namespace assay::harness
