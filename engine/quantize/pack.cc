#include "engine/quantize/pack.h"

#include "base/check.h"

namespace assay::engine {

std::vector<std::uint32_t> pack_indices(std::span<const std::uint16_t> indices, int n_rows,
                                        int n_subvectors, int index_bits) {
  const auto per_row = static_cast<std::size_t>(n_subvectors),
             bits = static_cast<std::size_t>(index_bits);
  const std::size_t n_words = (per_row * bits + 31) / 32;
  CHECK(indices.size() == per_row * static_cast<std::size_t>(n_rows)) << indices.size();
  std::vector<std::uint32_t> words(n_words * static_cast<std::size_t>(n_rows), 0);
  for (std::size_t r = 0; r < static_cast<std::size_t>(n_rows); ++r)
    for (std::size_t k = 0; k < per_row; ++k) {
      const std::uint64_t index = indices[r * per_row + k];
      CHECK(index >> bits == 0) << index << " in " << index_bits << " bits";
      const std::uint64_t shifted = index << (k * bits % 32);
      std::uint32_t* word = &words[r * n_words + k * bits / 32];
      word[0] |= static_cast<std::uint32_t>(shifted);
      if (shifted >> 32 != 0) word[1] |= static_cast<std::uint32_t>(shifted >> 32);
    }
  return words;
}

}  // namespace assay::engine
