// What was written wrongly on a command line, in this program's words.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace assay::cli {

// CLI11's message, or a plainer one: of a value of another type, of an option that is given twice,
// of too many arguments. Ends with a full stop.
std::string parse_error_text(const CLI::App& verb, const CLI::ParseError& error);

}  // namespace assay::cli
