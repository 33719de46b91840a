// The cpu backend's KV cache, in float32: per layer the normed latents and rotated rope keys, per
// full layer the indexer's keys.
#pragma once

#include <memory>
#include <vector>

#include "engine/backend/backend.h"
#include "kernels/aligned_array.h"

namespace assay::engine {

class CpuCache final : public KvCache {
 public:
  explicit CpuCache(const ModelConfig& config);

  int n_tokens() const override { return n_tokens_; }
  void truncate(int n_tokens) override;
  std::unique_ptr<KvCache> fork(int n_tokens) const override;
  std::size_t bytes() const override;

  // Room for n tokens. Grows by half, at least by 256 tokens; rows in the cache are kept.
  void reserve(int n_tokens);
  void set_n_tokens(int n) { n_tokens_ = n; }

  float* kv_row(int layer, int position) {
    return kv_[layer].data() + static_cast<std::ptrdiff_t>(position) * kv_width_;
  }
  // The rows once more, transposed: (capacity / 16, kv_row, 16). One query scores consecutive keys
  // fastest with keys as lanes; the capacity is a multiple of an attention block.
  float* key_blocks(int layer) { return keys_[layer].data(); }
  // (capacity / 16, index_head_dim, 16)
  float* index_blocks(int layer) { return index_keys_[layer].data(); }

 private:
  CpuCache(const CpuCache& other);

  int kv_width_, index_width_;
  std::vector<bool> full_;
  int n_tokens_ = 0, capacity_ = 0;
  std::vector<kernels::AlignedArray<float>> kv_, keys_, index_keys_;
};

}  // namespace assay::engine
