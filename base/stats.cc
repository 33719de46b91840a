#include "base/stats.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/check.h"

namespace assay {
namespace {

// Regularised incomplete beta function by its continued fraction (modified Lentz; Numerical
// Recipes 6.4's formula).
double incomplete_beta(double a, double b, double x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - incomplete_beta(b, a, 1 - x);
  const double front = std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) +
                                a * std::log(x) + b * std::log1p(-x)) /
                       a;
  double c = 1, d = 1 - (a + b) * x / (a + 1);
  d = 1 / (std::abs(d) < 1e-300 ? 1e-300 : d);
  double f = d;
  for (int m = 1; m < 500; ++m) {
    for (int half = 0; half < 2; ++half) {
      const double numerator = half == 0
                                   ? m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
                                   : -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
      d = 1 + numerator * d;
      d = 1 / (std::abs(d) < 1e-300 ? 1e-300 : d);
      c = 1 + numerator / c;
      if (std::abs(c) < 1e-300) c = 1e-300;
      f *= c * d;
    }
    if (std::abs(c * d - 1) < 1e-15) break;
  }
  return front * f;
}

// Wilson's interval for a proportion p among n, which need not be a count over a count.
Interval wilson_at(double p, double n, double z) {
  const double z2 = z * z;
  const double centre = (p + z2 / (2 * n)) / (1 + z2 / n);
  const double half = z * std::sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n);
  return {p, std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

}  // namespace

Interval wilson(int n_successes, int n, double z) {
  CHECK(n_successes >= 0 && n_successes <= n) << n_successes << " of " << n;
  if (n == 0) return {0, 0, 1};
  return wilson_at(static_cast<double>(n_successes) / n, n, z);
}

Interval clopper_pearson(int k, int n, double confidence) {
  CHECK(k >= 0 && k <= n && confidence > 0 && confidence < 1) << k << " of " << n;
  if (n == 0) return {0, 0, 1};
  const double alpha = (1 - confidence) / 2;
  // The p at which P(Bin(n, p) >= at_least) = I_p(at_least, n − at_least + 1) is `share`; it grows
  // with p.
  const auto solve = [&](int at_least, double share) {
    double lo = 0, hi = 1;
    for (int i = 0; i < 100; ++i) {
      const double mid = (lo + hi) / 2;
      (incomplete_beta(at_least, n - at_least + 1, mid) < share ? lo : hi) = mid;
    }
    return (lo + hi) / 2;
  };
  return {static_cast<double>(k) / n, k == 0 ? 0 : solve(k, alpha),
          k == n ? 1 : solve(k + 1, 1 - alpha)};
}

double student_t_quantile(double confidence, double degrees_of_freedom) {
  CHECK(confidence > 0 && confidence < 1 && degrees_of_freedom > 0);
  const auto coverage = [&](double t) {
    return 1 - incomplete_beta(degrees_of_freedom / 2, 0.5,
                               degrees_of_freedom / (degrees_of_freedom + t * t));
  };
  double lo = 0, hi = 1;
  while (coverage(hi) < confidence) hi *= 2;
  for (int i = 0; i < 200 && hi - lo > 1e-14 * hi; ++i) {
    const double mid = (lo + hi) / 2;
    (coverage(mid) < confidence ? lo : hi) = mid;
  }
  return (lo + hi) / 2;
}

namespace {

// Mean of `values` and half of its interval; nothing where no cluster differs from another.
struct ClusteredHalf {
  double mean = 0;
  int n = 0, n_clusters = 0;
  std::optional<double> half;
};

ClusteredHalf clustered(std::span<const double> values, std::span<const int> cluster) {
  CHECK(values.size() == cluster.size())
      << values.size() << " values, " << cluster.size() << " clusters";
  ClusteredHalf out;
  out.n = static_cast<int>(values.size());
  for (const double v : values) out.mean += v / out.n;
  std::unordered_map<int, double> residual;
  for (std::size_t i = 0; i < values.size(); ++i) residual[cluster[i]] += values[i] - out.mean;
  out.n_clusters = static_cast<int>(residual.size());
  std::vector<double> squares;
  for (const auto& [id, r] : residual) squares.push_back(r * r);
  std::sort(squares.begin(), squares.end());  // a fixed order of addition, whatever the map's
  double total = 0;
  for (const double s : squares) total += s;
  // Residual sums that differ from 0 only by rounding.
  if (out.n_clusters < 2 || total <= std::pow(1e-14 * out.n, 2)) return out;
  const double variance =
      total * out.n_clusters / (out.n_clusters - 1.0) / (static_cast<double>(out.n) * out.n);
  out.half = student_t_quantile(0.95, out.n_clusters - 1) * std::sqrt(variance);
  return out;
}

}  // namespace

