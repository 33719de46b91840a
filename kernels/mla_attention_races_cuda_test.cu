// Attention in clusters gives the same bits every time, also where a GPU is busy with more: blocks
// hand each other scores and weights through shared memory, and what one takes too late, another
// has overwritten. Needs a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/mla_attention_testing.cuh"

namespace assay::kernels {
namespace {

// Where `got` is not `expected`, of (pairs of row and head, splits, columns): what a round's
// weights or scores would spoil are 16 heads, what keys would are 128 columns.
std::string differences(const std::vector<float>& got, const std::vector<float>& expected,
                        int n_heads, int n_splits, int n_columns) {
  std::map<std::tuple<int, int, int, int>, int> where;
  std::size_t n = 0, n_nans = 0;
  double greatest = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (std::memcmp(&got[i], &expected[i], sizeof(float)) == 0) continue;
    ++n;
    n_nans += std::isnan(got[i]);
    greatest = std::max(greatest,
                        std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i])));
    const int column = static_cast<int>(i) % n_columns, group = static_cast<int>(i) / n_columns,
              pair = group / n_splits;
    ++where[{pair / n_heads, pair % n_heads / 16, group % n_splits, column / 128}];
  }
  std::ostringstream out;
  out << n << " of " << expected.size() << " differ, " << n_nans << " of them NaN, by up to "
      << greatest << ":";
  for (const auto& [place, count] : where)
    out << " row " << std::get<0>(place) << " heads " << 16 * std::get<1>(place) << "… split "
        << std::get<2>(place) << " columns " << 128 * std::get<3>(place) << "…: " << count << ";";
  return out.str();
}

// One problem in device memory, asked again and again.
class Repeated {
 public:
  Repeated(const AttentionProblem& p, bool half, bool splits)
      : p_(p),
        half_(half),
        splits_(splits),
        q_(p.q),
        cache_(p.cache()),
        caches_(std::vector<std::uint16_t*>(static_cast<std::size_t>(p.rows), cache_.data())),
        position_(positions(p)),
        parts_(poisoned(mla_parts(p.rows, 1, p.s.n_heads, p.s.kv_lora, p.s.rope, p.last + 1))),
        out_(poisoned(static_cast<std::size_t>(p.rows * p.s.n_heads * p.s.kv_lora))) {}

  void launch() const {
    mla_attention_cuda({.q = q_.data(),
                        .cache = caches_.data(),
                        .position = position_.data(),
                        .n_runs = p_.rows,
                        .n_rows = p_.rows,
                        .n_heads = p_.s.n_heads,
                        .kv_lora = p_.s.kv_lora,
                        .rope = p_.s.rope,
                        .scale = p_.s.scale(),
                        .max_keys = p_.last + 1,
                        .half = half_,
                        .parts = splits_ ? parts_.data() : nullptr,
                        .out = out_.data()},
                       nullptr);
  }
  std::vector<float> out() const { return out_.host(); }
  // Of every split the latents, and behind them the states: largest scores and sums.
  std::vector<float> latents() const {
    const std::vector<float> all = parts_.host();
    return {all.begin(), all.begin() + n_latents()};
  }
  std::vector<float> states() const {
    const std::vector<float> all = parts_.host();
    return {all.begin() + n_latents(), all.end()};
  }
  int n_splits() const {
    return static_cast<int>(parts_.size() /
                            static_cast<std::size_t>(p_.rows * p_.s.n_heads * (p_.s.kv_lora + 2)));
  }

 private:
  std::ptrdiff_t n_latents() const { return static_cast<std::ptrdiff_t>(out_.size()) * n_splits(); }
  static std::vector<int> positions(const AttentionProblem& p) {
    std::vector<int> out;
    for (int r = 0; r < p.rows; ++r) out.push_back(p.last - p.rows + 1 + r);
    return out;
  }
  const AttentionProblem& p_;
  bool half_, splits_;
  DeviceArray<float> q_;
  DeviceArray<std::uint16_t> cache_;
  DeviceArray<std::uint16_t*> caches_;
  DeviceArray<int> position_;
  DeviceArray<float> parts_, out_;
};

// ASSAY_TEST_LAUNCHES: how many of each, for a machine that has the time.
int n_launches() {
  const char* n = std::getenv("ASSAY_TEST_LAUNCHES");
  return n != nullptr ? std::atoi(n) : 200;
}

// Splits of more tiles than there are stages, of halves and not; more clusters than are there at
// once, and as many. What it is for was seen once, while others had the GPU too: alone on a GPU it
// has never failed (docs/performance.md).
TEST_F(Cuda, AttentionsBitsAreTheSameEveryTime) {
  if (under_racecheck()) GTEST_SKIP() << "AttentionsBitsDependOnTheKeysAlone has racecheck's sizes";
  ASSERT_GT(n_launches(), 0)
      << "ASSAY_TEST_LAUNCHES is no count: without a launch nothing is tested";
  constexpr int kBetweenLooks = 4;  // launches, of which one overlaps the end of the one before
  Random random(21);
  for (const int n_heads : {64, 72})
    for (const int n_rows : {1, 3})
      for (const bool half : {false, true}) {
        const AttentionProblem p({512, 64, n_heads}, n_rows, 9 * mla_run_limit(n_heads) + 5,
                                 random);
        const std::vector<float> expected =
            p.computed({}, {.splits = false, .runs = false, .half = half});
        for (const bool splits : {false, true}) {
          const Repeated attention(p, half, splits);
          attention.launch();
          ASSERT_EQ(attention.out(), expected) << n_heads << " heads, the first launch";
          const std::vector<float> latents = attention.latents(), states = attention.states();
          for (int i = 0; i < n_launches(); i += kBetweenLooks) {
            for (int j = 0; j < kBetweenLooks; ++j) attention.launch();
            const std::vector<float> got = attention.out();
            if (std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) == 0) continue;
            ADD_FAILURE() << n_heads << " heads, " << n_rows << " rows, " << p.last + 1 << " keys"
                          << (half ? ", halves" : "") << (splits ? ", splits" : "") << ", launch "
                          << i + kBetweenLooks << ":\n"
                          << differences(got, expected, n_heads, 1, p.s.kv_lora)
                          << "\nof splits' latents: "
                          << differences(attention.latents(), latents, n_heads,
                                         attention.n_splits(), p.s.kv_lora)
                          << "\nof splits' states: "
                          << differences(attention.states(), states, n_heads, attention.n_splits(),
                                         2);
            break;
          }
        }
      }
}

}  // namespace
}  // namespace assay::kernels
