// Byte-pair encoding of one pre-token: bytes in, ids out.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace assay::text {

class Bpe {
 public:
  struct Merge {
    int rank, result;
  };

  std::array<int, 256> byte_id{};  // id of each single byte
  std::unordered_map<std::uint64_t, Merge>
      merges;  // (left << 32 | right) → what they become, lower rank first

  static std::uint64_t key(int left, int right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
           static_cast<std::uint32_t>(right);
  }

  // Appends the ids of `bytes`: again and again the pair of lowest rank merges, the leftmost among
  // equals.
  void encode(std::string_view bytes, std::vector<int>* ids) const;
};

}  // namespace assay::text