ClusteredMean clustered_mean(std::span<const double> score, std::span<const int> cluster) {
  for (const double s : score) CHECK(s >= 0 && s <= 1) << "score " << s;
  const ClusteredHalf c = clustered(score, cluster);
  if (c.n_clusters < 2) return {{c.mean, 0, 1}, c.n, c.n_clusters};
  if (!c.half) return {wilson_at(c.mean, c.n_clusters, kZ95), c.n, c.n_clusters};
  return {{c.mean, std::max(0.0, c.mean - *c.half), std::min(1.0, c.mean + *c.half)},
          c.n,
          c.n_clusters};
}

ClusteredMean clustered_difference(std::span<const double> difference,
                                   std::span<const int> cluster) {
  for (const double d : difference) CHECK(d >= -1 && d <= 1) << "difference " << d;
  const ClusteredHalf c = clustered(difference, cluster);
  if (c.n_clusters < 2) return {{c.mean, -1, 1}, c.n, c.n_clusters};
  const double half = c.half ? *c.half : wilson_at(0, c.n_clusters, kZ95).hi;
  return {{c.mean, std::max(-1.0, c.mean - half), std::min(1.0, c.mean + half)}, c.n, c.n_clusters};
}

ClusteredValue clustered_value(std::span<const double> value, std::span<const int> cluster) {
  const ClusteredHalf c = clustered(value, cluster);
  const double half = c.half.value_or(0);
  return {{c.mean, c.mean - half, c.mean + half}, c.half.has_value(), c.n, c.n_clusters};
}

double median(std::span<const double> values) {
  CHECK(!values.empty());
  std::vector<double> v(values.begin(), values.end());
  std::sort(v.begin(), v.end());
  const std::size_t m = v.size() / 2;
  return v.size() % 2 == 1 ? v[m] : (v[m - 1] + v[m]) / 2;
}

double scaled_mad(std::span<const double> values) {
  const double centre = median(values);
  std::vector<double> distance;
  for (const double v : values) distance.push_back(std::abs(v - centre));
  return 1.4826 * median(distance);
}

MedianInterval median_interval(std::span<const double> values) {
  CHECK(!values.empty());
  std::vector<double> v(values.begin(), values.end());
  std::sort(v.begin(), v.end());
  const auto n = static_cast<double>(v.size());
  const auto probability = [&](double successes) {  // of Bin(n, 1/2)
    return std::exp(std::lgamma(n + 1) - std::lgamma(successes + 1) -
                    std::lgamma(n - successes + 1) - n * std::log(2.0));
  };
  std::size_t k = 1;
  double below = probability(0);  // P(Bin < k)
  while (2 * k < v.size()) {
    const double next = below + probability(static_cast<double>(k));
    if (1 - 2 * next < 0.95) break;
    below = next;
    ++k;
  }
  return {median(v), v[k - 1], v[v.size() - k], std::max(0.0, 1 - 2 * below)};
}

double nearest_rank(std::span<const double> sorted, double q) {
  CHECK(!sorted.empty() && q >= 0 && q <= 1) << sorted.size() << " values, q " << q;
  // 0.07 · 100 is 7.000000000000001 in double and means 7.
  const double rank = std::ceil(q * static_cast<double>(sorted.size()) - 1e-9);
  return sorted[static_cast<std::size_t>(std::max(rank, 1.0)) - 1];
}

}  // namespace assay
