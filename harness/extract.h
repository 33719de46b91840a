// From an answer's text to one exact number: which rule matched which span.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace assay::harness {

struct Extraction {
  std::string value;  // canonical exact number: "1016", "-5", "1/2"
  std::string rule;
  std::size_t begin = 0, end = 0;  // byte span in the text
};

std::optional<Extraction> extract_number(std::string_view text, std::string_view language);
std::optional<std::string> canonical_number(std::string_view written);

}  // namespace assay::harness
