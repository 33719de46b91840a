// Percentages and their like behind a number: 50 %, 50 percent, 50パーセント, 5割2分, 五成, 5 ‰.
// Private to the extractor.
#pragma once

#include <string_view>

#include "harness/extract_numbers.h"

namespace assay::harness {

// Extends the literal over such a mark and divides its value by 100 (‰: 1000; 割, 成: 10), which is
// what the mark means. "854 % 5" stays a remainder, 5割る2 a division, 分成3 a verb.
void read_share(std::u32string_view text, std::string_view language, Literal& literal);

}  // namespace assay::harness
