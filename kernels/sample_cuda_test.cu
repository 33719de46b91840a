// Samples on a GPU against sample_reference.cc: exact where every sum is, else within the rounding
// of sums, and at edges. Need a GPU; say so and skip where there is none.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/rng.h"
#include "kernels/cuda_testing.cuh"
#include "kernels/fresh_seed_testing.h"
#include "kernels/sample_cuda.h"

namespace assay::kernels {
namespace {

using Logits = std::vector<float>;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

// `of_rows`: the row of each request; none: its own.
std::vector<Sampled> on_device(const std::vector<Logits>& rows,
                               const std::vector<SampleRequest>& requests,
                               const std::vector<int>& of_rows = {}) {
  Logits all;
  for (const Logits& row : rows) all.insert(all.end(), row.begin(), row.end());
  const DeviceArray<float> logits(all);
  const CudaStreamOwner stream;
  DeviceBudget budget(DeviceBudget::Mode::kAllocate);
  CudaSampler sampler(static_cast<int>(rows[0].size()), static_cast<int>(requests.size()), budget);
  sampler.prepare(requests, of_rows, stream.get());
  sampler.launch(logits.data(), stream.get());
  synchronise(stream.get());
  // Whatever is not written shows.
  const Sampled poison{-7, kNan, {{-7, kNan}}, {kNan, kNan}, DrawPlace{.total = -7}};
  std::vector<Sampled> out(requests.size(), poison);
  sampler.collect(out);
  return out;
}
Sampled on_device(const Logits& row, const SampleRequest& request) {
  return on_device(std::vector<Logits>{row}, std::vector<SampleRequest>{request})[0];
}

// Near a language model's: a few likely tokens over a wide tail.
Logits random_logits(int vocab, std::uint64_t seed) {
  Logits out;
  for (int i = 0; i < vocab; ++i) {
    const double a = uniform_at(seed, 1, static_cast<std::uint64_t>(i)),
                 b = uniform_at(seed, 2, static_cast<std::uint64_t>(i));
    out.push_back(static_cast<float>(6 * (a + b - 1) - 2 * std::log(1 - a * b)));
  }
  return out;
}

void expect_same_place(const std::optional<DrawPlace>& a, const std::optional<DrawPlace>& b,
                       double bound) {
  ASSERT_EQ(a.has_value(), b.has_value());
  if (!a) return;
  const auto expect_near = [&](double x, double y) { EXPECT_LE(std::abs(x - y), bound * y); };
  ASSERT_EQ(a->is_kept, b->is_kept);
  EXPECT_EQ(a->exponent, b->exponent);
  EXPECT_EQ(a->weight, b->weight);
  expect_near(a->total, b->total);
  EXPECT_LE(std::abs(a->above - b->above), bound * b->total);
  for (std::size_t i = 0; i < b->of_power.size(); ++i) expect_near(a->of_power[i], b->of_power[i]);
}

// Two sums of n positive terms, in whatever order, differ by less than 2 n · 2^-53 of their size;
// log probabilities then by as much, and by the step to the next float where that decides how they
// are rounded.
void expect_close(const Sampled& device, const Sampled& host, int vocab, const std::string& what) {
  SCOPED_TRACE(what);
  const double bound = 2.0 * vocab * 0x1p-53;
  const auto near = [&](float a, float b) {
    return std::abs(static_cast<double>(a) - static_cast<double>(b)) <=
           bound + 0x1p-23 * std::abs(static_cast<double>(b));
  };
  ASSERT_EQ(device.id, host.id);
  EXPECT_PRED2(near, device.logprob, host.logprob);
  ASSERT_EQ(device.top.size(), host.top.size());
  for (std::size_t i = 0; i < host.top.size(); ++i) {
    ASSERT_EQ(device.top[i].first, host.top[i].first) << i;
    EXPECT_PRED2(near, device.top[i].second, host.top[i].second) << i;
  }
  ASSERT_EQ(device.watched_probability.size(), host.watched_probability.size());
  for (std::size_t i = 0; i < host.watched_probability.size(); ++i)
    EXPECT_PRED2(near, device.watched_probability[i], host.watched_probability[i]) << i;
  expect_same_place(device.place, host.place, bound);
}

// The same bits throughout.
void expect_equal(const Sampled& a, const Sampled& b, const std::string& what) {
  SCOPED_TRACE(what);
  ASSERT_EQ(a.id, b.id);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(a.logprob), std::bit_cast<std::uint32_t>(b.logprob));
  EXPECT_EQ(a.top, b.top);
  EXPECT_EQ(a.watched_probability, b.watched_probability);
  expect_same_place(a.place, b.place, 0);
}

const std::vector<int> kWatched = {4, 0, 2};
constexpr SampleKey kKey = {.seed = 11, .stream = 22, .position = 33};

using SampleCuda = Cuda;

// Weights are 1 or nothing and the vocabulary a power of two, so every sum is exact.
TEST_F(SampleCuda, IsExactWhereSumsAre) {
  for (const int vocab : sizes({8, 1024, 2048, 4096, 16384}, {8, 4096})) {
    Logits equal(static_cast<std::size_t>(vocab), 0.0f), half = equal;
    equal[3] = -0.0f;  // equal to 0, so between its neighbours by id
    for (std::size_t i = 0; i < half.size(); i += 2) half[i] = -2000;
    for (const Logits& logits : {equal, half})
      for (const SamplingParams& params :
           {SamplingParams{}, SamplingParams{.temperature = 1},
            SamplingParams{.temperature = 0.5, .top_k = 4},
            SamplingParams{.temperature = 2, .top_p = 0.5},
            SamplingParams{.temperature = 1, .min_p = 1},
            SamplingParams{.temperature = 1, .top_p = 0.25, .top_k = vocab / 2, .min_p = 0.5}}) {
        std::vector<SampleRequest> requests;
        for (std::uint64_t position = 0; position < (under_racecheck() ? 2 : 8); ++position)
          requests.push_back({.params = params,
                              .key = {.seed = 1, .position = position},
                              .n_top = 6,
                              .watched = kWatched});
        const auto device = on_device(std::vector<Logits>(requests.size(), logits), requests);
        for (std::size_t i = 0; i < requests.size(); ++i)
          expect_equal(
              device[i], sample(logits, requests[i]),
              std::to_string(vocab) + " tokens, temperature " + std::to_string(params.temperature));
      }
  }
}

TEST_F(SampleCuda, TiesGoToTheLowestId) {
  Logits logits(5000, -1.0f);
  for (const std::size_t i : {4999u, 2047u, 2048u, 4096u, 17u}) logits[i] = 2;
  const Sampled s = on_device(logits, {.n_top = 7});
  EXPECT_EQ(s.id, 17);
  std::vector<int> ids;
  for (const auto& [id, logprob] : s.top) ids.push_back(id);
  EXPECT_EQ(ids, (std::vector{17, 2047, 2048, 4096, 4999, 0, 1}));
}

TEST_F(SampleCuda, IsWithinTheRoundingOfSums) {
  const std::vector<SamplingParams> all = {
      {},
      {.temperature = 1},
      {.temperature = 0.6},
      {.temperature = 1.7, .top_p = 0.95},
      {.temperature = 1, .top_p = 0.95},
      {.temperature = 0.6, .top_p = 0.5, .top_k = 40},
      {.temperature = 1, .top_k = 3000, .min_p = 0.001},
      {.temperature = 1.3, .min_p = 0.05},
      {.repetition_penalty = 1.3},
      {.temperature = 1, .top_p = 0.9, .repetition_penalty = 1.1},
      {.temperature = 0.8, .repetition_penalty = 0.7}};
  const std::uint64_t seed = fresh_seed();
  const int any = 2 + static_cast<int>(seed % 20000);
  for (const int vocab : sizes({5, 2047, 2049, 3072, 154880, any}, {2049})) {
    const Logits logits = random_logits(vocab, seed + static_cast<std::uint64_t>(vocab));
    std::vector<int> history = {-1, vocab, 1 << 30, 3, 3, 0};  // twice, and nobody's
    for (int i = 0; i < vocab; i += 3) history.push_back(i);
    std::vector<SampleRequest> requests;
    for (const SamplingParams& params : all)
      for (std::uint64_t position = 0; position < 3; ++position)
        requests.push_back({.params = params,
                            .key = {.seed = seed, .stream = 7, .position = position},
                            .history = history,
                            .n_top = kMaxTop,
                            .watched = kWatched});
    const auto device = on_device(std::vector<Logits>(requests.size(), logits), requests);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const Sampled host = sample(logits, requests[i]);
      expect_close(device[i], host, vocab,
                   std::to_string(vocab) + " tokens, request " + std::to_string(i));
      // No interval's edge so near u that rounding could decide: the test's own condition.
      if (!host.place) continue;
      const double u = uniform_at(seed, 7, requests[i].key.position),
                   low = host.place->above / host.place->total,
                   high = low + host.place->weight / host.place->total;
      EXPECT_GT(std::min(std::abs(u - low), std::abs(u - high)), 4.0 * vocab * 0x1p-53);
      EXPECT_TRUE(low <= u && u < high) << low << " " << u << " " << high;
    }
  }
}

