// Tables for a terminal: columns that align whatever the script, and colour where there is any.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace assay::harness {

// Cells that a terminal gives to the text: 2 for East Asian wide characters, 0 for combining marks.
int display_width(std::string_view utf8);

enum class Ink { kPlain, kGood, kBad, kWarn, kSoft, kBold };

std::string painted(std::string_view text, Ink ink, bool colour);

struct Cell {
  std::string text;
  bool right = false;
  Ink ink = Ink::kPlain;
};

// Columns as wide as their widest cell, two blanks between them.
std::string table_text(const std::vector<std::vector<Cell>>& rows, bool colour);

}  // namespace assay::harness
