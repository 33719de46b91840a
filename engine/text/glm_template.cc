#include "engine/text/glm_template.h"

#include <algorithm>
#include <array>

#include "engine/text/python_json.h"

namespace assay::text {
namespace {

constexpr std::string_view kToolsIntro =
    "<|system|>\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n";
constexpr std::string_view kToolsOutro =
    "</tools>\n\nFor each function call, output the function name and arguments within the "
    "following XML format:\n"
    "<tool_call>{function-name}<arg_key>{arg-key-1}</arg_key><arg_value>{arg-value-1}</"
    "arg_value><arg_key>{arg-key-2}"
    "</arg_key><arg_value>{arg-value-2}</arg_value>...</tool_call>";

bool truthy(const OrderedJson& v) {
  switch (v.type()) {
    case OrderedJson::value_t::null:
      return false;
    case OrderedJson::value_t::boolean:
      return v.get<bool>();
    case OrderedJson::value_t::string:
      return !v.get_ref<const std::string&>().empty();
    case OrderedJson::value_t::array:
    case OrderedJson::value_t::object:
      return !v.empty();
    default:
      return v.get<double>() != 0;
  }
}

const OrderedJson& field(const OrderedJson& object, const char* key) {
  static const OrderedJson kNull;
  return object.is_object() && object.contains(key) ? object[key] : kNull;
}

// A tool may be {"type": "function", "function": {…}} or the function itself.
const OrderedJson& function_of(const OrderedJson& tool) {
  return tool.contains("function") ? tool["function"] : tool;
}

std::string tool_json(const OrderedJson& tool) {
  std::string out = "{";
  for (const auto& [key, value] : tool.items()) {
    if (key == "defer_loading" || key == "strict") continue;
    if (out.size() > 1) out += ", ";
    out += "\"" + key + "\": " + python_json(value);
  }
  return out + "}";
}

constexpr std::array<std::string_view, 7> kMedia = {"image", "image_url", "video",      "video_url",
                                                    "audio", "audio_url", "input_audio"};

std::string media_reminder(std::string type) {
  for (const std::string_view part : {"_url", "input_"})
    for (auto at = type.find(part); at != std::string::npos; at = type.find(part))
      type.erase(at, part.size());
  return "<reminder>You are unable to process this " + type +
         " because you don't have multi-modal input ability. Try different methods.</reminder>";
}

// Text of a message's content: a string, or a list of parts of which only text and reminders show.
// Absent content is nothing; null is "None", as jinja prints it.
Result<std::string> visible_text(const OrderedJson& owner, std::size_t message) {
  if (!owner.contains("content")) return std::string();
  const OrderedJson& content = owner["content"];
  if (content.is_object())
    return fail("message {}: content is an object, expected a string or a list of parts", message);
  if (!content.is_array()) return python_str(content);
  std::string out;
  for (const OrderedJson& item : content) {
    if (item.is_string()) {
      out += item.get<std::string>();
    } else if (item.is_object() && field(item, "type") == "text") {
      if (!field(item, "text").is_string())
        return fail("message {}: a part of type text has no text", message);
      out += item["text"].get<std::string>();
    } else if (item.is_object() && field(item, "type").is_string() &&
               std::find(kMedia.begin(), kMedia.end(), item["type"].get<std::string>()) !=
                   kMedia.end()) {
      out += media_reminder(item["type"].get<std::string>());
    }
  }
  return out;
}

class Renderer {
 public:
  Renderer(const OrderedJson& messages, const ChatOptions& options)
      : messages_(messages), options_(options) {}

  Result<std::string> render() {
    out_ = "[gMASK]<sop>";
    const bool thinking = options_.enable_thinking.value_or(true);
    if (thinking)
      out_ += options_.reasoning_effort == "high" ? "<|system|>Reasoning Effort: High"
                                                  : "<|system|>Reasoning Effort: Max";
    ASSAY_TRY_VOID(tools());
    std::size_t last_user = messages_.size();
    for (std::size_t i = 0; i < messages_.size(); ++i)
      if (messages_[i]["role"] == "user") last_user = i;
    for (std::size_t i = 0; i < messages_.size(); ++i) {
      const OrderedJson& m = messages_[i];
      const std::string role = m["role"];
      if (role == "user" || role == "system") {
        ASSAY_TRY(const std::string text, visible_text(m, i));
        out_ += (role == "user" ? "<|user|>" : "<|system|>") + text;
      } else if (role == "assistant") {
        ASSAY_TRY_VOID(assistant(m, i, last_user == messages_.size() || i > last_user));
      } else {
        ASSAY_TRY_VOID(tool_result(m, i));
      }
    }
    if (options_.add_generation_prompt)
      out_ += thinking ? "<|assistant|><think>" : "<|assistant|><think></think>";
    return std::move(out_);
  }

