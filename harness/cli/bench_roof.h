// What a decoded token and a prompt are held against: what the cores that compute could do at best,
// or the GPUs that do.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "base/json.h"
#include "base/thread_pool.h"
#include "engine/engine.h"

namespace assay::cli {

struct DecodeRoof {
  double per_s = 0;              // tokens
  double token_reads_per_s = 0;  // of a host: the same with experts drawn from all weights
  std::string text;              // what it is of
  Json bytes = nullptr;          // on GPUs: that a token reads, of the rank that reads longest
};

// Pure: tokens per second of GPUs that work side by side, each at its roof, so that the one with
// most to read for its speed decides; over n tokens of which the first sees n_keys keys.
DecodeRoof device_decode_roof(const engine::EngineInfo& info,
                              std::span<const engine::DeviceRoof> roofs, int n_keys, int n);
// Likewise of a prompt, whose products they share.
double device_prefill_per_s(const engine::EngineInfo& info,
                            std::span<const engine::DeviceRoof> roofs, int n);

class Roof {
 public:
  static Result<Roof> of(const engine::Engine& engine);

  // Measured anew by each call.
  Result<double> prefill_per_s(int n);
  Result<DecodeRoof> decode_per_s(int n_keys, int n);
  std::string prefill_text() const;
  std::string of_text() const;  // "the GPU's", "this machine's"

 private:
  Roof(const engine::Engine& engine, int n_devices);

  const engine::Engine* engine_;
  int n_devices_;                     // 0: the host computes
  std::unique_ptr<ThreadPool> pool_;  // then
};

}  // namespace assay::cli
