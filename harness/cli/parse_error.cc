#include "harness/cli/parse_error.h"

#include <fmt/format.h>

#include <regex>

namespace assay::cli {
namespace {

std::string expected_of(const CLI::App& verb, const std::string& name) {
  const CLI::Option* option = verb.get_option_no_throw(name);
  if (option == nullptr) return "another kind of value";
  const std::string type = option->get_type_name();
  const bool is_list = option->get_delimiter() != '\0';
  if (type.starts_with("FLOAT")) return is_list ? "numbers" : "a number";
  return is_list ? "whole numbers" : "a whole number";
}

}  // namespace

std::string parse_error_text(const CLI::App& verb, const CLI::ParseError& error) {
  std::string what = error.what();
  std::smatch part;
  static const std::regex of_type("Could not convert: (\\S+) = (.*)"),
      too_many("(\\S+): At Most (\\d+) required but received (\\d+)");
  if (std::regex_match(what, part, of_type))
    return fmt::format("{}: got '{}', expected {}.", part.str(1), part.str(2),
                       expected_of(verb, part.str(1)));
  if (std::regex_match(what, part, too_many)) {
    if (part.str(1).starts_with("-"))
      return fmt::format("{} is given {} times, expected once.", part.str(1), part.str(3));
    return fmt::format("{}: got {}, expected at most {}.", part.str(1), part.str(3), part.str(2));
  }
  return what.ends_with('.') ? what : what + ".";
}

}  // namespace assay::cli
