// Attention in clusters gives the same bits every time, also where a GPU is busy with more: blocks
// hand each other scores and weights through shared memory, and what one takes too late, another
// has overwritten. Needs a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/every_time_testing.cuh"
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
        out_(poisoned(static_cast<std::size_t>(p.rows * p.s.n_heads * p.s.kv_lora))) {
    launch();
    watched_.emplace(out_, &parts_);
  }
  Repeated(const Repeated&) = delete;  // watched_ points into it
  const std::vector<float>& expected() const { return watched_->expected(); }

  // The n-th time, and a time before it, whose end it overlaps.
  void launch_and_look(int n) {
    launch();
    launch();
    watched_->look(n);
  }
  // Nothing, or how many differ and where the first does: in the output, in splits' latents, and in
  // their states, which are the largest scores and sums.
  std::string found() const {
    const std::string launches = watched_->bad_launches();
    if (launches.empty()) return {};
    const int kv_lora = p_.s.kv_lora, n_heads = p_.s.n_heads;
    const std::vector<float> parts = watched_->first_beside(),
                             should_be = watched_->expected_beside();
    const auto n_splits = static_cast<int>(
        parts.size() / static_cast<std::size_t>(p_.rows * n_heads * (kv_lora + 2)));
    const auto latents = static_cast<std::ptrdiff_t>(out_.size()) * n_splits;
    const auto head = [&](const std::vector<float>& v) {
      return std::vector<float>(v.begin(), v.begin() + latents);
    };
    const auto tail = [&](const std::vector<float>& v) {
      return std::vector<float>(v.begin() + latents, v.end());
    };
    return launches + differences(watched_->first_bad(), expected(), n_heads, 1, kv_lora) +
           "\nof splits' latents: " +
           differences(head(parts), head(should_be), n_heads, n_splits, kv_lora) +
           "\nof splits' states: " +
           differences(tail(parts), tail(should_be), n_heads, n_splits, 2);
  }

 private:
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
  std::optional<Watched> watched_;
};

// Splits of more tiles than there are stages, of halves and not; more clusters than are there at
// once, and as many. Alone on a GPU this has never failed: every_time_cuda_test.cu runs it beside
// others.
TEST_F(Cuda, AttentionsBitsAreTheSameEveryTime) {
  if (under_racecheck()) GTEST_SKIP() << "AttentionsBitsDependOnTheKeysAlone has racecheck's sizes";
  Random random(21);
  for (const int n_heads : {64, 72})
    for (const int n_rows : {1, 3})
      for (const bool half : {false, true}) {
        const AttentionProblem p({512, 64, n_heads}, n_rows, 9 * mla_run_limit(n_heads) + 5,
                                 random);
        const std::vector<float> expected =
            p.computed({}, {.splits = false, .runs = false, .half = half});
        for (const bool splits : {false, true}) {
          Repeated attention(p, half, splits);
          ASSERT_EQ(attention.expected(), expected) << n_heads << " heads, the first launch";
          for (int i = 1; i <= n_launches(); ++i) attention.launch_and_look(i);
          const std::string found = attention.found();
          EXPECT_EQ(found, "") << n_heads << " heads, " << n_rows << " rows, " << p.last + 1
                               << " keys" << (half ? ", halves" : "") << (splits ? ", splits" : "");
        }
      }
}

}  // namespace
}  // namespace assay::kernels
