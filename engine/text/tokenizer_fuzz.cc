// libFuzzer: whatever bytes tokenizer.json holds, parsing gives a tokenizer that round-trips, or a
// message.
//   ci/check-fuzz 60 tokenizer_fuzz
#include <cstdint>

#include "base/check.h"
#include "engine/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto tokenizer =
      assay::text::Tokenizer::parse({reinterpret_cast<const char*>(data), size}, "fuzz.json");
  if (!tokenizer) {
    CHECK(!tokenizer.error().message.empty());
    return 0;
  }
  const auto ids = tokenizer->encode("127 × 8 = ? 東京 don't  \n");
  if (!ids) return 0;  // the file's regex may give up
  for (const int id : *ids) CHECK(tokenizer->has(id)) << id;
  (void)tokenizer->decode(*ids);
  return 0;
}
