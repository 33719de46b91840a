// What a device that computes can do at best, and what of its memory a decoded token needs: the two
// sides of a share of the roof.
#pragma once

#include <cstdint>

namespace assay::engine {

// Bytes of a device's memory that a decoded token reads, as they lie there; codebooks and scales
// are among them. Of a rank: of its part.
struct TokenBytes {
  // What is always read, of a layer's routed experts the share of so many as a token chooses, and
  // one row of the embedding.
  std::int64_t weights = 0;
  std::int64_t index_weights = 0;  // of the indexer, where it has to choose
  std::int64_t per_key = 0;        // of the cache, all layers: of a key that attention looks at
  std::int64_t per_index_key = 0;  // of the cache, full layers: of a key that is scored
};

struct DeviceRoof {
  double read_bytes_per_s = 0;  // 0: of no device
  double half_fma_per_s = 0;    // of tensor cores, operands of 16 bits
  TokenBytes token;
};

}  // namespace assay::engine
