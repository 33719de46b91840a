#include "engine/backend/cuda_cache.h"

#include <algorithm>

namespace assay::engine {
namespace {

bool has_index(const ModelConfig& c, std::size_t layer) {
  return c.index_topk > 0 && c.indexer_full[layer];
}

std::size_t kv_bytes(const ModelConfig& c) {
  return 2 * sizeof(std::uint16_t) * static_cast<std::size_t>(c.kv_row());
}
std::size_t index_bytes(const ModelConfig& c) {
  return sizeof(float) * static_cast<std::size_t>(c.index_head_dim);
}

}  // namespace

std::size_t CudaCachePool::kv_bytes_per_token(const ModelConfig& c) {
  return kv_bytes(c) * static_cast<std::size_t>(c.n_layers);
}

std::size_t CudaCachePool::bytes_per_token(const ModelConfig& c) {
  std::size_t total = 0;
  for (std::size_t l = 0; l < static_cast<std::size_t>(c.n_layers); ++l)
    total += kv_bytes(c) + (has_index(c, l) ? index_bytes(c) : 0);
  return total;
}

CudaCachePool::CudaCachePool(const ModelConfig& c, int n_tokens, kernels::DeviceBudget& budget)
    : c_(c),
      bytes_per_token_(bytes_per_token(c)),
      memory_(budget.bytes(static_cast<std::size_t>(n_tokens) * bytes_per_token_)),
      extents_(n_tokens) {
  std::size_t before = 0;
  for (std::size_t l = 0; l < static_cast<std::size_t>(c.n_layers); ++l) {
    kv_.push_back(before);
    before += kv_bytes(c);
    index_.push_back(before);
    if (has_index(c, l)) before += index_bytes(c);
  }
}

std::unique_ptr<CudaCache> CudaCachePool::new_cache(int n_tokens) {
  const int n = rounded(std::max(n_tokens, 1));
  CHECK(n <= extents_.n_free()) << n << " tokens of cache, " << extents_.n_free() << " of "
                                << extents_.size() << " are free";
  std::optional<int> first = extents_.take(n);
  if (!first) {
    close_holes();
    first = extents_.take(n);
    CHECK(first.has_value()) << n;
  }
  std::unique_ptr<CudaCache> cache(new CudaCache(shared_from_this(), *first, n));
  alive_.emplace(*first, cache.get());
  return cache;
}

// A copy must not overlap its source, so each goes by pieces no longer than its way.
void CudaCachePool::close_holes() {
  std::map<int, CudaCache*> moved = alive_;
  for (const auto& [from, to, n] : extents_.compact()) {
    const int way = from - to;
    for (int at = 0; at < n; at += way)
      kernels::copy_on_device(this->at(to + at), this->at(from + at),
                              static_cast<std::size_t>(std::min(way, n - at)) * bytes_per_token_,
                              nullptr);
    auto cache = moved.extract(from);
    CHECK(!cache.empty()) << from;
    cache.mapped()->first_ = to;
    cache.key() = to;
    moved.insert(std::move(cache));
  }
  alive_ = std::move(moved);
  kernels::synchronise(nullptr);
}

CudaCache::~CudaCache() {
  pool_->alive_.erase(first_);
  pool_->extents_.give_back(first_);
}

void CudaCache::truncate(int n_tokens) {
  CHECK(n_tokens >= 0 && n_tokens <= n_tokens_) << n_tokens << " of " << n_tokens_;
  n_tokens_ = n_tokens;
}

std::unique_ptr<KvCache> CudaCache::fork(int n_tokens) const {
  auto copy = pool_->new_cache(n_tokens == 0 ? capacity_ : n_tokens);
  CHECK(copy->capacity_ >= n_tokens_) << copy->capacity_ << " for " << n_tokens_;
  copy->n_tokens_ = n_tokens_;
  if (n_tokens_ == 0) return copy;
  const auto n = static_cast<std::size_t>(n_tokens_);
  for (int l = 0; l < pool_->c_.n_layers; ++l) {
    kernels::copy_on_device(copy->kv(l), kv(l), n * kv_bytes(pool_->c_), nullptr);
    if (has_index(pool_->c_, static_cast<std::size_t>(l)))
      kernels::copy_on_device(copy->index_keys(l), index_keys(l), n * index_bytes(pool_->c_),
                              nullptr);
  }
  kernels::synchronise(nullptr);
  return copy;
}

}  // namespace assay::engine
