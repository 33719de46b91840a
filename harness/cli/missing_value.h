// A flag where another flag's value should be: CLI11 takes "--resume --out X" as a run in the
// folder "--out".
#pragma once

#include <CLI/CLI.hpp>
#include <span>
#include <string>

namespace assay::cli {

// What is wrong and how to write it; empty if nothing is. `words` are what follows the verb. A
// value that really begins so is written --name=--value.
std::string missing_value(const CLI::App& verb, std::span<char* const> words);

// "010" is ten: CLI11 reads it as eight, and refuses "08".
void read_as_decimal(CLI::App& verb);

}  // namespace assay::cli
