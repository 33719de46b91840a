// Memory for weights, in huge pages where the system gives them: a token reads every active weight
// once, and with pages of 4 KiB each page costs a walk of the page table.
#pragma once

#include <cstddef>
#include <vector>

namespace assay::kernels {

class WeightArena {
 public:
  WeightArena() = default;
  ~WeightArena();
  WeightArena(const WeightArena&) = delete;
  WeightArena& operator=(const WeightArena&) = delete;

  // Zeroed, aligned to 64 bytes, freed with the arena.
  void* allocate(std::size_t n_bytes);

 private:
  struct Chunk {
    void* data;
    std::size_t n_bytes;
  };
  std::vector<Chunk> chunks_;
  std::size_t used_ = 0;  // of the last chunk
};

}  // namespace assay::kernels
