#include "harness/table.h"

#include <fmt/format.h>
#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <cstdint>

namespace assay::harness {

int display_width(std::string_view utf8) {
  int width = 0;
  const auto n = static_cast<std::int32_t>(utf8.size());
  for (std::int32_t i = 0; i < n;) {
    UChar32 c;
    U8_NEXT(reinterpret_cast<const std::uint8_t*>(utf8.data()), i, n, c);
    if (c < 0) {  // shown as one replacement character
      ++width;
      continue;
    }
    const auto category = u_charType(c);
    if (category == U_NON_SPACING_MARK || category == U_ENCLOSING_MARK ||
        category == U_FORMAT_CHAR || category == U_CONTROL_CHAR)
      continue;
    const int east_asian = u_getIntPropertyValue(c, UCHAR_EAST_ASIAN_WIDTH);
    width += east_asian == U_EA_WIDE || east_asian == U_EA_FULLWIDTH ? 2 : 1;
  }
  return width;
}

std::string painted(std::string_view text, Ink ink, bool colour) {
  if (!colour || ink == Ink::kPlain) return std::string(text);
  const std::string_view code = ink == Ink::kGood   ? "32"
                                : ink == Ink::kBad  ? "31"
                                : ink == Ink::kWarn ? "33"
                                : ink == Ink::kSoft ? "2"
                                                    : "1";
  return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

std::string table_text(const std::vector<std::vector<Cell>>& rows, bool colour) {
  std::vector<int> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], display_width(row[i].text));
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line = " ";
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string pad(static_cast<std::size_t>(widths[i] - display_width(row[i].text)), ' ');
      const std::string text = painted(row[i].text, row[i].ink, colour);
      line += " " + (row[i].right ? pad + text : i + 1 == row.size() ? text : text + pad) + " ";
    }
    while (line.ends_with(' ')) line.pop_back();
    out += line + "\n";
  }
  return out;
}

}  // namespace assay::harness
