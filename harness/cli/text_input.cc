#include "harness/cli/text_input.h"

#include "base/file.h"

namespace assay::cli {

void add_text_flags(CLI::App& app, TextFlags& flags) {
  app.add_option("text", flags.text, "The text; special tokens in it are recognised");
  app.add_option("--file", flags.text_file, "Read the text from a file");
  app.add_option("--ids", flags.ids, "Token ids instead of a text")->delimiter(',');
  app.add_flag("--chat", flags.chat,
               "Render the text as a user's message with the model's chat template");
}

Result<std::vector<int>> token_ids(const TextFlags& flags, const engine::Engine& engine) {
  const int n_given = (flags.text.empty() ? 0 : 1) + (flags.text_file.empty() ? 0 : 1) +
                      (flags.ids.empty() ? 0 : 1);
  if (n_given != 1) return fail("give exactly one of a text, --file and --ids (got {})", n_given);
  if (!flags.ids.empty()) return flags.ids;
  std::string text = flags.text;
  if (!flags.text_file.empty()) {
    ASSAY_TRY(text, read_file(flags.text_file));
  }
  if (flags.chat) {
    const OrderedJson messages = OrderedJson::array({{{"role", "user"}, {"content", text}}});
    ASSAY_TRY(text, engine.chat_template().render(messages, {}));
  }
  return engine.tokenizer().encode(text);
}

}  // namespace assay::cli
