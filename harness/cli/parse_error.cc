#include "harness/cli/parse_error.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

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

// As one line that can be read, whatever was given.
std::string shown(std::string_view value) {
  constexpr std::size_t kMost = 80;
  std::size_t n = std::min(kMost, value.size());
  while (n < value.size() && (static_cast<unsigned char>(value[n]) & 0xC0) == 0x80) --n;
  std::string out(value.substr(0, n));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7F) c = '?';
  return value.size() > kMost ? out + "…" : out;
}

}  // namespace

std::string parse_error_text(const CLI::App& verb, const CLI::ParseError& error) {
  constexpr std::string_view kOfType = "Could not convert: ", kIs = " = ", kMost = ": At Most ",
                             kReceived = " required but received ";
  const std::string what = error.what();
  if (const std::size_t is = what.find(kIs); what.starts_with(kOfType) && is != std::string::npos) {
    const std::string name = what.substr(kOfType.size(), is - kOfType.size());
    return fmt::format("{}: got '{}', expected {}.", name,
                       shown(std::string_view(what).substr(is + kIs.size())),
                       expected_of(verb, name));
  }
  const std::size_t most = what.find(kMost), received = what.find(kReceived);
  if (most != std::string::npos && received != std::string::npos) {
    const std::string name = what.substr(0, most), got = what.substr(received + kReceived.size());
    if (name.starts_with("-"))
      return fmt::format("{} is given {} times, expected once.", name, got);
    return fmt::format("{}: got {}, expected at most {}.", name, got,
                       what.substr(most + kMost.size(), received - most - kMost.size()));
  }
  return what.ends_with('.') ? what : what + ".";
}

}  // namespace assay::cli
