#include "base/hypothesis.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace assay {
namespace {

// Two sums of the same powers of two may differ in their last bits.
constexpr double kSame = 1 + 1e-9;

constexpr int kExactBelow = 50;  // as R

double normal_tail(double z) { return 0.5 * std::erfc(z / std::sqrt(2.0)); }

// Two-sided p of a distance from the middle of a normal, with half a step of continuity.
double normal_p(double distance, double variance) {
  if (variance <= 0) return 1;
  const double corrected = std::max(0.0, std::abs(distance) - 0.5);
  return std::min(1.0, 2 * normal_tail(corrected / std::sqrt(variance)));
}

struct Ranks {
  std::vector<double> rank;  // of each value, ties share their mean
  double ties = 0;           // Σ t³ − t over groups of t equal values
};

Ranks ranks_of(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  Ranks out;
  out.rank.resize(values.size());
  for (std::size_t first = 0; first < order.size();) {
    std::size_t end = first;
    while (end < order.size() && values[order[end]] == values[order[first]]) ++end;
    const double mean = (static_cast<double>(first + end) + 1) / 2;
    for (std::size_t i = first; i < end; ++i) out.rank[order[i]] = mean;
    const auto t = static_cast<double>(end - first);
    out.ties += t * t * t - t;
    first = end;
  }
  return out;
}

// P(V = v) of the sum of a random half of the ranks 1 … n.
std::vector<double> signed_rank_distribution(int n) {
  std::vector<double> p = {1};
  for (int rank = 1; rank <= n; ++rank) {
    std::vector<double> next(p.size() + static_cast<std::size_t>(rank), 0.0);
    for (std::size_t v = 0; v < p.size(); ++v) {
      next[v] += p[v] / 2;
      next[v + static_cast<std::size_t>(rank)] += p[v] / 2;
    }
    p = std::move(next);
  }
  return p;
}

// P(U = u) of n against m values: of every `taken` of the ranks so far, the sums that they may have
// beyond the least.
std::vector<double> rank_sum_distribution(int n, int m) {
  const auto size = static_cast<std::size_t>(n) * static_cast<std::size_t>(m) + 1;
  std::vector<std::vector<double>> ways(static_cast<std::size_t>(n) + 1,
                                        std::vector<double>(size, 0.0));
  ways[0][0] = 1;
  // The value of rank r (from 0) as the k-th taken adds the r − (k − 1) untaken ones below it.
  for (int r = 0; r < n + m; ++r)
    for (int k = std::min(n, r + 1); k >= std::max(1, r + 1 - m); --k) {
      const auto below = static_cast<std::size_t>(r - (k - 1));
      for (std::size_t u = size; u-- > below;)
        ways[static_cast<std::size_t>(k)][u] += ways[static_cast<std::size_t>(k) - 1][u - below];
    }
  std::vector<double> p = ways[static_cast<std::size_t>(n)];
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= total;
  return p;
}

// Twice the smaller tail, the observed value in it.
double two_sided(const std::vector<double>& p, double observed) {
  const auto at = static_cast<std::size_t>(observed);
  const double below =
                   std::accumulate(p.begin(), p.begin() + static_cast<std::ptrdiff_t>(at) + 1, 0.0),
               above = std::accumulate(p.begin() + static_cast<std::ptrdiff_t>(at), p.end(), 0.0);
  return std::min(1.0, 2 * std::min(below, above));
}

}  // namespace

double binomial_p(int k, int n, double probability) {
  CHECK(k >= 0 && k <= n && probability >= 0 && probability <= 1) << k << " of " << n;
  if (probability == 0 || probability == 1) return k == (probability == 0 ? 0 : n) ? 1 : 0;
  const auto likelihood = [&](int i) {
    return std::exp(std::lgamma(n + 1.0) - std::lgamma(i + 1.0) - std::lgamma(n - i + 1.0) +
                    i * std::log(probability) + (n - i) * std::log1p(-probability));
  };
  const double limit = likelihood(k) * (1 + 1e-7);  // R's allowance for rounding
  double p = 0;
  for (int i = 0; i <= n; ++i)
    if (const double one = likelihood(i); one <= limit) p += one;
  return std::min(1.0, p);
}

void SignFlip::add(int cluster_sum) {
  observed_ += cluster_sum;
  const auto step = static_cast<std::size_t>(std::abs(cluster_sum));
  if (step == 0) return;
  std::vector<double> next(probability_.size() + 2 * step, 0.0);
  for (std::size_t i = 0; i < probability_.size(); ++i) {
    next[i] += probability_[i] / 2;
    next[i + 2 * step] += probability_[i] / 2;
  }
  probability_ = std::move(next);
  reach_ += static_cast<int>(step);
}

double SignFlip::tail(int distance) const {
  if (distance <= 0) return 1;
  double p = 0;
  for (int at = reach_ + distance; at <= 2 * reach_; ++at)
    p += 2 * probability_[static_cast<std::size_t>(at)];
  return std::min(1.0, p);
}

double SignFlip::p() const { return tail(std::abs(observed_)); }

