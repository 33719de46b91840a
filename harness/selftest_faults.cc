#include "harness/selftest_faults.h"

#include <algorithm>

#include "base/suggest.h"

namespace assay::harness {
namespace {

using How = SelftestFault::How;
using Experts = SelftestFault::Experts;
using Kind = engine::PlantedFault::Kind;
constexpr bool kStrong = true, kWeak = false, kVq = true, kBf16 = false;

SelftestFault files(std::string name, std::string what, std::string strength, bool strong,
                    bool quantised, std::string fault) {
  SelftestFault f;
  f.name = std::move(name);
  f.what = std::move(what);
  f.strength = std::move(strength);
  f.strong = strong;
  f.quantised = quantised;
  f.files = std::move(fault);
  return f;
}

SelftestFault experts(std::string name, std::string what, bool strong, Experts which,
                      double factor) {
  SelftestFault f =
      files(std::move(name), std::move(what), fmt::format("× {}", factor), strong, kVq, "");
  f.how = How::kExperts;
  f.experts = which;
  f.value = factor;
  return f;
}

SelftestFault running(std::string name, std::string what, std::string strength, bool strong,
                      engine::PlantedFault fault) {
  SelftestFault f = files(std::move(name), std::move(what), std::move(strength), strong, kBf16, "");
  f.how = How::kEngine;
  f.engine = fault;
  return f;
}

SelftestFault bits(double value) {
  SelftestFault f = files(fmt::format("bits-{:.1f}", value), "quantised too far",
                          fmt::format("{:.1f} bits", value), kStrong, kVq, "");
  f.how = How::kBits;
  f.value = value;
  return f;
}

}  // namespace

std::span<const SelftestFault> selftest_faults() {
  static const std::vector<SelftestFault> kFaults = {
      experts("expert-scale-1.05", "one busy expert's scales", kWeak, Experts::kBusiest, 1.05),
      experts("expert-scale-1.2", "one busy expert's scales", kWeak, Experts::kBusiest, 1.2),
      experts("expert-scale-2", "one busy expert's scales", kStrong, Experts::kBusiest, 2),
      files("expert-swap", "one expert swapped with another", "the busiest with the idlest",
            kStrong, kVq, "expert-swap:experts={busiest}+{idlest}"),
      files("shared-drop", "the shared expert dropped", "of one layer", kStrong, kVq,
            "shared-drop:layer={layer}"),
      experts("japanese-1.2", "scales of the experts Japanese uses most", kWeak, Experts::kJapanese,
              1.2),
      experts("japanese-2", "scales of the experts Japanese uses most", kWeak, Experts::kJapanese,
              2),
      experts("japanese-4", "scales of the experts Japanese uses most", kStrong, Experts::kJapanese,
              4),
      files("tier-dim-layer", "a VQ tier decoded with another's d", "1.5-bit tier, one layer",
            kWeak, kVq, "tier-dim:bits=1.5,layer={layer}"),
      files("tier-dim", "a VQ tier decoded with another's d", "1.5-bit tier, every layer", kStrong,
            kVq, "tier-dim:bits=1.5"),
      files("codes-shift-layer", "VQ indices off by one bit", "stream shifted, one layer", kWeak,
            kVq, "codes-shift:layer={layer}"),
      files("codes-shift", "VQ indices off by one bit", "stream shifted, every layer", kStrong, kVq,
            "codes-shift"),
      files("codes-flip-layer", "VQ indices off by one bit", "lowest bit inverted, one layer",
            kWeak, kVq, "codes-flip:layer={layer}"),
      files("codes-flip", "VQ indices off by one bit", "lowest bit inverted, every layer", kStrong,
            kVq, "codes-flip"),
      bits(1.5),
      bits(1.0),
      files("rope-half-split", "half-split RoPE", "every layer", kStrong, kBf16, "rope-half-split"),
      files("indexer-rope-half-split", "half-split RoPE of the indexer", "beyond index_topk tokens",
            kStrong, kBf16, "indexer-rope-half-split"),
      files("chat-template", "a wrong chat template", "no <think> after the prompt", kStrong, kBf16,
            "chat-template"),
      files("chat-tags", "a wrong chat template", "user and assistant exchanged", kStrong, kBf16,
            "chat-tags:tags=<|user|>+<|assistant|>"),
      files("logit-nan-weights", "NaN in one logit", "NaN in a row of lm_head", kStrong, kBf16,
            "logit-nan:token=100"),
      running("logit-nan-512", "NaN in one logit", "from 512 tokens on", kStrong,
              {.kind = Kind::kNanLogit, .from = 512}),
      running("logit-nan-4096", "NaN in one logit", "from 4096 tokens on", kWeak,
              {.kind = Kind::kNanLogit, .from = 4096}),
      running("kv-once", "KV cache off by one after 512 tokens", "one row lost", kWeak,
              {.kind = Kind::kLostRowOnce, .from = 512}),
      running("kv-every-step", "KV cache off by one after 512 tokens", "a row lost at every step",
              kStrong, {.kind = Kind::kLostRowEveryStep, .from = 512}),
      running("bias-0.05", "sampling with a biased generator", "u^1.05", kWeak,
              {.kind = Kind::kBiasedDraws, .strength = 0.05}),
      running("bias-0.3", "sampling with a biased generator", "u^1.3", kWeak,
              {.kind = Kind::kBiasedDraws, .strength = 0.3}),
      running("bias-1", "sampling with a biased generator", "u²", kStrong,
              {.kind = Kind::kBiasedDraws, .strength = 1}),
      running("stuck", "sampling with a biased generator", "one u for a whole reply", kStrong,
              {.kind = Kind::kStuckDraws}),
      running("greedy", "temperature 0 where 0.6 is meant", "every token", kStrong,
              {.kind = Kind::kGreedyDraws}),
  };
  return kFaults;
}

Result<std::vector<SelftestFault>> faults_named(const std::vector<std::string>& names) {
  std::vector<SelftestFault> out;
  std::vector<std::string> known = {"all", "none"};
  for (const SelftestFault& f : selftest_faults()) known.push_back(f.name);
  for (const std::string& name : names) {
    if (std::find(known.begin(), known.end(), name) == known.end())
      return fail("unknown fault '{}'.{}", name, suggestion(name, known));
    for (const SelftestFault& f : selftest_faults())
      if (name == "all" || name == f.name) out.push_back(f);
  }
  return out;
}

}  // namespace assay::harness
