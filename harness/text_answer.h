// Short answers in words: is one of the accepted names given? Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "harness/extract.h"

namespace assay::harness {

// "北岳|Kita-dake" → both, without blanks around them; empty ones are dropped.
std::vector<std::string> accepted_answers(std::string_view written);

// The first accepted answer that `text` gives: whatever the case and width of letters, as a word of
// its own (not 京都 in 東京都, not "Au" in "August"), and not denied ("京都ではなく", "not Kyoto").
// value: as accepted; rule: "accepted"; span: in `text`.
std::optional<Extraction> find_accepted(std::string_view text, std::string_view accepted);

}  // namespace assay::harness
