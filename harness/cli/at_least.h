// Bounds for a numeric option, refused in words: CLI11's own PositiveNumber and NonNegativeNumber
// print the whole range of double, and its Range six digits and takes NaN.
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

inline CLI::Validator between(double least, double most) {
  return CLI::Validator(
      [least, most](std::string& text) {
        double value = 0;
        const bool is_number = CLI::detail::lexical_cast(text, value);
        return is_number && value >= least && value <= most
                   ? std::string()
                   : fmt::format("got {}, expected a number from {:g} to {:g}.", text, least, most);
      },
      "");
}

}  // namespace assay::cli
