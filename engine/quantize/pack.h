// Indices to the bit stream of docs/formats/vq.md.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace assay::engine {

// indices (n_rows, n_subvectors) below 2^index_bits → words (n_rows, ceil(n_subvectors *
// index_bits / 32)), least significant bit first.
std::vector<std::uint32_t> pack_indices(std::span<const std::uint16_t> indices, int n_rows,
                                        int n_subvectors, int index_bits);

}  // namespace assay::engine
