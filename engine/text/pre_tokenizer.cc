#include "engine/text/pre_tokenizer.h"

#include <unicode/regex.h>
#include <unicode/utext.h>

namespace assay::text {
namespace {

// GPT-2's pattern, which a ByteLevel step with use_regex applies.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// In ICU \s is [\t\n\f\r\p{Z}]; in the engines that tokenizers are trained with it is the Unicode
// property, which also has U+000B and U+0085.
std::string to_icu(std::string_view pattern) {
  std::string out;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\\' && i + 1 < pattern.size()) {
      ++i;
      if (pattern[i] == 's')
        out += "\\p{White_Space}";
      else if (pattern[i] == 'S')
        out += "\\P{White_Space}";
      else
        out += {'\\', pattern[i]};
    } else {
      out += pattern[i];
    }
  }
  return out;
}

struct Utext {
  UText value = UTEXT_INITIALIZER;
  ~Utext() { utext_close(&value); }
};

}  // namespace

struct PreTokenizer::Impl {
  std::vector<std::unique_ptr<icu::RegexPattern>> patterns;
};

PreTokenizer::PreTokenizer() : impl_(std::make_unique<Impl>()) {}
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

Result<PreTokenizer> PreTokenizer::parse(const Json& json, std::string_view source) {
  PreTokenizer out;
  const Json steps =
      json.is_object() && json.value("type", Json()) == "Sequence" && json.contains("pretokenizers")
          ? json["pretokenizers"]
          : Json::array({json});
  if (!steps.is_array()) return fail("{}: pre_tokenizer: pretokenizers is not a list", source);
  bool byte_level = false;
  for (const Json& step : steps) {
    if (!step.is_object() || !step.contains("type") || !step["type"].is_string())
      return fail("{}: pre_tokenizer: expected an object with a type", source);
    const std::string type = step["type"];
    std::string pattern;
    if (type == "ByteLevel") {
      byte_level = true;
      if (step.value("add_prefix_space", Json(false)) == true)
        return fail("{}: pre_tokenizer: add_prefix_space is true, which is not supported", source);
      if (step.value("use_regex", Json(true)) == false) continue;
      pattern = kGpt2Pattern;
    } else if (type == "Split") {
      if (step.value("behavior", Json()) != "Isolated" ||
          step.value("invert", Json(false)) != false)
        return fail(
            "{}: pre_tokenizer: Split with a behavior other than Isolated, or inverted, is not "
            "supported",
            source);
      if (!step.contains("pattern") || !step["pattern"].is_object() ||
          !step["pattern"].contains("Regex") || !step["pattern"]["Regex"].is_string())
        return fail("{}: pre_tokenizer: Split needs a pattern with a Regex", source);
      pattern = step["pattern"]["Regex"];
    } else {
      return fail(
          "{}: pre_tokenizer: type {} is not supported, expected ByteLevel, Split or a Sequence of "
          "them",
          source, type);
    }
    UErrorCode status = U_ZERO_ERROR;
    UParseError where;
    const auto text = icu::UnicodeString::fromUTF8(to_icu(pattern));
    std::unique_ptr<icu::RegexPattern> compiled(icu::RegexPattern::compile(text, where, status));
    if (U_FAILURE(status) || !compiled)
      return fail("{}: pre_tokenizer: the regex does not compile ({} at character {})", source,
                  u_errorName(status), where.offset);
    out.impl_->patterns.push_back(std::move(compiled));
  }
  if (!byte_level)
    return fail("{}: pre_tokenizer: no ByteLevel step: only byte-level BPE is supported", source);
  return out;
}

Result<void> PreTokenizer::split(std::string_view utf8,
                                 const std::function<void(std::string_view)>& piece) const {
  std::vector<std::string_view> pieces = {utf8};
  for (const auto& pattern : impl_->patterns) {
    std::vector<std::string_view> next;
    for (const std::string_view part : pieces) {
      UErrorCode status = U_ZERO_ERROR;
      Utext text;
      utext_openUTF8(&text.value, part.data(), static_cast<std::int64_t>(part.size()), &status);
      std::unique_ptr<icu::RegexMatcher> matcher(pattern->matcher(status));
      if (U_FAILURE(status))
        return fail("the tokenizer's regex could not start: {}", u_errorName(status));
      matcher->setTimeLimit(
          100'000, status);  // some ten seconds; a file's regex may be of the exponential kind
      matcher->reset(&text.value);
      std::int64_t at = 0;
      while (matcher->find(status) && U_SUCCESS(status)) {
        const std::int64_t begin = matcher->start64(status), end = matcher->end64(status);
        if (begin > at)
          next.push_back(
              part.substr(static_cast<std::size_t>(at), static_cast<std::size_t>(begin - at)));
        if (end > begin)
          next.push_back(
              part.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
        at = end;
      }
      if (U_FAILURE(status))
        return fail("the tokenizer's regex gave up on this text: {}", u_errorName(status));
      if (at < static_cast<std::int64_t>(part.size()))
        next.push_back(part.substr(static_cast<std::size_t>(at)));
    }
    pieces = std::move(next);
  }
  for (const std::string_view p : pieces)
    if (!p.empty()) piece(p);
  return {};
}

}  // namespace assay::text