 private:
  Result<void> tools() {
    if (!truthy(options_.tools)) return {};
    if (!options_.tools.is_array()) return fail("tools: expected a list of function definitions");
    out_ += kToolsIntro;
    for (const OrderedJson& tool : options_.tools) {
      if (!tool.is_object() || !function_of(tool).is_object())
        return fail("tools: expected objects with a name");
      const OrderedJson& function = function_of(tool);
      if (!truthy(field(function, "defer_loading"))) out_ += tool_json(function) + "\n";
    }
    out_ += kToolsOutro;
    return {};
  }

  Result<void> assistant(const OrderedJson& m, std::size_t index, bool after_last_user) {
    out_ += "<|assistant|>";
    ASSAY_TRY(std::string content, visible_text(m, index));
    std::optional<std::string> reasoning;
    constexpr std::string_view kClose = "</think>", kOpen = "<think>";
    if (field(m, "reasoning_content").is_string()) {
      reasoning = m["reasoning_content"].get<std::string>();
    } else if (const auto close = content.find(kClose); close != std::string::npos) {
      std::string before = content.substr(0, close);
      if (const auto open = before.rfind(kOpen); open != std::string::npos)
        before.erase(0, open + kOpen.size());
      reasoning = before;
      content = content.substr(content.rfind(kClose) + kClose.size());
    }
    const bool keep =
        (options_.clear_thinking.has_value() && !*options_.clear_thinking) || after_last_user;
    out_ += keep && reasoning ? "<think>" + *reasoning + "</think>" : "<think></think>";
    out_ += python_strip(content);
    return tool_calls(field(m, "tool_calls"), index);
  }

  Result<void> tool_calls(const OrderedJson& calls, std::size_t index) {
    if (!truthy(calls)) return {};
    if (!calls.is_array()) return fail("message {}: tool_calls is not a list", index);
    for (const OrderedJson& item : calls) {
      const OrderedJson& call = truthy(field(item, "function")) ? item["function"] : item;
      if (!field(call, "name").is_string())
        return fail("message {}: a tool call has no name", index);
      const OrderedJson& arguments = field(call, "arguments");
      if (!arguments.is_object())
        return fail(
            "message {}: arguments of tool call {} are not an object. Parse the JSON string that "
            "the API gives first.",
            index, call["name"].get<std::string>());
      out_ += "<tool_call>" + call["name"].get<std::string>();
      for (const auto& [key, value] : arguments.items())
        out_ += "<arg_key>" + key + "</arg_key><arg_value>" +
                (value.is_string() ? value.get<std::string>() : python_json(value)) +
                "</arg_value>";
      out_ += "</tool_call>";
    }
    return {};
  }

  Result<void> tool_result(const OrderedJson& m, std::size_t index) {
    if (index == 0 || messages_[index - 1]["role"] != "tool") out_ += "<|observation|>";
    const OrderedJson& content = field(m, "content");
    const OrderedJson first = content.is_array() && !content.empty() ? content[0] : OrderedJson();
    if (field(first, "type") == "tool_reference") return tool_references(content);
    if (first.is_object() && first.contains("output")) {
      for (const OrderedJson& part : content) {
        if (!field(part, "output").is_string())
          return fail("message {}: output of a tool result is not a string", index);
        out_ += "<tool_response>" + part["output"].get<std::string>() + "</tool_response>";
      }
      return {};
    }
    ASSAY_TRY(const std::string text, visible_text(m, index));
    out_ += "<tool_response>" + text + "</tool_response>";
    return {};
  }

  Result<void> tool_references(const OrderedJson& content) {
    out_ += "<tool_response><tools>\n";
    for (const OrderedJson& reference : content)
      if (options_.tools.is_array())
        for (const OrderedJson& tool : options_.tools)
          if (field(function_of(tool), "name") == field(reference, "name"))
            out_ += tool_json(function_of(tool)) + "\n";
    out_ += "</tools></tool_response>";
    return {};
  }

  const OrderedJson& messages_;
  const ChatOptions& options_;
  std::string out_;
};

}  // namespace

Result<std::string> render_glm(const OrderedJson& messages, const ChatOptions& options) {
  if (!messages.is_array()) return fail("messages: expected a list");
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const OrderedJson& role = field(messages[i], "role");
    // The template would render nothing for a role that it does not know: a typo must not swallow a
    // message.
    if (role != "system" && role != "user" && role != "assistant" && role != "tool")
      return fail("message {}: role is {}, expected system, user, assistant or tool", i,
                  role.dump(-1, ' ', false, OrderedJson::error_handler_t::replace));
  }
  return Renderer(messages, options).render();
}

}  // namespace assay::text
