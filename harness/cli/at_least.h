// A lower bound for a numeric option, refused in words: CLI11's own PositiveNumber and
// NonNegativeNumber print the whole range of double.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <string>

namespace assay::cli {

inline CLI::Validator at_least(int least) {
  return CLI::Validator(
      [least](std::string& text) {
        double value = 0;
        const bool is_number = CLI::detail::lexical_cast(text, value);
        return is_number && value >= least
                   ? std::string()
                   : fmt::format("got {}, expected {} or more.", text, least);
      },
      "");
}

}  // namespace assay::cli