TEST_F(SampleCuda, ARowsBitsDoNotDependOnItsBatch) {
  constexpr int kVocab = 6000;
  const std::uint64_t n_rows = under_racecheck() ? 26 : 40;
  const std::uint64_t seed = fresh_seed();
  std::vector<Logits> rows;
  std::vector<SampleRequest> requests;
  const std::vector<int> history = {1, 2, 3, 5, 8, 5999};
  for (std::uint64_t i = 0; i < n_rows; ++i) {
    rows.push_back(random_logits(kVocab, seed + i));
    requests.push_back({.params = {.temperature = i % 3 == 0 ? 0 : 0.5 + 0.1 * double(i % 7),
                                   .top_p = i % 4 == 0 ? 1 : 0.9,
                                   .repetition_penalty = i == 16 ? 1.2 : 1},
                        .key = {.seed = i, .stream = i, .position = i},
                        .history = history,
                        .n_top = static_cast<int>(i % 5),
                        .watched = std::span(kWatched).first(i % 4)});
  }
  const auto together = on_device(rows, requests);
  for (std::size_t i = 0; i < rows.size(); ++i)
    expect_equal(on_device(rows[i], requests[i]), together[i], "row " + std::to_string(i));
}

// Rows out of order, one asked for twice, and one of NaN that nobody asks for.
TEST_F(SampleCuda, ARequestReadsTheRowThatItNames) {
  constexpr int kVocab = 5000;
  const std::vector<Logits> rows = {random_logits(kVocab, 1), Logits(kVocab, kNan),
                                    random_logits(kVocab, 2), random_logits(kVocab, 3)};
  const std::vector<int> of_rows = {3, 0, 2, 0, 3}, history = {1, 5, 4000};
  std::vector<SampleRequest> requests;
  for (std::size_t i = 0; i < of_rows.size(); ++i)
    requests.push_back({.params = {.temperature = i % 2 == 0 ? 1.0 : 0.0,
                                   .top_p = 0.95,
                                   .repetition_penalty = i == 2 ? 1.3 : 1.0},
                        .key = {.position = i},
                        .history = history,
                        .n_top = 3});
  const auto got = on_device(rows, requests, of_rows);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const Sampled alone = on_device(rows[static_cast<std::size_t>(of_rows[i])], requests[i]);
    EXPECT_GE(got[i].id, 0) << i;
    expect_equal(got[i], alone, "request " + std::to_string(i));
  }
}

