#include "base/hash.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <array>
#include <utility>

namespace assay {

struct Hasher::State {
  XXH3_state_t* xxh = XXH3_createState();
  State() { XXH3_128bits_reset(xxh); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { XXH3_freeState(xxh); }
};

namespace {
std::string to_hex(XXH128_hash_t h) { return fmt::format("{:016x}{:016x}", h.high64, h.low64); }
}  // namespace

Hasher::Hasher() : state_(std::make_unique<State>()) {}
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::update(const void* data, std::size_t n_bytes) {
  XXH3_128bits_update(state_->xxh, data, n_bytes);
}

void Hasher::update(std::string_view text) {
  update_u64(text.size());
  update(text.data(), text.size());
}

void Hasher::update_u64(std::uint64_t value) {
  std::array<unsigned char, 8> bytes;
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<unsigned char>(value >> (8 * i));
  update(bytes.data(), bytes.size());
}

std::string Hasher::hex() const { return to_hex(XXH3_128bits_digest(state_->xxh)); }

std::string hash_hex(std::string_view bytes) {
  return to_hex(XXH3_128bits(bytes.data(), bytes.size()));
}

std::uint64_t hash_u64(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

}  // namespace assay
