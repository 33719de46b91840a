#include "engine/text/corpus.h"

#include <algorithm>

#include "base/file.h"
#include "base/json_line.h"

namespace assay::text {
namespace {

Result<std::string> string_at(const OrderedJson& json, const char* key, std::string_view source) {
  if (!json.contains(key)) return std::string();
  if (!json[key].is_string()) return fail("{}: {} is not a string", source, key);
  return json[key].get<std::string>();
}

std::string keys_of(const OrderedJson& json) {
  std::string out;
  for (const auto& [key, value] : json.items())
    out += fmt::format("{}\"{}\"", out.empty() ? "" : ", ", key);
  return out.empty() ? "an empty object" : "the keys " + out;
}

// What stands for a message: a template renders nothing for one that lacks its content.
Result<void> check_messages(const OrderedJson& messages, std::string_view source) {
  if (!messages.is_array() || messages.empty())
    return fail("{}: messages is not a list of chat messages (docs/formats/corpus.md)", source);
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const OrderedJson& m = messages[i];
    const bool has_content = m.is_object() && m.contains("content") && !m["content"].is_null();
    const bool says_else =
        m.is_object() && (m.contains("tool_calls") || m.contains("reasoning_content"));
    if (!has_content && !says_else)
      return fail(
          "{}: message {} has no content, expected a role and a content "
          "(docs/formats/corpus.md)",
          source, i);
  }
  return {};
}

}  // namespace

Result<CorpusLine> parse_corpus_line(std::string_view text, std::string_view source) {
  ASSAY_TRY(const OrderedJson json, parse_ordered_json_line(text, source));
  if (!json.is_object()) return fail("{}: expected a JSON object", source);
  CorpusLine line;
  for (const auto& [key, out] : {std::pair{"id", &line.id},
                                 {"lang", &line.lang},
                                 {"kind", &line.kind},
                                 {"reply", &line.reply},
                                 {"text", &line.text}}) {
    ASSAY_TRY(*out, string_at(json, key, source));
  }
  if (json.contains("messages")) line.messages = json["messages"];
  if (json.contains("thinking")) {
    if (!json["thinking"].is_boolean()) return fail("{}: thinking is not true or false", source);
    line.thinking = json["thinking"].get<bool>();
  }
  if (line.messages.is_null() == line.text.empty())
    return fail(
        "{}: expected either messages (with a reply) or a text that is not empty, got {} "
        "(docs/formats/corpus.md)",
        source, line.messages.is_null() ? keys_of(json) : "both");
  if (!line.messages.is_null()) ASSAY_TRY_VOID(check_messages(line.messages, source));
  return line;
}

Result<std::vector<CorpusLine>> read_corpus(const std::filesystem::path& path) {
  ASSAY_TRY(const std::string file, read_text_file(path));
  if (const std::size_t first = file.find_first_not_of(" \t\r\n");
      first != std::string::npos && file[first] == '[')
    return fail(
        "{}: one JSON array, expected one JSON object a line, not in a list "
        "(docs/formats/corpus.md): "
        "jq -c '.[]' makes lines of it",
        path.string());
  std::vector<CorpusLine> out;
  std::size_t begin = 0;
  for (int number = 1; begin < file.size(); ++number) {
    const std::size_t end = std::min(file.find('\n', begin), file.size());
    const std::string_view line = std::string_view(file).substr(begin, end - begin);
    begin = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    ASSAY_TRY(CorpusLine parsed,
              parse_corpus_line(line, fmt::format("{}:{}", path.string(), number)));
    if (parsed.id.empty()) parsed.id = fmt::format("{}", number);
    out.push_back(std::move(parsed));
  }
  if (out.empty())
    return fail("{}: no text in it, expected one JSON object a line (docs/formats/corpus.md)",
                path.string());
  return out;
}

std::string to_jsonl(const CorpusLine& line) {
  OrderedJson json = {{"id", line.id}, {"lang", line.lang}};
  if (!line.kind.empty()) json["kind"] = line.kind;
  if (line.messages.is_null()) {
    json["text"] = line.text;
  } else {
    json["messages"] = line.messages;
    if (!line.thinking) json["thinking"] = false;
    if (!line.reply.empty()) json["reply"] = line.reply;
  }
  return json.dump() + "\n";
}

Result<std::vector<int>> prompt_ids(const CorpusLine& line, const Tokenizer& tokenizer,
                                    const ChatTemplate& chat_template) {
  ChatOptions options;
  options.enable_thinking = line.thinking;
  ASSAY_TRY(const std::string rendered, chat_template.render(line.messages, options));
  return tokenizer.encode(rendered);
}

Result<CorpusText> tokenize(const CorpusLine& line, const Tokenizer& tokenizer,
                            const ChatTemplate& chat_template) {
  CorpusText out{.id = line.id, .lang = line.lang, .ids = {}};
  if (line.messages.is_null()) {
    ASSAY_TRY(out.ids, tokenizer.encode(line.text));
    out.reply = out.answer = std::min<int>(1, static_cast<int>(out.ids.size()));
    return out;
  }
  ASSAY_TRY(out.ids, prompt_ids(line, tokenizer, chat_template));
  out.reply = out.answer = static_cast<int>(out.ids.size());
  ASSAY_TRY(const std::vector<int> reply, tokenizer.encode(line.reply));
  out.ids.insert(out.ids.end(), reply.begin(), reply.end());
  if (!line.thinking) return out;
  const auto close = tokenizer.id_of(kThinkClose);
  const auto at = close ? std::find(reply.begin(), reply.end(), *close) : reply.end();
  out.answer += static_cast<int>(
      std::min<std::ptrdiff_t>(at - reply.begin() + 1, static_cast<std::ptrdiff_t>(reply.size())));
  return out;
}

}  // namespace assay::text
