#include "harness/escape.h"

#include <unicode/utf8.h>

#include <algorithm>
#include <cstdint>

namespace assay::harness {
namespace {

constexpr UChar32 kReplacement = 0xFFFD;

// `next` is called with every code point; what is no UTF-8 is U+FFFD.
template <class Next>
void for_each_code_point(std::string_view text, Next next) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
  const auto n = static_cast<std::int32_t>(text.size());
  for (std::int32_t i = 0; i < n;) {
    UChar32 c = 0;
    U8_NEXT(bytes, i, n, c);
    next(c < 0 ? kReplacement : c);
  }
}

void append(std::string& out, UChar32 c) {
  std::uint8_t bytes[U8_MAX_LENGTH];
  std::int32_t n = 0;
  U8_APPEND_UNSAFE(bytes, n, c);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(n));
}

// Production 2 of XML 1.0.
bool xml_allows(UChar32 c) {
  return c == '\t' || c == '\n' || c == '\r' || (c >= 0x20 && c <= 0xD7FF) ||
         (c >= 0xE000 && c <= 0xFFFD) || (c >= 0x10000 && c <= 0x10FFFF);
}

std::string xml_escaped(std::string_view text, bool is_attribute) {
  std::string out;
  for_each_code_point(text, [&](UChar32 c) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {  // "]]>" must not stand in text either
      out += "&gt;";
    } else if (c == '&') {
      out += "&amp;";
    } else if (c == '"') {
      out += "&quot;";
    } else if (c == '\r') {  // else a parser makes it a line feed
      out += "&#13;";
    } else if (is_attribute && c == '\n') {
      out += "&#10;";
    } else if (is_attribute && c == '\t') {
      out += "&#9;";
    } else {
      append(out, xml_allows(c) ? c : kReplacement);
    }
  });
  return out;
}

bool turns_direction(UChar32 c) {
  return (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
}

}  // namespace

std::string shortened(std::string_view text, int most) {
  std::string out;
  int n = 0;
  for_each_code_point(text, [&](UChar32 c) {
    if (n++ < most) append(out, c);
  });
  return n > most ? out + "…" : out;
}

std::string xml_text(std::string_view text) { return xml_escaped(text, false); }
std::string xml_attribute(std::string_view text) { return xml_escaped(text, true); }

std::string markdown_text(std::string_view text) {
  constexpr std::string_view kMeansSomething = "\\`*_{}[]#|~!$^@";  // "@" calls a person
  std::string out;
  for_each_code_point(text, [&](UChar32 c) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '&') {
      out += "&amp;";
    } else if (c == '\n' || c == '\r' || c == '\t' || c == 0x2028 || c == 0x2029 || c == 0x85) {
      out += ' ';
    } else if (c < 0x20 || (c >= 0x7F && c < 0xA0) || turns_direction(c)) {
      append(out, kReplacement);
    } else if (c < 0x80 && kMeansSomething.find(static_cast<char>(c)) != std::string_view::npos) {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '/' && out.ends_with(':')) {  // else "http://…" becomes a link by itself
      out += "\\/";
    } else if (c == '.' && (out.ends_with("www") || out.ends_with("WWW"))) {  // likewise
      out += "\\.";
    } else {
      append(out, c);
    }
  });
  return out;
}

std::string markdown_block(std::string_view text) {
  std::size_t longest = 0, run = 0;
  for (const char c : text) {
    run = c == '`' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  const std::string fence(std::max<std::size_t>(3, longest + 1), '`');
  std::string out = fence + "\n";
  for_each_code_point(text, [&](UChar32 c) {
    const bool control = (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7F && c < 0xA0);
    append(out, control || turns_direction(c) ? kReplacement : c);
  });
  if (!out.ends_with('\n')) out += '\n';
  return out + fence + "\n";
}

}  // namespace assay::harness
