// libFuzzer: whatever bytes a safetensors file holds, parsing gives tensors inside the file, or a
// message.
//   ci/check-fuzz 60 safetensors_fuzz
#include <cstdint>

#include "base/check.h"
#include "engine/checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  const auto tensors = assay::engine::parse_safetensors(file, "fuzz.safetensors");
  if (!tensors) {
    CHECK(!tensors.error().message.empty());
    return 0;
  }
  for (const auto& t : *tensors) {
    CHECK(t.bytes.size() ==
          static_cast<std::size_t>(t.n_elements()) * assay::engine::bytes_of(t.dtype))
        << t.name;
    CHECK(t.bytes.empty() ||
          (t.bytes.data() >= file.data() && t.bytes.data() + t.bytes.size() <= file.data() + size))
        << t.name;
  }
  return 0;
}