double SignFlip::at_most(double p) const {
  double reached = 0, attainable = 0;
  for (int at = 2 * reach_; at > reach_; --at) {
    const double here = probability_[static_cast<std::size_t>(at)];
    if (here == 0) continue;
    reached += 2 * here;
    if (reached > p * kSame) return attainable;
    attainable = reached;
  }
  return p >= 1 ? 1 : attainable;
}

double sign_flip_p(std::span<const int> cluster_sums) {
  SignFlip test;
  for (const int sum : cluster_sums) test.add(sum);
  return test.p();
}

std::optional<double> rank_correlation(std::span<const double> x, std::span<const double> y) {
  CHECK(x.size() == y.size()) << x.size() << " and " << y.size();
  const std::vector<double> a = ranks_of(x).rank, b = ranks_of(y).rank;
  const double mean = (static_cast<double>(x.size()) + 1) / 2;
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - mean) * (b[i] - mean);
    aa += (a[i] - mean) * (a[i] - mean);
    bb += (b[i] - mean) * (b[i] - mean);
  }
  if (aa == 0 || bb == 0) return std::nullopt;
  return ab / std::sqrt(aa * bb);
}

SignedRank wilcoxon_signed_rank(std::span<const double> differences) {
  std::vector<double> sizes;
  std::vector<bool> positive;
  for (const double d : differences) {
    if (d == 0) continue;
    sizes.push_back(std::abs(d));
    positive.push_back(d > 0);
  }
  SignedRank out;
  out.n = static_cast<int>(sizes.size());
  if (out.n == 0) return out;
  const Ranks ranks = ranks_of(sizes);
  for (std::size_t i = 0; i < sizes.size(); ++i)
    if (positive[i]) out.v += ranks.rank[i];
  const double n = out.n, middle = n * (n + 1) / 4;
  out.exact = out.n < kExactBelow && ranks.ties == 0 && sizes.size() == differences.size();
  if (out.exact) {
    out.p = two_sided(signed_rank_distribution(out.n), out.v);
    out.least_p = std::min(1.0, std::ldexp(2.0, -out.n));
    return out;
  }
  const double variance = n * (n + 1) * (2 * n + 1) / 24 - ranks.ties / 48;
  out.p = normal_p(out.v - middle, variance);
  out.least_p = normal_p(middle, variance);
  return out;
}

RankSum mann_whitney(std::span<const double> x, std::span<const double> y, double confidence) {
  CHECK(!x.empty() && !y.empty() && confidence > 0 && confidence < 1);
  std::vector<double> both(x.begin(), x.end());
  both.insert(both.end(), y.begin(), y.end());
  const Ranks ranks = ranks_of(both);
  const auto n = static_cast<double>(x.size()), m = static_cast<double>(y.size());
  RankSum out;
  out.u = std::accumulate(ranks.rank.begin(),
                          ranks.rank.begin() + static_cast<std::ptrdiff_t>(x.size()), 0.0) -
          n * (n + 1) / 2;
  out.exact = n < kExactBelow && m < kExactBelow && ranks.ties == 0;
  const double variance = n * m / 12 * (n + m + 1 - ranks.ties / ((n + m) * (n + m - 1)));

  std::vector<double> differences;
  for (const double a : x)
    for (const double b : y) differences.push_back(a - b);
  std::sort(differences.begin(), differences.end());
  // The k-th smallest and largest differences: 1 − 2 P(U < k) is covered.
  double below = 0;
  std::size_t k = 0;
  if (n < kExactBelow && m < kExactBelow) {
    const std::vector<double> p =
        rank_sum_distribution(static_cast<int>(x.size()), static_cast<int>(y.size()));
    if (out.exact) out.p = two_sided(p, out.u);
    while (2 * k < differences.size() && 1 - 2 * (below + p[k]) >= confidence) below += p[k++];
    if (k == 0) below = p[k++];
  } else {
    // Without ties, whose variance is less: the wider interval.
    const double untied = std::sqrt(n * m * (n + m + 1) / 12);
    double lo = 0, hi = 40;  // the normal's quantile
    for (int i = 0; i < 100; ++i)
      (2 * normal_tail((lo + hi) / 2) > 1 - confidence ? lo : hi) = (lo + hi) / 2;
    k = static_cast<std::size_t>(std::max(1.0, std::floor(n * m / 2 - hi * untied)));
    below = normal_tail((n * m / 2 - static_cast<double>(k) + 0.5) / untied);
  }
  if (!out.exact) out.p = normal_p(out.u - n * m / 2, variance);
  out.shift = {median(differences), differences[k - 1], differences[differences.size() - k]};
  out.coverage = std::max(0.0, 1 - 2 * below);
  return out;
}

std::vector<double> holm(std::span<const double> p) {
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return p[a] < p[b]; });
  std::vector<double> out(p.size());
  double least = 0;
  for (std::size_t k = 0; k < order.size(); ++k) {
    least = std::max(least, std::min(1.0, p[order[k]] * static_cast<double>(p.size() - k)));
    out[order[k]] = least;
  }
  return out;
}

}  // namespace assay
