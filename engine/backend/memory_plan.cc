#include "engine/backend/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>

namespace assay::engine {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kMargin = 256 * kMiB;  // that the driver takes for kernels and their stacks
constexpr int kMostGridRows = 65535;         // a grid's second dimension

std::string size_text(std::size_t bytes) {
  const double mib = static_cast<double>(bytes) / static_cast<double>(kMiB);
  return mib < 1024 ? fmt::format("{:.1f} MiB", mib) : fmt::format("{:.1f} GiB", mib / 1024);
}

std::size_t available(const DeviceRoom& device) {
  return device.free_bytes - std::min(device.free_bytes, device.promised_bytes);
}

std::string free_text(const DeviceRoom& device) {
  std::string text =
      fmt::format("{} of {} are free", size_text(device.free_bytes), size_text(device.total_bytes));
  if (device.promised_bytes > 0)
    text += fmt::format(", {} of them planned for engines of other models here",
                        size_text(device.promised_bytes));
  return text;
}

}  // namespace

std::string MemoryPlan::text() const {
  return fmt::format(
      "weights {}{}scratch {}, caches {} ({} tokens)", size_text(weight_bytes),
      n_executors == 1 ? ", " : fmt::format(", and each of {} engines: ", n_executors),
      size_text(scratch_bytes), size_text(cache_bytes), limits.cache_tokens);
}

std::size_t MemoryPlan::executor_bytes() const {
  return limits.graph_bytes + scratch_bytes + cache_bytes;
}

Result<void> fit_weights(std::size_t weight_bytes, const DeviceRoom& device) {
  if (weight_bytes + kMargin <= available(device)) return {};
  return fail(
      "the weights need {} on the GPU, with a margin for the driver {}, but of {} {}: use a larger "
      "or an emptier one, or more of them (--tp)",
      size_text(weight_bytes), size_text(weight_bytes + kMargin), device.name, free_text(device));
}

Result<MemoryPlan> fit(MemoryPlan plan, int n_contexts, std::size_t bytes_per_token, int grain,
                       const DeviceRoom& device) {
  const auto n = static_cast<std::size_t>(plan.n_executors), unit = static_cast<std::size_t>(grain),
             context = (static_cast<std::size_t>(plan.limits.n_positions) + unit - 1) / unit * unit,
             least = context * bytes_per_token,
             need = kMargin + plan.sum_bytes +
                    n * (plan.limits.graph_bytes + plan.scratch_bytes + least);
  if (need > available(device))
    return fail(
        "the memory of {} does not suffice: beside the weights ({}, which are there) {} engine{} "
        "need{} {} of scratch and {} of cache (one context of {} tokens){}{}, with a margin for "
        "the driver {} together, but {}: ask for a shorter --context, fewer --threads, "
        "a smaller --prefill-chunk or more GPUs (--tp), or use a larger or an emptier GPU",
        device.name, size_text(plan.weight_bytes), n, n == 1 ? "" : "s", n == 1 ? "s" : "",
        size_text(plan.scratch_bytes), size_text(least), plan.limits.n_positions,
        n == 1 ? "" : " each",
        plan.sum_bytes == 0 ? "" : fmt::format(" and {} to gather sums", size_text(plan.sum_bytes)),
        size_text(need), free_text(device));
  const std::size_t free = available(device) - plan.sum_bytes, share = free / 2 / n,
                    room = share > plan.scratch_bytes ? share - plan.scratch_bytes : 0,
                    tokens = std::clamp(room / bytes_per_token / unit * unit, context,
                                        context * static_cast<std::size_t>(n_contexts));
  plan.limits.cache_tokens = static_cast<int>(tokens);
  plan.cache_bytes = tokens * bytes_per_token;
  return plan;
}

tl::unexpected<Error> gone(std::size_t need_bytes, const DeviceRoom& device) {
  return fail(
      "an engine needs {} of the memory of {}, as it was planned, but now {}: another process has "
      "taken some of it since, or more engines are in use than were planned. Wait for it or stop "
      "it, and begin again; or ask for a shorter --context, fewer --threads or an emptier GPU",
      size_text(need_bytes), device.name, free_text(device));
}

tl::unexpected<Error> no_pinned_memory(std::size_t n_bytes) {
  return fail(
      "the driver could not pin {} of this machine's memory, which copies to and from the GPU go "
      "through: free host memory, or raise the limit of the container or job (memory, locked "
      "memory: ulimit -l), and begin again",
      size_text(n_bytes));
}

Result<void> check_chunk(int n_tokens, int n_sequences, int experts_per_token) {
  const int most = kMostGridRows / experts_per_token - n_sequences;
  if (n_tokens <= most) return {};
  return fail(
      "prompts are to be read {} tokens at a time, backend cuda takes at most {}{}: ask for "
      "--prefill-chunk {} or less",
      n_tokens, most,
      experts_per_token == 1
          ? ""
          : fmt::format(" of a model with {} experts a token", experts_per_token),
      most);
}

}  // namespace assay::engine