TEST_F(SampleCuda, ALogitThatIsNotFiniteEndsItsRowAlone) {
  for (const float bad : {kNan, kInf, -kInf})
    for (const std::size_t at : sizes({0u, 2047u, 2048u, 4999u}, {2048u}))
      for (const double temperature : {0.0, 1.0}) {
        const Logits good = random_logits(5000, 1);
        Logits spoilt = good;
        spoilt[at] = bad;
        const SampleRequest request{
            .params = {.temperature = temperature}, .key = kKey, .n_top = 3, .watched = kWatched};
        const auto both = on_device({spoilt, good}, {request, request});
        EXPECT_EQ(both[0].id, -1) << bad << " at " << at;
        EXPECT_TRUE(both[0].top.empty() && both[0].watched_probability.empty());
        EXPECT_FALSE(both[0].place.has_value());
        expect_close(both[1], sample(good, request), 5000, "its neighbour");
      }
  const Logits none(5000, kNan);
  EXPECT_EQ(on_device(none, {.params = {.temperature = 1}, .n_top = 2}).id, -1);
}

TEST_F(SampleCuda, FiltersAtTheirLimits) {
  const Logits logits = random_logits(4100, 3), one = {0.5f};
  for (const SamplingParams& params :
       {SamplingParams{.temperature = 1, .top_p = 0}, SamplingParams{.temperature = 1, .top_k = 1},
        SamplingParams{.temperature = 1, .min_p = 2}, SamplingParams{.temperature = 1e-3},
        SamplingParams{.temperature = 1, .top_p = 1e-12, .top_k = 1 << 30},
        SamplingParams{.temperature = 100, .top_p = 1 - 0x1p-53}})
    for (const Logits& row : {logits, one}) {
      const std::vector<int> watched = {0};
      const SampleRequest request{.params = params, .key = kKey, .n_top = 64, .watched = watched};
      expect_close(on_device(row, request), sample(row, request), static_cast<int>(row.size()),
                   "temperature " + std::to_string(params.temperature));
    }
}

