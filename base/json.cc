#include "base/json.h"

#include <algorithm>
#include <cstdint>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/json_line.h"

namespace assay {
namespace {

// The library's text is "[json.exception...] parse error at line L, column C: reason", or without
// the part before the colon; keep the reason.
std::string reason_of(const nlohmann::json::exception& error) {
  const std::string what = error.what();
  if (what.find("parse error at") != std::string::npos)
    if (const auto colon = what.find(": "); colon != std::string::npos)
      return what.substr(colon + 2);
  const auto bracket = what.find("] ");
  return bracket == std::string::npos ? what : what.substr(bracket + 2);
}

// Parsing does not recurse, but copying and printing a value do: a file of a million brackets would
// overflow the stack long after it was read. Nothing that people write comes near this.
constexpr int kMaxDepth = 256;

bool too_deep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

enum class Source { kFile, kLine };

// Ends the reading at the first key that its object has already.
class RepeatedKey : public nlohmann::json_sax<Json> {
 public:
  std::string path;

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(std::int64_t) override { return true; }
  bool number_unsigned(std::uint64_t) override { return true; }
  bool number_float(double, const std::string&) override { return true; }
  bool string(std::string&) override { return true; }
  bool binary(Json::binary_t&) override { return true; }
  bool start_object(std::size_t) override {
    objects_.emplace_back();
    return true;
  }
  bool key(std::string& name) override {
    auto& [current, seen] = objects_.back();
    current = name;
    if (seen.insert(name).second) return true;
    for (const auto& object : objects_) path += (path.empty() ? "" : ".") + object.first;
    return false;
  }
  bool end_object() override {
    objects_.pop_back();
    return true;
  }
  bool start_array(std::size_t) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(std::size_t, const std::string&, const Json::exception&) override {
    return false;
  }

 private:
  // The open ones, outermost first: where each stands, and its keys.
  std::vector<std::pair<std::string, std::unordered_set<std::string>>> objects_;
};

template <class AnyJson>
Result<AnyJson> parse(std::string_view text, std::string_view source, Source what) {
  if (too_deep(text))
    return fail("{}: not valid JSON: nested deeper than {} levels, as no file of ours is", source,
                kMaxDepth);
  try {
    return AnyJson::parse(text.begin(), text.end());
  } catch (const nlohmann::json::out_of_range& error) {  // a number beyond a double's range
    return fail("{}: not valid JSON: {}", source, reason_of(error));
  } catch (const nlohmann::json::parse_error& error) {
    const std::size_t at = std::min(error.byte == 0 ? 0 : error.byte - 1, text.size());
    const auto before = text.substr(0, at);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const auto column =
        at - (before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1) + 1;
    const std::string in_file = what == Source::kFile ? fmt::format("{}:", line) : "";
    const bool is_cut = what == Source::kFile && at == text.size();
    return fail("{}:{}{}: not valid JSON: {}{}", source, in_file, column, reason_of(error),
                is_cut
                    ? ". The file ends there, as one that was cut off does: download or write it "
                      "again, or correct it."
                    : "");
  }
}

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view source) {
  return parse<Json>(text, source, Source::kFile);
}

Result<Json> parse_json_line(std::string_view line, std::string_view source) {
  return parse<Json>(line, source, Source::kLine);
}

Result<OrderedJson> parse_ordered_json(std::string_view text, std::string_view source) {
  return parse<OrderedJson>(text, source, Source::kFile);
}

Result<OrderedJson> parse_ordered_json_line(std::string_view line, std::string_view source) {
  return parse<OrderedJson>(line, source, Source::kLine);
}

std::string repeated_key(std::string_view text) {
  RepeatedKey reader;
  Json::sax_parse(text.begin(), text.end(), &reader);
  return std::move(reader.path);
}

Result<Json> read_json(const fs::path& path) {
  ASSAY_TRY(const std::string text, read_text_file(path));
  return parse_json(text, path.string());
}

}  // namespace assay
