#include "engine/backend/cpu_cache.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace assay::engine {
namespace {

constexpr int kGrowTokens = 256;  // a multiple of an attention block and of 16

int round_up(int n, int step) { return (n + step - 1) / step * step; }

std::size_t values(int n, int width) {
  return static_cast<std::size_t>(n) * static_cast<std::size_t>(width);
}

// A new array of n values that begins with the first `n_kept` of `old`.
kernels::AlignedArray<float> grown(const kernels::AlignedArray<float>& old, std::size_t n,
                                   std::size_t n_kept) {
  kernels::AlignedArray<float> next(n);
  if (n_kept > 0) std::memcpy(next.data(), old.data(), n_kept * sizeof(float));
  return next;
}

}  // namespace

CpuCache::CpuCache(const ModelConfig& c)
    : kv_width_(c.kv_row()),
      index_width_(c.index_topk > 0 ? c.index_head_dim : 0),
      full_(static_cast<std::size_t>(c.n_layers)),
      kv_(static_cast<std::size_t>(c.n_layers)),
      keys_(static_cast<std::size_t>(c.n_layers)),
      index_keys_(static_cast<std::size_t>(c.n_layers)) {
  for (std::size_t l = 0; l < full_.size() && l < c.indexer_full.size(); ++l)
    full_[l] = index_width_ > 0 && c.indexer_full[l];
}

CpuCache::CpuCache(const CpuCache& o)
    : kv_width_(o.kv_width_),
      index_width_(o.index_width_),
      full_(o.full_),
      n_tokens_(o.n_tokens_),
      capacity_(round_up(o.n_tokens_, kGrowTokens)),
      kv_(o.kv_.size()),
      keys_(o.kv_.size()),
      index_keys_(o.kv_.size()) {
  for (std::size_t l = 0; l < kv_.size(); ++l) {
    kv_[l] = grown(o.kv_[l], values(capacity_, kv_width_), values(n_tokens_, kv_width_));
    keys_[l] =
        grown(o.keys_[l], values(capacity_, kv_width_), values(round_up(n_tokens_, 16), kv_width_));
    if (full_[l])
      index_keys_[l] = grown(o.index_keys_[l], values(capacity_, index_width_),
                             values(round_up(n_tokens_, 16), index_width_));
  }
}

void CpuCache::truncate(int n_tokens) {
  CHECK(n_tokens >= 0 && n_tokens <= n_tokens_) << n_tokens << " of " << n_tokens_;
  n_tokens_ = n_tokens;
}

void CpuCache::reserve(int n_tokens) {
  if (n_tokens <= capacity_) return;
  capacity_ = round_up(std::max(n_tokens, capacity_ + capacity_ / 2), kGrowTokens);
  for (std::size_t l = 0; l < kv_.size(); ++l) {
    kv_[l] = grown(kv_[l], values(capacity_, kv_width_), values(n_tokens_, kv_width_));
    keys_[l] =
        grown(keys_[l], values(capacity_, kv_width_), values(round_up(n_tokens_, 16), kv_width_));
    if (full_[l])
      index_keys_[l] = grown(index_keys_[l], values(capacity_, index_width_),
                             values(round_up(n_tokens_, 16), index_width_));
  }
}

std::unique_ptr<KvCache> CpuCache::fork(int) const {
  return std::unique_ptr<KvCache>(new CpuCache(*this));
}

std::size_t CpuCache::bytes() const {
  std::size_t total = 0;
  for (const auto* part : {&kv_, &keys_, &index_keys_})
    for (const auto& array : *part) total += array.bytes();
  return total;
}

}  // namespace assay::engine
