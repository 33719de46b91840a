// Unicode through ICU, so that no other file has to know it.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace assay::text {

// Byte offset of the first invalid UTF-8 sequence, if there is one.
std::optional<std::size_t> first_invalid_utf8(std::string_view bytes);

// Valid UTF-8 as it is; every maximal invalid part becomes one U+FFFD (as Python's
// errors="replace").
std::string to_valid_utf8(std::string_view bytes);

// Length of the longest prefix that does not end inside a character that could still be completed.
std::size_t complete_utf8_prefix(std::string_view bytes);

// NFKC: full-width digits and letters become ASCII, half-width katakana becomes full-width.
std::string nfkc(std::string_view utf8);

}  // namespace assay::text
