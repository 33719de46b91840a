#include "base/csv.h"

#include <csv.h>

#include <algorithm>
#include <memory>

namespace assay {
namespace {

struct Reader {
  std::vector<CsvRow> rows;
  std::vector<std::string> fields;
};

void on_field(void* data, std::size_t n, void* user) {
  static_cast<Reader*>(user)->fields.emplace_back(static_cast<const char*>(data), n);
}

void on_row(int, void* user) {
  auto* reader = static_cast<Reader*>(user);
  reader->rows.push_back({0, std::move(reader->fields)});
  reader->fields.clear();
}

}  // namespace

Result<CsvTable> parse_csv(std::string_view text, std::string_view source) {
  if (text.substr(0, 3) == "\xEF\xBB\xBF")
    text.remove_prefix(3);  // a spreadsheet's byte-order mark
  // As a spreadsheet writes it where the comma is in numbers. Said before its quotes look broken.
  std::string header;  // without what is quoted
  bool quoted = false;
  for (const char c : text.substr(0, text.find('\n'))) {
    if (c == '"') quoted = !quoted;
    if (!quoted) header += c;
  }
  for (const auto& [sign, name] : {std::pair{';', "';'"}, {'\t', "a tab"}})
    if (header.find(',') == std::string::npos && header.find(sign) != std::string::npos)
      return fail("{}:1: the header is one column: is {} the separator? A comma is expected.",
                  source, name);
  csv_parser parser;
  // Strict: a quote in the middle of an unquoted field, or text after a closing quote, is an error
  // and not data.
  if (csv_init(&parser, CSV_STRICT | CSV_STRICT_FINI | CSV_APPEND_NULL) != 0)
    return fail("{}: out of memory", source);
  const std::unique_ptr<csv_parser, void (*)(csv_parser*)> cleanup(&parser, csv_free);

  // libcsv does not report positions, so feed it line by line: a row starts on the first line that
  // is not blank after the last row ended.
  Reader reader;
  int line = 0, row_line = 0;  // 0: between rows
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t newline = text.find('\n', begin);
    const std::size_t end = newline == std::string_view::npos ? text.size() : newline + 1;
    ++line;
    const bool blank =
        text.substr(begin, end - begin).find_first_not_of(" \t\r\n") == std::string_view::npos;
    if (row_line == 0 && !blank) row_line = line;
    const std::size_t n_before = reader.rows.size();
    if (csv_parse(&parser, text.data() + begin, end - begin, on_field, on_row, &reader) !=
        end - begin)
      return fail(
          "{}:{}: broken quoting in the row that begins on line {}. Quote fields that hold commas, "
          "quotes or line breaks, and double every quote inside them.",
          source, line, row_line);
    for (std::size_t i = n_before; i < reader.rows.size(); ++i) reader.rows[i].line = row_line;
    if (reader.rows.size() > n_before) row_line = 0;
    begin = end;
  }
  const std::size_t n_before = reader.rows.size();
  if (csv_fini(&parser, on_field, on_row, &reader) != 0)
    return fail(
        "{}:{}: a quoted field of the row that begins here is never closed. Close it, and double "
        "every quote inside a field.",
        source, row_line);
  for (std::size_t i = n_before; i < reader.rows.size(); ++i) reader.rows[i].line = row_line;

  if (reader.rows.empty()) return fail("{}: empty, expected a header row", source);
  CsvTable table;
  table.header = std::move(reader.rows.front().fields);
  table.rows.assign(std::make_move_iterator(reader.rows.begin() + 1),
                    std::make_move_iterator(reader.rows.end()));
  for (const CsvRow& row : table.rows)
    if (row.fields.size() != table.header.size())
      return fail(
          "{}:{}: {} fields, expected {} as in the header. Quote fields that hold commas; what "
          "says nothing is an empty field.",
          source, row.line, row.fields.size(), table.header.size());
  return table;
}

}  // namespace assay
