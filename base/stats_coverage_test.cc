// How often intervals hold what they claim to hold, counted over samples drawn with a fixed seed.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numbers>
#include <vector>

#include "base/hypothesis.h"
#include "base/rng.h"
#include "base/stats.h"

namespace assay {
namespace {

constexpr int kDraws = 4000;
// Of 4000 intervals that cover with 95 % fewer than 3747 hold the truth with probability 9.1e-5 (R:
// pbinom(3746, 4000, 0.95)): a right interval is not failed by an unlucky seed. Of those that cover
// with 90 % (z of 1.64 for 1.96, say) so many hold it with probability below 2e-16 (R:
// pbinom(3746, 4000, 0.90, lower = FALSE)).
constexpr int kLeastHeld = 3747;

// Uniform numbers of one draw, one after the other.
class Dice {
 public:
  explicit Dice(int draw) : draw_(static_cast<std::uint64_t>(draw)) {}
  double uniform() { return uniform_at(0x636f766572, draw_, next_++); }
  double normal() {  // Box and Muller 1958
    const double u = 1 - uniform(), v = uniform();
    return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
  }

 private:
  std::uint64_t draw_, next_ = 0;
};

int n_held(double truth, const std::function<Interval(Dice&)>& interval) {
  int held = 0;
  for (int draw = 0; draw < kDraws; ++draw) {
    Dice dice(draw);
    const Interval i = interval(dice);
    held += i.lo <= truth && truth <= i.hi;
  }
  return held;
}

TEST(Coverage, WilsonHoldsOnAverageOverProbabilities) {
  // Its coverage oscillates with p; what it promises is the average (Brown, Cai and DasGupta 2001).
  int held = 0, narrow = 0;
  for (int draw = 0; draw < kDraws; ++draw) {
    Dice dice(draw);
    const double p = 0.02 + 0.96 * dice.uniform();
    int k = 0;
    for (int i = 0; i < 40; ++i) k += dice.uniform() < p;
    const Interval right = wilson(k, 40), wrong = wilson(k, 40, 1.645);
    held += right.lo <= p && p <= right.hi;
    narrow += wrong.lo <= p && p <= wrong.hi;
  }
  EXPECT_GE(held, kLeastHeld);
  EXPECT_LT(narrow, kLeastHeld) << "this test would not see a wrong interval";
}

TEST(Coverage, ClopperPearsonHoldsWhateverTheProbability) {
  for (const double p : {0.01, 0.07, 0.5, 0.93})
    EXPECT_GE(n_held(p,
                     [&](Dice& dice) {
                       int k = 0;
                       for (int i = 0; i < 60; ++i) k += dice.uniform() < p;
                       return clopper_pearson(k, 60);
                     }),
              kLeastHeld)
        << p;
}

// 60 problems in three languages; how hard a problem is, is the same in all.
struct Clustered {
  std::vector<double> value;
  std::vector<int> cluster, alone;
};

TEST(Coverage, ClusteredMeanHoldsWhereSamplesShareAProblem) {
  const auto draw = [](Dice& dice) {
    Clustered out;
    for (int problem = 0; problem < 60; ++problem) {
      const double hard = dice.uniform();  // P(right): 0.95 or 0.35, evenly: 0.65 on average
      for (int language = 0; language < 3; ++language) {
        out.value.push_back(dice.uniform() < (hard < 0.5 ? 0.95 : 0.35) ? 1 : 0);
        out.cluster.push_back(problem);
        out.alone.push_back(3 * problem + language);
      }
    }
    return out;
  };
  EXPECT_GE(n_held(0.65,
                   [&](Dice& dice) {
                     const Clustered c = draw(dice);
                     return clustered_mean(c.value, c.cluster).mean;
                   }),
            kLeastHeld);
  EXPECT_LT(n_held(0.65,
                   [&](Dice& dice) {
                     const Clustered c = draw(dice);
                     return clustered_mean(c.value, c.alone).mean;
                   }),
            kLeastHeld)
      << "samples taken as independent cover too little, and this test must see it";
}

TEST(Coverage, ClusteredDifferenceHoldsForPairs) {
  // A problem is lost in all three languages with probability 0.1, and a reply flips either way
  // with 0.05: −0.1 on average.
  const auto draw = [](Dice& dice) {
    Clustered out;
    for (int problem = 0; problem < 150; ++problem) {
      const bool lost = dice.uniform() < 0.1;
      for (int language = 0; language < 3; ++language) {
        const double u = dice.uniform();
        out.value.push_back(lost ? -1 : u < 0.05 ? -1 : u < 0.1 ? 1 : 0);
        out.cluster.push_back(problem);
        out.alone.push_back(3 * problem + language);
      }
    }
    return out;
  };
  EXPECT_GE(n_held(-0.1,
                   [&](Dice& dice) {
                     const Clustered c = draw(dice);
                     return clustered_difference(c.value, c.cluster).mean;
                   }),
            kLeastHeld);
  EXPECT_LT(n_held(-0.1,
                   [&](Dice& dice) {
                     const Clustered c = draw(dice);
                     return clustered_difference(c.value, c.alone).mean;
                   }),
            kLeastHeld);
}

TEST(Coverage, ClusteredValueHoldsForUnboundedValues) {
  EXPECT_GE(n_held(0.2,
                   [](Dice& dice) {
                     Clustered c;
                     for (int problem = 0; problem < 20; ++problem) {
                       const double shared = dice.normal();
                       for (int i = 0; i < 3; ++i) {
                         c.value.push_back(0.2 + shared + 0.3 * dice.normal());
                         c.cluster.push_back(problem);
                       }
                     }
                     return clustered_value(c.value, c.cluster).mean;
                   }),
            kLeastHeld);
}

TEST(Coverage, HodgesLehmannHoldsTheShiftOfASkewedDistribution) {
  for (const int n : {9, 15})
    EXPECT_GE(n_held(0.5,
                     [&](Dice& dice) {
                       std::vector<double> x, y;
                       for (int i = 0; i < n; ++i) {
                         x.push_back(0.5 - std::log(1 - dice.uniform()));
                         y.push_back(-std::log(1 - dice.uniform()));
                       }
                       return mann_whitney(x, y).shift;
                     }),
              kLeastHeld)
        << n;
}

TEST(Coverage, MedianIntervalHoldsTheMedianOfASkewedDistribution) {
  EXPECT_GE(n_held(std::log(2.0),
                   [](Dice& dice) {
                     std::vector<double> x;
                     for (int i = 0; i < 12; ++i) x.push_back(-std::log(1 - dice.uniform()));
                     const MedianInterval m = median_interval(x);
                     return Interval{m.median, m.lo, m.hi};
                   }),
            kLeastHeld);
}

}  // namespace
}  // namespace assay
