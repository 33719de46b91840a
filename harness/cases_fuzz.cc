// libFuzzer: whatever bytes cases.csv holds, the reader returns cases that keep its promises, or a
// message.
//   ci/check-fuzz 60 cases_fuzz
#include <cstdint>
#include <set>

#include "base/check.h"
#include "harness/cases.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view csv(reinterpret_cast<const char*>(data), size);
  const auto cases = assay::harness::parse_cases(csv, "cases.csv", {"ja", "en", "zh"},
                                                 assay::harness::Scoring::kNumber);
  if (!cases) {
    CHECK(!cases.error().message.empty());
    return 0;
  }
  std::set<std::string> ids;
  for (const auto& one : *cases) {
    CHECK(ids.insert(one.id).second) << one.id;
    CHECK(one.messages.is_array() && !one.messages.empty());
    CHECK(!one.answer.empty() && !one.kind.empty() && !one.cluster.empty());
  }
  return 0;
}
