#include "engine/text/python_json.h"

#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <charconv>
#include <cmath>

namespace assay::text {
namespace {

// Python's float repr: the shortest digits that read back, in plain notation from 1e-4 to 1e16,
// with a ".0" or exponent.
std::string python_float(double v) {
  if (std::isnan(v)) return "NaN";
  if (std::isinf(v)) return v > 0 ? "Infinity" : "-Infinity";
  char buffer[64];
  const double magnitude = std::abs(v);
  const bool plain = v == 0 || (magnitude >= 1e-4 && magnitude < 1e16);
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, v,
                                 plain ? std::chars_format::fixed : std::chars_format::scientific)
                       .ptr;
  std::string text(buffer, end);
  if (plain && text.find('.') == std::string::npos) text += ".0";
  return text;
}

std::string quoted(const std::string& s) {
  std::string out = "\"";
  for (const char c : s) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\b':
        out += "\\b";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20)
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        else
          out += c;
    }
  }
  return out + "\"";
}

bool is_python_space(
    UChar32 c) {  // str.isspace(): white space, and the four information separators
  return u_isUWhiteSpace(c) != 0 || (c >= 0x1C && c <= 0x1F);
}

}  // namespace

std::string python_json(const OrderedJson& value) {
  switch (value.type()) {
    case OrderedJson::value_t::object: {
      std::string out = "{";
      for (const auto& [key, item] : value.items())
        out += (out.size() > 1 ? ", " : "") + quoted(key) + ": " + python_json(item);
      return out + "}";
    }
    case OrderedJson::value_t::array: {
      std::string out = "[";
      for (const OrderedJson& item : value) out += (out.size() > 1 ? ", " : "") + python_json(item);
      return out + "]";
    }
    case OrderedJson::value_t::string:
      return quoted(value.get_ref<const std::string&>());
    case OrderedJson::value_t::number_float:
      return python_float(value.get<double>());
    default:
      return value.dump();  // integers, true, false, null
  }
}

std::string python_str(const OrderedJson& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return "None";
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_number_float()) {
    const double v = value.get<double>();
    return std::isnan(v) ? "nan" : std::isinf(v) ? (v > 0 ? "inf" : "-inf") : python_float(v);
  }
  return value.dump();
}

std::string python_strip(const std::string& utf8) {
  const auto text = icu::UnicodeString::fromUTF8(utf8);
  std::int32_t begin = 0, end = text.length();
  while (begin < end && is_python_space(text.char32At(begin))) begin = text.moveIndex32(begin, 1);
  while (end > begin && is_python_space(text.char32At(text.moveIndex32(end, -1))))
    end = text.moveIndex32(end, -1);
  std::string out;
  text.tempSubStringBetween(begin, end).toUTF8String(out);
  return out;
}

}  // namespace assay::text
