#include "engine/text/unicode.h"

#include <unicode/normalizer2.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include <cstdint>

namespace assay::text {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

}  // namespace

std::optional<std::size_t> first_invalid_utf8(std::string_view bytes) {
  const auto* s = reinterpret_cast<const std::uint8_t*>(bytes.data());
  const auto n = static_cast<std::int64_t>(bytes.size());
  for (std::int64_t i = 0; i < n;) {
    const std::int64_t at = i;
    UChar32 c;
    U8_NEXT(s, i, n, c);
    if (c < 0) return static_cast<std::size_t>(at);
  }
  return std::nullopt;
}

std::string to_valid_utf8(std::string_view bytes) {
  const auto* s = reinterpret_cast<const std::uint8_t*>(bytes.data());
  const auto n = static_cast<std::int64_t>(bytes.size());
  std::string out;
  out.reserve(bytes.size());
  for (std::int64_t i = 0; i < n;) {
    const std::int64_t at = i;
    UChar32 c;
    U8_NEXT(s, i, n, c);  // over one character, or over one maximal part of an ill-formed one
    if (c < 0)
      out += kReplacement;
    else
      out += bytes.substr(static_cast<std::size_t>(at), static_cast<std::size_t>(i - at));
  }
  return out;
}

std::size_t complete_utf8_prefix(std::string_view bytes) {
  const auto* s = reinterpret_cast<const std::uint8_t*>(bytes.data());
  auto n = static_cast<std::int64_t>(bytes.size());
  U8_TRUNCATE_IF_INCOMPLETE(s, 0, n);
  return static_cast<std::size_t>(n);
}

std::string nfkc(std::string_view utf8) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = icu::Normalizer2::getNFKCInstance(status);
  const auto text = icu::UnicodeString::fromUTF8(
      icu::StringPiece(utf8.data(), static_cast<std::int32_t>(utf8.size())));
  std::string out;
  normalizer->normalize(text, status).toUTF8String(out);
  return out;
}

}  // namespace assay::text
