// assay tokenize: text to token ids and back, with the chat template if asked.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>

#include "base/file.h"
#include "base/json.h"
#include "base/plural.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "harness/cli/verb.h"

namespace assay::cli {
namespace {

struct Options {
  std::string model, text, chat_file, tools_file;
  std::vector<int> ids;
  bool no_thinking = false, plain = false, json = false;
};

Result<std::string> render_chat(const Options& o) {
  ASSAY_TRY(const text::ChatTemplate chat, text::ChatTemplate::load(o.model));
  ASSAY_TRY(const std::string messages_text, read_file(o.chat_file));
  ASSAY_TRY(const OrderedJson messages, parse_ordered_json(messages_text, o.chat_file));
  text::ChatOptions options;
  if (o.no_thinking) options.enable_thinking = false;
  if (!o.tools_file.empty()) {
    ASSAY_TRY(const std::string tools_text, read_file(o.tools_file));
    ASSAY_TRY(options.tools, parse_ordered_json(tools_text, o.tools_file));
  }
  return chat.render(messages, options);
}

std::string shown(std::string_view bytes) {
  return Json(std::string(bytes)).dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<int> decode(const Options& o, const text::Tokenizer& tokenizer) {
  ASSAY_TRY(const std::string text, tokenizer.decode(o.ids));
  if (o.json)
    std::puts(Json{{"ids", o.ids}, {"text", text}}.dump(2).c_str());
  else
    std::puts(text.c_str());
  return kPass;
}

Result<int> run(const Options& o) {
  ASSAY_TRY(const text::Tokenizer tokenizer,
            text::Tokenizer::load(fs::path(o.model) / "tokenizer.json"));
  if (!o.ids.empty()) return decode(o, tokenizer);
  std::string text = o.text;
  if (!o.chat_file.empty()) {
    ASSAY_TRY(text, render_chat(o));
  } else if (text.empty() || text == "-") {
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
  }
  ASSAY_TRY(const std::vector<int> ids, tokenizer.encode(text, !o.plain));
  if (o.json) {
    std::puts(Json{{"text", text}, {"ids", ids}}.dump(2).c_str());
    return kPass;
  }
  if (!o.chat_file.empty()) fmt::print("{}\n\n", text);
  for (const int id : ids)
    fmt::print("{:>8}  {}{}\n", id, shown(tokenizer.bytes(id)),
               tokenizer.is_special(id) ? "  special" : "");
  fmt::print("\n{}, {}\n", counted(ids.size(), "token"), counted(text.size(), "byte"));
  return kPass;
}

}  // namespace

const Verb tokenize_verb{
    .name = "tokenize",
    .summary = "Text to token ids and back, exactly as the model sees it",
    .examples =
        "  assay tokenize --model golden/micro-glm/model \"127 × 8 = ?\"\n"
        "  assay tokenize --model M --chat messages.json --no-thinking\n"
        "      the rendered chat template and its ids; messages as the OpenAI API has them\n"
        "  assay tokenize --model M --ids 3058,16,17\n"
        "      ids back to text\n",
    .setup = [](CLI::App& app) -> Action {
      auto o = std::make_shared<Options>();
      app.add_option("-m,--model", o->model, "Checkpoint folder (tokenizer.json, chat template)")
          ->required();
      app.add_option("text", o->text, "The text; - or nothing: standard input");
      app.add_option("--chat", o->chat_file, "A JSON file of chat messages to render instead");
      app.add_option("--tools", o->tools_file, "A JSON file of tool definitions for the template");
      app.add_flag("--no-thinking", o->no_thinking, "Render with thinking off");
      app.add_flag("--plain", o->plain, "Do not recognise special tokens in the text");
      app.add_option("--ids", o->ids, "Token ids to decode instead")->delimiter(',');
      app.add_flag("--json", o->json, "Print JSON");
      return [o] { return run(*o); };
    }};

}  // namespace assay::cli