TEST_F(SampleCuda, ASamplerAnswersStepAfterStepFromMemoryThatItSaidItWouldTake) {
  const Logits logits = random_logits(3072, 9);
  DeviceBudget counted(DeviceBudget::Mode::kCount), budget(DeviceBudget::Mode::kAllocate);
  const std::size_t before = n_cuda_allocations();
  const CudaSampler plan(3072, 20, counted);
  EXPECT_EQ(n_cuda_allocations(), before) << "counting allocates nothing";
  CudaSampler sampler(3072, 20, budget);
  EXPECT_EQ(budget.n_bytes(), counted.n_bytes());
  EXPECT_GT(budget.n_bytes(), std::size_t{16} * 3072 * 24) << "what 16 rows are sorted in";
  const CudaStreamOwner stream;
  for (const std::size_t n : {1u, 3u, 20u, 2u}) {
    Logits all;
    std::vector<SampleRequest> requests;
    for (std::size_t i = 0; i < n; ++i) {
      all.insert(all.end(), logits.begin(), logits.end());
      requests.push_back({.params = {.temperature = i % 2 == 0 ? 1.0 : 0.0},
                          .key = {.position = n * 100 + i},
                          .n_top = 2});
    }
    const DeviceArray<float> device(all);
    const std::size_t taken = n_cuda_allocations();
    sampler.prepare(requests, {}, stream.get());
    sampler.launch(device.data(), stream.get());
    synchronise(stream.get());
    EXPECT_EQ(n_cuda_allocations(), taken);
    std::vector<Sampled> out(n);
    sampler.collect(out);
    for (std::size_t i = 0; i < n; ++i)
      expect_close(out[i], sample(logits, requests[i]), 3072, std::to_string(i));
  }
}

}  // namespace
}  // namespace assay::kernels
