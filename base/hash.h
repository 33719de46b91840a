// XXH3-128 over bytes, for fingerprints and ids. Fast and stable across machines; not
// cryptographic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace assay {

class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;

  void update(const void* data, std::size_t n_bytes);
  void update(std::string_view text);    // length first, so that ("ab","c") and ("a","bc") differ
  void update_u64(std::uint64_t value);  // little endian
  std::string hex() const;               // 32 hexadecimal digits

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string hash_hex(std::string_view bytes);
std::uint64_t hash_u64(std::string_view bytes);

}  // namespace assay
