// Attention over the latent cache on a GPU: one decoded row (GLM-5.2's and micro-glm's shapes, all
// keys and a sparse selection), and a chunk of a prompt.
#include <memory>
#include <string>
#include <vector>

#include "kernels/bench/bench_data.h"
#include "kernels/bench/cuda_bench.h"
#include "kernels/bench/cuda_registry.h"
#include "kernels/mla_attention.h"
#include "kernels/mla_attention_cuda.h"

namespace assay::kernels {
namespace {

struct Shape {
  const char* name;
  int n_heads, kv_lora, rope;
  int width() const { return kv_lora + rope; }
};
constexpr Shape kGlm = {"glm-5.2", 64, 512, 64}, kMicro = {"micro-glm", 6, 128, 32};
constexpr Shape kHalfOfGlm = {"glm-5.2/heads:32", 32, 512, 64};  // what one of two ranks has

// As many heads as the reference has patience for.
std::vector<int> checked_heads(int n_heads) {
  std::vector<int> heads;
  for (int h = 0; h < n_heads; h += 16) heads.push_back(h);
  heads.push_back(n_heads - 1);
  return heads;
}

// The last n_rows positions of one sequence of n_keys; chosen: of as many keys only, every n-th.
void attention_on(benchmark::State& state, const Shape& s, int n_rows, int n_keys, int n_chosen,
                  bool half) {
  const auto count = [](auto... n) { return (static_cast<std::size_t>(n) * ...); };
  const std::size_t cache_values = count(n_keys, 2, s.width());
  // As many caches as no second-level cache holds. Of values that binary16 holds: low halves are 0.
  // (An iteration launches once for each: not too many small ones.)
  const int n_caches =
      n_rows > 1
          ? 1
          : static_cast<int>(std::min(kDeviceWorkingSet / (cache_values * 2), std::size_t{255})) +
                1;
  std::vector<std::uint16_t> values(cache_values);
  std::vector<float> kv(count(n_keys, s.width()));
  for (std::size_t i = 0; i < kv.size(); ++i) {
    const std::size_t at =
        i / static_cast<std::size_t>(s.width()) * 2 * static_cast<std::size_t>(s.width()) +
        i % static_cast<std::size_t>(s.width());
    values[at] = static_cast<std::uint16_t>(0x3000 + i * 2654435761u % 0x800);  // 1/8 … 1/2
    values[at + static_cast<std::size_t>(s.width())] = 0;
    kv[i] =
        std::ldexp(1.0f + static_cast<float>(values[at] & 0x3FF) / 1024, (values[at] >> 10) - 15);
  }
  std::vector<DeviceArray<std::uint16_t>> caches;
  for (int i = 0; i < n_caches; ++i) caches.emplace_back(values);
  std::vector<DeviceArray<std::uint16_t*>> pointers;
  for (const auto& c : caches)
    pointers.emplace_back(std::vector<std::uint16_t*>(static_cast<std::size_t>(n_rows), c.data()));
  std::vector<int> positions, run, keys, n_of(static_cast<std::size_t>(n_rows), n_chosen);
  for (int r = 0; r < n_rows; ++r) positions.push_back(n_keys - n_rows + r);
  for (int r = 0; r < n_rows; r += mla_rows_of_run(s.n_heads)) run.push_back(r);
  const int n_runs = static_cast<int>(run.size());
  run.push_back(n_rows);
  for (int r = 0; r < n_rows; ++r)
    for (int i = 0; i < n_chosen; ++i) keys.push_back(i * ((n_keys - n_rows + 1) / n_chosen));
  const std::vector<float> q = bench_floats(count(n_rows, s.n_heads, s.width()), 1);
  const DeviceArray<float> dq(q), out(std::vector<float>(count(n_rows, s.n_heads, s.kv_lora), NAN));
  const DeviceArray<int> d_positions(positions), d_run(run), d_keys(keys), d_n(n_of);
  const int seen = n_chosen > 0 ? n_chosen : n_keys;
  const bool runs = n_rows > 1 && n_chosen == 0;
  const std::size_t n_parts =
      mla_parts(n_rows, runs ? n_runs : n_rows, s.n_heads, s.kv_lora, s.rope, seen);
  const DeviceArray<float> parts(std::max<std::size_t>(1, n_parts));
  const float scale = 1 / std::sqrt(static_cast<float>(s.width()));
  const auto launch = [&](int i, CudaStream stream) {
    mla_attention_cuda({.q = dq.data(),
                        .cache = pointers[static_cast<std::size_t>(i)].data(),
                        .position = d_positions.data(),
                        .keys = n_chosen > 0 ? d_keys.data() : nullptr,
                        .n_keys = d_n.data(),
                        .keys_stride = n_chosen,
                        .run = runs ? d_run.data() : nullptr,
                        .n_runs = n_runs,
                        .n_rows = n_rows,
                        .n_heads = s.n_heads,
                        .kv_lora = s.kv_lora,
                        .rope = s.rope,
                        .scale = scale,
                        .max_keys = seen,
                        .half = half,
                        .parts = n_parts > 0 ? parts.data() : nullptr,
                        .out = out.data()},
                       stream);
  };
  launch(0, nullptr);
  // Of the last row: a head of each block of a cluster that weighs, and the last of all.
  const std::vector<int> heads = checked_heads(s.n_heads);
  const std::string what = std::string(s.name) + "/" + std::to_string(n_rows) + "/" +
                           std::to_string(n_keys) + "/" + std::to_string(n_chosen);
  const std::vector<float>& expected = kept<std::vector<float>>("attention/" + what, [&] {
    auto all = std::make_unique<std::vector<float>>(count(heads.size(), s.kv_lora));
    for (std::size_t i = 0; i < heads.size(); ++i)
      mla_attention_reference(
          {.q = &q[count(count(n_rows - 1, s.n_heads) + static_cast<std::size_t>(heads[i]),
                         s.width())],
           .kv = kv.data(),
           .keys = n_chosen > 0 ? keys.data() : nullptr,
           .n_keys = seen,
           .n_heads = 1,
           .kv_lora = s.kv_lora,
           .rope = s.rope,
           .scale = scale,
           .out = &(*all)[count(i, s.kv_lora)]});
    return all;
  });
  const std::vector<float> all = out.host();
  std::vector<float> got;
  for (const int head : heads) {
    const float* of_head =
        &all[count(count(n_rows - 1, s.n_heads) + static_cast<std::size_t>(head), s.kv_lora)];
    got.insert(got.end(), of_head, of_head + s.kv_lora);
  }
  if (!(relative_error(expected, got) < (half ? 1e-2 : 1e-4))) {
    state.SkipWithError("wrong result");
    return;
  }
  const double bytes = static_cast<double>(seen) * s.width() * (half ? 2 : 4);
  time_launches(state, n_caches, bytes, 0, launch);
  state.counters["FMA/s"] =
      benchmark::Counter(static_cast<double>(n_rows) * s.n_heads * seen * (s.width() + s.kv_lora),
                         benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace

void register_mla_attention_cuda_benchmarks() {
  const auto add = [](const Shape& s, int n_rows, int n_keys, int n_chosen) {
    for (const bool half : {false, true}) {
      const std::string name = "mla_attention_cuda/" + std::string(s.name) +
                               (half ? "/half" : "/f32") + "/rows:" + std::to_string(n_rows) +
                               "/keys:" + std::to_string(n_keys) +
                               (n_chosen > 0 ? "/chosen:" + std::to_string(n_chosen) : "");
      add_cuda_benchmark(name, [=](benchmark::State& state) {
        attention_on(state, s, n_rows, n_keys, n_chosen, half);
      });
    }
  };
  for (const int n_keys : {1024, 4096, 16384, 32768}) add(kGlm, 1, n_keys, 0);
  add(kGlm, 1, 32768, 2048);
  add(kHalfOfGlm, 1, 16384, 0);
  add(kHalfOfGlm, 1, 32768, 2048);
  for (const int n_keys : {512, 4096, 16384}) add(kMicro, 1, n_keys, 0);
  add(kGlm, 512, 16384, 0);
  add(kMicro, 512, 4096, 0);
}

}  // namespace assay::kernels
