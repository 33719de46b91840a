#include "base/json.h"

#include <algorithm>

namespace assay {
namespace {

template <class AnyJson>
Result<AnyJson> parse(std::string_view text, std::string_view source) {
  try {
    return AnyJson::parse(text.begin(), text.end());
  } catch (const nlohmann::json::parse_error& error) {
    const std::size_t at = std::min(error.byte == 0 ? 0 : error.byte - 1, text.size());
    const auto before = text.substr(0, at);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const auto column =
        at - (before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1) + 1;
    // The library's text starts with "[json.exception...] parse error at line L, column C: "; keep
    // the reason.
    std::string what = error.what();
    if (const auto colon = what.find(": "); colon != std::string::npos)
      what = what.substr(colon + 2);
    return fail("{}:{}:{}: not valid JSON: {}", source, line, column, what);
  }
}

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view source) {
  return parse<Json>(text, source);
}

Result<OrderedJson> parse_ordered_json(std::string_view text, std::string_view source) {
  return parse<OrderedJson>(text, source);
}

Result<Json> read_json(const fs::path& path) {
  ASSAY_TRY(const std::string text, read_file(path));
  return parse_json(text, path.string());
}

}  // namespace assay
