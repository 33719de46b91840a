// Bounds for a numeric option, refused in words: CLI11's own PositiveNumber and NonNegativeNumber
// print the whole range of double, and its Range six digits and takes NaN.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <limits>
#include <string>
#include <system_error>

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

// An integer: CLI11 takes -1 for an unsigned one's largest, and more than 64 bits hold for
// something.
inline CLI::Validator whole_number(std::uint64_t least, std::uint64_t most) {
  return CLI::Validator(
      [least, most](std::string& text) {
        std::uint64_t value = 0;
        const char* const end = text.data() + text.size();
        const auto [last, error] = std::from_chars(text.data(), end, value);
        const bool is_number = error == std::errc() && last == end;
        return is_number && value >= least && value <= most
                   ? std::string()
                   : fmt::format("got {}, expected a whole number from {} to {}.", text, least,
                                 most);
      },
      "");
}
inline CLI::Validator any_seed() {
  return whole_number(0, std::numeric_limits<std::uint64_t>::max());
}
// Each is made: a slip of the finger must not bring down the machine.
inline CLI::Validator thread_count() { return whole_number(0, 1024); }

}  // namespace assay::cli
