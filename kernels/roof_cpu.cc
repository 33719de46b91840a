#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/roof_cpu.cc"
#include <hwy/foreach_target.h>
//
#include <hwy/highway.h>

#include "kernels/roof.h"

HWY_BEFORE_NAMESPACE();
namespace assay::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Sum of the 32-bit words: one load and one add per vector, eight chains.
std::uint32_t read_all(const std::uint32_t* data, std::size_t n_words) {
  const hn::ScalableTag<std::uint32_t> d;
  const std::size_t lanes = hn::Lanes(d);
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
  for (std::size_t i = 0; i + 8 * lanes <= n_words; i += 8 * lanes) {
    s0 = hn::Add(s0, hn::LoadU(d, data + i));
    s1 = hn::Add(s1, hn::LoadU(d, data + i + lanes));
    s2 = hn::Add(s2, hn::LoadU(d, data + i + 2 * lanes));
    s3 = hn::Add(s3, hn::LoadU(d, data + i + 3 * lanes));
    s4 = hn::Add(s4, hn::LoadU(d, data + i + 4 * lanes));
    s5 = hn::Add(s5, hn::LoadU(d, data + i + 5 * lanes));
    s6 = hn::Add(s6, hn::LoadU(d, data + i + 6 * lanes));
    s7 = hn::Add(s7, hn::LoadU(d, data + i + 7 * lanes));
  }
  s0 =
      hn::Add(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)), hn::Add(hn::Add(s4, s5), hn::Add(s6, s7)));
  return hn::GetLane(hn::SumOfLanes(d, s0));
}

// Twelve chains hide an FMA latency of up to six cycles at two per cycle. Returns a value that
// depends on all.
float run_fma(std::size_t n_rounds, std::size_t* n_fma) {
  const hn::ScalableTag<float> d;
  const auto a = hn::Set(d, 0.999f), b = hn::Set(d, 0.001f);
  auto c0 = hn::Set(d, 0.0f), c1 = hn::Set(d, 0.1f), c2 = hn::Set(d, 0.2f), c3 = hn::Set(d, 0.3f),
       c4 = hn::Set(d, 0.4f), c5 = hn::Set(d, 0.5f), c6 = hn::Set(d, 0.6f), c7 = hn::Set(d, 0.7f),
       c8 = hn::Set(d, 0.8f), c9 = hn::Set(d, 0.9f), c10 = hn::Set(d, 1.0f), c11 = hn::Set(d, 1.1f);
  for (std::size_t i = 0; i < n_rounds; ++i) {
    c0 = hn::MulAdd(c0, a, b);
    c1 = hn::MulAdd(c1, a, b);
    c2 = hn::MulAdd(c2, a, b);
    c3 = hn::MulAdd(c3, a, b);
    c4 = hn::MulAdd(c4, a, b);
    c5 = hn::MulAdd(c5, a, b);
    c6 = hn::MulAdd(c6, a, b);
    c7 = hn::MulAdd(c7, a, b);
    c8 = hn::MulAdd(c8, a, b);
    c9 = hn::MulAdd(c9, a, b);
    c10 = hn::MulAdd(c10, a, b);
    c11 = hn::MulAdd(c11, a, b);
  }
  *n_fma = n_rounds * 12 * hn::Lanes(d);
  c0 =
      hn::Add(hn::Add(hn::Add(c0, c1), hn::Add(c2, c3)), hn::Add(hn::Add(c4, c5), hn::Add(c6, c7)));
  c0 = hn::Add(c0, hn::Add(hn::Add(c8, c9), hn::Add(c10, c11)));
  return hn::GetLane(hn::SumOfLanes(d, c0));
}

}  // namespace assay::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include "base/rng.h"
#include "kernels/weight_arena.h"

namespace assay::kernels {
HWY_EXPORT(read_all);
HWY_EXPORT(run_fma);

namespace {
std::atomic<std::uint32_t> sink;  // keeps the compiler from dropping what nobody else reads

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}
}  // namespace

std::uint32_t read_words(const std::uint32_t* words, std::size_t n_words) {
  return HWY_DYNAMIC_DISPATCH(read_all)(words, n_words);
}

double read_bytes_per_s(ThreadPool& pool, std::size_t n_bytes, int n_passes) {
  const int n_parts = pool.n_threads();
  const std::size_t words = n_bytes / 4 / n_parts;
  std::vector<std::uint32_t> data(words * n_parts, 1);
  const auto pass = [&] {
    pool.parallel_for(n_parts, [&](int i) {
      sink += HWY_DYNAMIC_DISPATCH(read_all)(data.data() + words * i, words);
    });
  };
  pass();  // warms the caches
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < n_passes; ++i) pass();
  return static_cast<double>(words * n_parts * 4) * n_passes / seconds_since(start);
}

double token_reads_per_s(ThreadPool& pool, const TokenReads& r, int n_tokens) {
  const int n_parts = pool.n_threads();
  const auto words_each = [&](std::size_t bytes) {  // of one thread, in whole cache lines
    return bytes / 64 / static_cast<std::size_t>(n_parts) * 16;
  };
  const auto n_layers = static_cast<std::size_t>(std::max(1, r.n_layers));
  const std::size_t always = words_each(r.always_bytes / n_layers);
  const std::size_t expert = words_each(r.expert_bytes);
  const std::size_t layer =
      (always + expert * static_cast<std::size_t>(r.n_experts)) * static_cast<std::size_t>(n_parts);
  WeightArena arena;
  auto* data = static_cast<std::uint32_t*>(arena.allocate(4 * layer * n_layers));
  std::uint64_t n_drawn = 0;
  std::vector<std::size_t> chosen(static_cast<std::size_t>(r.n_experts_per_token));
  const auto token = [&] {
    for (std::size_t l = 0; l < n_layers; ++l) {
      for (std::size_t& e : chosen)
        e = static_cast<std::size_t>(uniform_at(1, 0, n_drawn++) * r.n_experts);
      const std::uint32_t* at = data + layer * l;
      pool.parallel_for(n_parts, [&](int i) {
        const auto part = static_cast<std::size_t>(i), parts = static_cast<std::size_t>(n_parts);
        std::uint32_t sum = HWY_DYNAMIC_DISPATCH(read_all)(at + always * part, always);
        for (const std::size_t e : chosen)
          sum += HWY_DYNAMIC_DISPATCH(read_all)(at + always * parts + expert * (e * parts + part),
                                                expert);
        sink += sum;
      });
    }
  };
  for (int i = 0; i < 8; ++i) token();  // warms the caches
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < n_tokens; ++i) token();
  return n_tokens / seconds_since(start);
}

double peak_fma_per_s(ThreadPool& pool, int n_repetitions) {
  constexpr std::size_t kRounds = 1'000'000;
  double best = 0;
  for (int rep = 0; rep <= n_repetitions; ++rep) {
    std::atomic<std::size_t> n_fma{0};
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for(pool.n_threads(), [&](int) {
      std::size_t n = 0;
      sink += static_cast<std::uint32_t>(HWY_DYNAMIC_DISPATCH(run_fma)(kRounds, &n));
      n_fma += n;
    });
    if (rep > 0) best = std::max(best, static_cast<double>(n_fma) / seconds_since(start));
  }
  return best;
}

}  // namespace assay::kernels
#endif
