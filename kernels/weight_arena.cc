#include "kernels/weight_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace assay::kernels {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20, kChunk = 8 * kHugePage;

std::size_t round_up(std::size_t n, std::size_t step) { return (n + step - 1) / step * step; }

}  // namespace

WeightArena::~WeightArena() {
  for (const Chunk& c : chunks_) ::operator delete (c.data, std::align_val_t{kHugePage});
}

void* WeightArena::allocate(std::size_t n_bytes) {
  n_bytes = round_up(std::max<std::size_t>(n_bytes, 1), 64);
  if (chunks_.empty() || chunks_.back().n_bytes - used_ < n_bytes) {
    const std::size_t size = round_up(std::max(n_bytes, kChunk), kHugePage);
    void* data = ::operator new (size, std::align_val_t{kHugePage});
    madvise(data, size, MADV_HUGEPAGE);  // advice: where it is not taken, small pages work as well
    chunks_.push_back({data, size});
    used_ = 0;
  }
  void* out = static_cast<std::byte*>(chunks_.back().data) + used_;
  used_ += n_bytes;
  std::memset(out, 0, n_bytes);
  return out;
}

}  // namespace assay::kernels
