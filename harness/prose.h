// The prose of a text: what a person reads aloud, without code, formulas, addresses and the
// answer's box, which look alike in every language. Private to the language checks.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace assay::harness {

struct ProseChar {
  char32_t c = 0;         // U+0020 where the text is no prose
  std::size_t begin = 0;  // byte of the text
};

enum class Quotations { kKeep, kDrop };

// Every character of the text, in order; bytes that are no UTF-8 become U+FFFD. Dropped: fenced and
// inline code, $…$, \(…\), \[…\], \boxed{…}, other LaTeX commands, web addresses, and on demand
// what stands in quotation marks (of one line and at most 200 characters).
std::vector<ProseChar> prose_of(std::string_view utf8, Quotations quotations);

}  // namespace assay::harness
