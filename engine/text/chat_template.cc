#include "engine/text/chat_template.h"

#include <algorithm>
#include <array>

#include "base/file.h"
#include "base/hash.h"
#include "engine/text/glm_template.h"
#include "engine/text/unicode.h"

namespace assay::text {
namespace {

// Templates are recognised by what they say, not by the model's name: the hash of the jinja text
// without white space at its two ends. Another text may render anything, however alike it looks.
struct Family {
  std::string_view name, hash;
  Result<std::string> (*render)(const OrderedJson& messages, const ChatOptions& options);
};
constexpr std::array<Family, 1> kFamilies = {
    {{"glm-5.2", "ecd4cd91bdf7163638a4e58f3bbd66e1", render_glm}}};

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const auto first = text.find_first_not_of(kSpace);
  return first == std::string_view::npos
             ? ""
             : text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

}  // namespace

Result<ChatTemplate> ChatTemplate::recognise(std::string_view jinja, std::string_view source) {
  const std::string hash = hash_hex(trimmed(jinja));
  for (const Family& family : kFamilies)
    if (family.hash == hash) {
      ChatTemplate out;
      out.family_ = family.name;
      out.fingerprint_ = hash;
      return out;
    }
  return fail(
      "{}: unknown chat template (fingerprint {}). Supported: glm-5.2 as the vendor ships it. "
      "Templates are rendered by "
      "code of their own, so that a prompt is exactly right or an error; use the checkpoint's "
      "original file.",
      source, hash);
}

Result<ChatTemplate> ChatTemplate::load(const std::filesystem::path& model_dir) {
  const auto jinja = model_dir / "chat_template.jinja",
             config = model_dir / "tokenizer_config.json";
  ASSAY_TRY_VOID(check_link(jinja));
  if (std::filesystem::exists(jinja)) {
    ASSAY_TRY(const std::string text, read_file(jinja));
    return recognise(text, jinja.string());
  }
  ASSAY_TRY_VOID(check_link(config));
  if (std::filesystem::exists(config)) {
    ASSAY_TRY(const Json json, read_json(config));
    if (json.is_object() && json.contains("chat_template") && json["chat_template"].is_string())
      return recognise(json["chat_template"].get<std::string>(), config.string());
  }
  return fail(
      "{}: no chat template: expected chat_template.jinja, or chat_template in "
      "tokenizer_config.json. Download it again, or copy it from the model that this one was made "
      "of.",
      model_dir.string());
}

Result<std::string> ChatTemplate::render(const OrderedJson& messages,
                                         const ChatOptions& options) const {
  for (const Family& family : kFamilies)
    if (family.name == family_) return family.render(messages, options);
  return fail("this chat template was never loaded");
}

}  // namespace assay::text
