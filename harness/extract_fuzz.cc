// libFuzzer: whatever a model writes, the extractor returns nothing, or one canonical number from a
// span of the text, and the strict pipeline never contradicts the flexible one.
//   ci/check-fuzz 60 extract_fuzz
#include <cstdint>

#include "base/check.h"
#include "harness/extract.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace assay::harness;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const char* language : {"ja", "en", "zh"}) {
    const auto flexible = extract_number(text, language);
    const auto strict = extract_number(text, language, Pipeline::kStrict);
    CHECK(!strict || (flexible && flexible->value == strict->value));
    if (!flexible) continue;
    CHECK(flexible->begin < flexible->end && flexible->end <= size);
    CHECK(canonical_number(flexible->value) == flexible->value) << flexible->value;
  }
  return 0;
}
