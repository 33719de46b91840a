// A text that a verb works on: given as text, as rendered chat, or as token ids.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace assay::cli {

struct TextFlags {
  std::string text, text_file;
  std::vector<int> ids;
  bool chat = false;  // wrap the text as one user message
};

void add_text_flags(CLI::App& app, TextFlags& flags);

// Exactly one of text, --file and --ids must be given.
Result<std::vector<int>> token_ids(const TextFlags& flags, const engine::Engine& engine);

}  // namespace assay::cli
