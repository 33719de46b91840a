#include "harness/cli/bench_roof.h"

#include <algorithm>
#include <vector>

#include "kernels/roof.h"

namespace assay::cli {
namespace {

using engine::DeviceRoof;
using engine::EngineInfo;

kernels::TokenReads reads_of(const EngineInfo& e) {
  const int n_experts = std::max(1, e.n_moe_layers * e.n_experts);
  const auto expert = static_cast<std::size_t>(e.routed_bytes / n_experts);
  const auto drawn = static_cast<std::size_t>(e.n_moe_layers * e.n_experts_per_token) * expert;
  return {.always_bytes = static_cast<std::size_t>(e.active_bytes) - drawn,
          .expert_bytes = expert,
          .n_layers = e.n_moe_layers,
          .n_experts = e.n_experts,
          .n_experts_per_token = e.n_experts_per_token};
}

DecodeRoof host_decode_roof(const EngineInfo& info, ThreadPool& pool, int n) {
  const auto active = static_cast<std::size_t>(info.active_bytes);
  return {.per_s = kernels::read_bytes_per_s(pool, active, n) / static_cast<double>(active),
          .token_reads_per_s = kernels::token_reads_per_s(pool, reads_of(info), n),
          .text = fmt::format("{}-thread read of the {:.1f} MB active per token", pool.n_threads(),
                              static_cast<double>(active) / 1e6)};
}

}  // namespace

DecodeRoof device_decode_roof(const EngineInfo& info, std::span<const DeviceRoof> roofs, int n_keys,
                              int n) {
  double longest_s = 0, bytes = 0, weights = 0;
  for (const DeviceRoof& roof : roofs) {
    double of_tokens = 0;
    for (int i = 0; i < n; ++i) of_tokens += info.decode_bytes(roof.token, n_keys + i);
    const double s = of_tokens / n / roof.read_bytes_per_s;
    if (s <= longest_s) continue;
    longest_s = s;
    bytes = of_tokens / n;
    weights = info.decode_bytes(roof.token, n_keys) - info.cache_bytes(roof.token, n_keys);
  }
  return {.per_s = 1 / longest_s,
          .text = fmt::format("read of the {:.1f} MB that a token needs{}", bytes / 1e6,
                              roofs.size() > 1 ? " on the GPU that reads longest" : " on the GPU"),
          .bytes = {{"weights", weights}, {"cache", bytes - weights}}};
}

double device_prefill_per_s(const EngineInfo& info, std::span<const DeviceRoof> roofs, int n) {
  double fma_per_s = 0;
  for (const DeviceRoof& roof : roofs) fma_per_s += roof.half_fma_per_s;
  return n * fma_per_s / info.prefill_fma(0, n);
}

Roof::Roof(const engine::Engine& engine, int n_devices)
    : engine_(&engine),
      n_devices_(n_devices),
      pool_(n_devices == 0 ? std::make_unique<ThreadPool>(engine.info().n_threads) : nullptr) {}

Result<Roof> Roof::of(const engine::Engine& engine) {
  ASSAY_TRY(const std::vector<DeviceRoof> roofs, engine.measure_roofs());
  return Roof(engine, static_cast<int>(roofs.size()));
}

Result<double> Roof::prefill_per_s(int n) {
  const EngineInfo& info = engine_->info();
  if (n_devices_ == 0) return n * kernels::peak_fma_per_s(*pool_, 2) / info.prefill_fma(0, n);
  ASSAY_TRY(const std::vector<DeviceRoof> roofs, engine_->measure_roofs());
  return device_prefill_per_s(info, roofs, n);
}

Result<DecodeRoof> Roof::decode_per_s(int n_keys, int n) {
  if (n_devices_ == 0) return host_decode_roof(engine_->info(), *pool_, n);
  ASSAY_TRY(const std::vector<DeviceRoof> roofs, engine_->measure_roofs());
  return device_decode_roof(engine_->info(), roofs, n_keys, n);
}

std::string Roof::prefill_text() const {
  if (n_devices_ == 0) return "peak f32 FMA rate";
  return n_devices_ == 1 ? "16-bit FMA rate of the GPU's tensor cores"
                         : fmt::format("16-bit FMA rate of {} GPUs' tensor cores", n_devices_);
}

std::string Roof::of_text() const {
  return n_devices_ == 0 ? "this machine's" : n_devices_ == 1 ? "the GPU's" : "the GPUs'";
}

}  // namespace assay::cli
