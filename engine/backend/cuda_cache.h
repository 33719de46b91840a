// Sequences' caches on one GPU, in one piece of memory that is taken when an executor is made.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "base/check.h"
#include "engine/backend/backend.h"
#include "engine/backend/extent_pool.h"
#include "kernels/cuda_memory.h"

namespace assay::engine {

class CudaCache;

// Of one executor, as are its caches; not thread-safe. Between steps caches may move.
class CudaCachePool : public std::enable_shared_from_this<CudaCachePool> {
 public:
  // Extents are whole multiples of this: arrays of every layer stay aligned to 256 bytes.
  static constexpr int kGrain = 256;
  static constexpr int rounded(int n_tokens) { return (n_tokens + kGrain - 1) / kGrain * kGrain; }
  static std::size_t bytes_per_token(const ModelConfig& c);
  static std::size_t kv_bytes_per_token(const ModelConfig& c);  // of these, the latents

  CudaCachePool(const ModelConfig& c, int n_tokens, kernels::DeviceBudget& budget);

  // There has to be room: room. Empty, for n_tokens at most.
  std::unique_ptr<CudaCache> new_cache(int n_tokens);
  CacheRoom room() const { return {extents_.size(), extents_.n_free(), kGrain}; }

 private:
  friend class CudaCache;
  std::byte* at(int token) const {
    return static_cast<std::byte*>(memory_.data()) +
           static_cast<std::size_t>(token) * bytes_per_token_;
  }
  void close_holes();

  const ModelConfig c_;
  const std::size_t bytes_per_token_;
  kernels::DeviceBytes memory_;
  ExtentPool extents_;
  std::map<int, CudaCache*> alive_;      // by the first token of its extent
  std::vector<std::size_t> kv_, index_;  // by layer: bytes of a token that lie before its own
};

// Per layer the normed latents and rotated rope keys, 22 bits of each value (MlaAttentionCuda), per
// full layer the indexer's keys in float32; each layer's one behind the other.
class CudaCache final : public KvCache {
 public:
  ~CudaCache() override;
  CudaCache(const CudaCache&) = delete;
  CudaCache& operator=(const CudaCache&) = delete;

  int n_tokens() const override { return n_tokens_; }
  int capacity() const { return capacity_; }
  void truncate(int n_tokens) override;
  std::unique_ptr<KvCache> fork(int n_tokens) const override;
  std::size_t bytes() const override {
    return static_cast<std::size_t>(capacity_) * pool_->bytes_per_token_;
  }

  void set_n_tokens(int n) { n_tokens_ = n; }
  std::uint16_t* kv(int layer) const {
    return reinterpret_cast<std::uint16_t*>(array(pool_->kv_, layer));
  }
  float* index_keys(int layer) const {
    return reinterpret_cast<float*>(array(pool_->index_, layer));
  }

 private:
  friend class CudaCachePool;
  CudaCache(std::shared_ptr<CudaCachePool> pool, int first, int capacity)
      : pool_(std::move(pool)), first_(first), capacity_(capacity) {}
  std::byte* array(const std::vector<std::size_t>& before, int layer) const {
    return pool_->at(first_) +
           static_cast<std::size_t>(capacity_) * before[static_cast<std::size_t>(layer)];
  }

  const std::shared_ptr<CudaCachePool> pool_;
  int first_, n_tokens_ = 0;
  const int capacity_;
};

}  // namespace assay::engine
