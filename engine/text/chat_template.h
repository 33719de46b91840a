// Chat templates, rendered in C++ and recognised by the jinja that a checkpoint carries.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace assay::text {

struct ChatOptions {
  bool add_generation_prompt = true;
  std::optional<bool> enable_thinking;          // absent: the template's default (GLM: on)
  std::optional<std::string> reasoning_effort;  // GLM: "high", anything else means max
  std::optional<bool> clear_thinking;           // GLM: false keeps the reasoning of old turns
  OrderedJson tools;                            // an array of function definitions, or null
};

class ChatTemplate {
 public:
  // Reads chat_template.jinja of a checkpoint folder (else "chat_template" of
  // tokenizer_config.json) and recognises the family by its content. An unknown template is an
  // error that names the supported families.
  static Result<ChatTemplate> load(const std::filesystem::path& model_dir);
  static Result<ChatTemplate> recognise(std::string_view jinja, std::string_view source);

  // `messages` is an array of {"role": "system"|"user"|"assistant"|"tool", "content": …, …} as the
  // OpenAI API has it. Equal, byte for byte, to what transformers' apply_chat_template renders.
  Result<std::string> render(const OrderedJson& messages, const ChatOptions& options) const;

  std::string_view family() const { return family_; }              // "glm-5.2"
  const std::string& fingerprint() const { return fingerprint_; }  // hash of the jinja text

 private:
  std::string_view family_;
  std::string fingerprint_;
};

// Where thinking begins and ends in a reply, and where a turn ends. Text of special tokens of the
// family.
inline constexpr std::string_view kThinkOpen = "<think>";
inline constexpr std::string_view kThinkClose = "</think>";

}  // namespace assay::text
