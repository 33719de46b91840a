#include "harness/cli/missing_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <string_view>

namespace assay::cli {
namespace {

// "--out", "--out=X", and of one dash what the verb knows: "-1" and "-" are values.
bool is_flag(const CLI::App& verb, std::string_view word) {
  if (word.starts_with("--"))
    return word.size() > 2 && std::isalpha(static_cast<unsigned char>(word[2])) != 0;
  return word.size() == 2 && word[0] == '-' &&
         verb.get_option_no_throw(std::string(word)) != nullptr;
}

std::string type_of(const CLI::Option& option) {
  return option.get_type_name().empty() ? "TEXT" : option.get_type_name();
}

// Of what `--baseline "$BASE"` gives where BASE is not set. An empty system prompt can be meant.
std::string empty_value(const CLI::Option& option, std::string_view flag) {
  if (option.check_lname("system")) return "";
  return fmt::format(
      "{} needs a value ({}), got an empty one: is a variable of the shell not set? Leave {} out "
      "if nothing is meant.",
      flag, type_of(option), flag);
}

// A text may be empty; a folder, a file or a name may not.
bool takes_a_text(const CLI::App& verb) {
  const std::vector<const CLI::Option*> options = verb.get_options();
  return std::any_of(options.begin(), options.end(), [](const CLI::Option* option) {
    return option->get_positional() && (option->check_name("prompt") || option->check_name("text"));
  });
}

}  // namespace

std::string missing_value(const CLI::App& verb, std::span<char* const> words) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string_view word = words[i];
    if (word == "--") return "";  // what follows is no flag
    if (word.empty() && !takes_a_text(verb))
      return fmt::format("argument {} is empty: is a variable of the shell not set?", i + 1);
    if (!word.starts_with('-')) continue;
    const std::size_t joined = word.starts_with("--") ? word.find('=') : std::string_view::npos;
    const std::string_view flag = word.substr(0, joined);
    const CLI::Option* option = verb.get_option_no_throw(std::string(flag));
    if (option == nullptr || option->get_items_expected_min() == 0) continue;
    if (joined == std::string_view::npos && ++i == words.size()) return "";  // the parser says so
    // The value is no option, whatever it looks like.
    const std::string_view value =
        joined == std::string_view::npos ? words[i] : word.substr(joined + 1);
    if (joined == std::string_view::npos && is_flag(verb, value))
      return fmt::format(
          "{} needs a value ({}), got the flag '{}'. Give the value first; one that begins with "
          "dashes is written {}=VALUE.",
          flag, type_of(*option), value, flag);
    if (!value.empty()) continue;
    if (std::string wrong = empty_value(*option, flag); !wrong.empty()) return wrong;
  }
  return "";
}

void read_as_decimal(CLI::App& verb) {
  for (CLI::Option* option : verb.get_options()) {
    const std::string type = option->get_type_name();
    if (type != "N" && !type.starts_with("INT") && !type.starts_with("UINT")) continue;
    option->transform(CLI::Validator(
        [](std::string& text) {
          const std::size_t sign = text.starts_with('-') || text.starts_with('+') ? 1 : 0;
          const bool is_number =
              text.size() > sign + 1 &&
              std::all_of(text.begin() + static_cast<std::ptrdiff_t>(sign), text.end(),
                          [](unsigned char c) { return std::isdigit(c) != 0; });
          while (is_number && text[sign] == '0' && text.size() > sign + 1) text.erase(sign, 1);
          return std::string();
        },
        ""));
  }
}

}  // namespace assay::cli
