#include "harness/cli/missing_value.h"

#include <fmt/format.h>

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

}  // namespace

std::string missing_value(const CLI::App& verb, std::span<char* const> words) {
  for (std::size_t i = 0; i + 1 < words.size(); ++i) {
    const std::string_view word = words[i], next = words[i + 1];
    if (word == "--") return "";  // what follows is no flag
    if (!word.starts_with('-')) continue;
    const CLI::Option* option = verb.get_option_no_throw(std::string(word));
    if (option == nullptr || option->get_items_expected_min() == 0) continue;
    if (is_flag(verb, next))
      return fmt::format(
          "{} needs a value ({}), got the flag '{}'. Give the value first; one that begins with "
          "dashes is written {}=VALUE.",
          word, option->get_type_name().empty() ? "TEXT" : option->get_type_name(), next, word);
    ++i;  // the value is no option, whatever it looks like
  }
  return "";
}

}  // namespace assay::cli
