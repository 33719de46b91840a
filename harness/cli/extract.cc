// assay extract: which number a reply ends in, by which rule, and where it stands.
#include "harness/extract.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>

#include "base/csv.h"
#include "base/json.h"
#include "base/plural.h"
#include "base/suggest.h"
#include "engine/text/unicode.h"
#include "harness/cli/verb.h"

namespace assay::cli {
namespace {

using harness::Extraction;
using Found = std::optional<Extraction>;

struct Options {
  std::string text, language, pipeline = "flexible";
  bool json = false;
};

const std::vector<std::string> kLanguages = {"ja", "en", "zh"};
const std::vector<std::string> kColumns = {"language", "text", "expected", "reason"};

Result<void> check_utf8(std::string_view bytes, std::string_view source) {
  const auto bad = text::first_invalid_utf8(bytes);
  if (!bad) return {};
  const auto line = 1 + std::count(bytes.begin(), bytes.begin() + static_cast<long>(*bad), '\n');
  return fail(
      "{}:{}: expected UTF-8, got the byte 0x{:02x} at byte {}. Convert it first (iconv -t "
      "utf-8).",
      source, line, static_cast<unsigned char>(bytes[*bad]), *bad);
}

Result<void> check_language(const std::string& language, std::string_view where) {
  if (std::find(kLanguages.begin(), kLanguages.end(), language) != kLanguages.end()) return {};
  return fail("{}: expected the language ja, en or zh, got '{}'.{}", where, language,
              suggestion(language, kLanguages));
}

// "答えは⟦18⟧です。", on one line.
std::string marked(std::string_view text, const Found& found) {
  std::string out(text);
  if (found) {
    out.insert(found->end, "⟧");
    out.insert(found->begin, "⟦");
  }
  for (std::size_t at = 0; (at = out.find('\n', at)) != std::string::npos;) out.replace(at, 1, "⏎");
  return out;
}

Json to_json(std::string_view text, const Found& found) {
  if (!found) return nullptr;
  return {{"value", found->value},
          {"rule", found->rule},
          {"begin", found->begin},
          {"end", found->end},
          {"span", text.substr(found->begin, found->end - found->begin)},
          {"per", found->per}};
}

int run_text(const Options& o, const std::string& text, harness::Pipeline pipeline) {
  const Found found = harness::extract_number(text, o.language, pipeline);
  if (o.json) {
    std::puts(Json{{"language", o.language},
                   {"text", text},
                   {"pipeline", o.pipeline},
                   {"extraction", to_json(text, found)}}
                  .dump(2)
                  .c_str());
  } else if (found) {
    fmt::print("value  {}\nrule   {}\nspan   bytes {} to {}: {}\n", found->value, found->rule,
               found->begin, found->end, marked(text, found));
  } else {
    fmt::print("value  none\nNo rule of the {} pipeline finds exactly one answer in: {}\n",
               o.pipeline, marked(text, found));
  }
  return kPass;
}

using Columns = std::map<std::string, std::size_t, std::less<>>;

Result<Columns> find_columns(const CsvTable& table, std::string_view source) {
  Columns columns;
  for (std::size_t i = 0; i < table.header.size(); ++i) {
    const std::string& name = table.header[i];
    if (std::find(kColumns.begin(), kColumns.end(), name) == kColumns.end())
      return fail(
          "{}:1: expected the columns language, text and perhaps expected, reason, got "
          "'{}'.{} For a plain text say its language: --lang ja.",
          source, name, suggestion(name, kColumns));
    if (!columns.emplace(name, i).second)
      return fail("{}:1: column '{}' is there twice. Keep one.", source, name);
  }
  for (const char* name : {"language", "text"})
    if (!columns.contains(name))
      return fail(
          "{}:1: column '{}' is missing, got '{}'. Expected language,text or "
          "language,text,expected.",
          source, name, fmt::join(table.header, ","));
  return columns;
}

// How a row's extraction meets its expectation.
enum class Agreement { kNotAsked, kAgrees, kNone, kWrong };
constexpr std::string_view kAgreements[] = {"", "agrees", "none", "wrong"};

Result<Agreement> compare(const Found& found, const std::string& expected,
                          const std::string& where) {
  if (expected == "none") return found ? Agreement::kWrong : Agreement::kAgrees;
  const auto number = harness::canonical_number(expected);
  if (!number)
    return fail("{}: 'expected' must be a number (1016, -5, 1/2, 50%) or none, got '{}'", where,
                expected);
  if (!found) return Agreement::kNone;
  return harness::answers(*found, *number) ? Agreement::kAgrees : Agreement::kWrong;
}

struct Judged {
  int line;
  std::string language, text, expected;
  Found found;
  Agreement agreement = Agreement::kNotAsked;
};

Result<std::vector<Judged>> judge_rows(const CsvTable& table, const Columns& columns,
                                       std::string_view source, harness::Pipeline pipeline) {
  std::vector<Judged> rows;
  for (const CsvRow& row : table.rows) {
    const std::string where = fmt::format("{}:{}", source, row.line);
    Judged judged{
        row.line, row.fields[columns.at("language")], row.fields[columns.at("text")], {}, {}};
    ASSAY_TRY_VOID(check_language(judged.language, where));
    judged.found = harness::extract_number(judged.text, judged.language, pipeline);
    if (const auto expected = columns.find("expected"); expected != columns.end()) {
      judged.expected = row.fields[expected->second];
      ASSAY_TRY(judged.agreement, compare(judged.found, judged.expected, where));
    }
    rows.push_back(std::move(judged));
  }
  return rows;
}

void print_rows(const std::vector<Judged>& rows) {
  for (const Judged& row : rows) {
    fmt::print("{:>5}  {}  {:<14} {:<12} {}{}\n", row.line, row.language,
               row.found ? row.found->value : "none", row.found ? row.found->rule : "",
               marked(row.text, row.found),
               row.agreement == Agreement::kWrong  ? "  WRONG: expected " + row.expected
               : row.agreement == Agreement::kNone ? "  not read: expected " + row.expected
                                                   : "");
  }
}

Result<int> run_csv(const Options& o, std::string_view csv, std::string_view source,
                    harness::Pipeline pipeline) {
  ASSAY_TRY(const CsvTable table, parse_csv(csv, source));
  ASSAY_TRY(const Columns columns, find_columns(table, source));
  ASSAY_TRY(const std::vector<Judged> rows, judge_rows(table, columns, source, pipeline));
  const auto count = [&](Agreement agreement) {
    return std::count_if(rows.begin(), rows.end(),
                         [&](const Judged& row) { return row.agreement == agreement; });
  };
  const bool asked = columns.contains("expected");
  const auto n_agree = count(Agreement::kAgrees), n_none = count(Agreement::kNone),
             n_wrong = count(Agreement::kWrong);
  if (o.json) {
    Json out = {{"pipeline", o.pipeline}, {"rows", Json::array()}};
    for (const Judged& row : rows) {
      Json one = {{"line", row.line},
                  {"language", row.language},
                  {"text", row.text},
                  {"extraction", to_json(row.text, row.found)}};
      if (asked) {
        one["expected"] = row.expected;
        one["agreement"] = kAgreements[static_cast<std::size_t>(row.agreement)];
      }
      out["rows"].push_back(std::move(one));
    }
    if (asked) out.update({{"n_agree", n_agree}, {"n_none", n_none}, {"n_wrong", n_wrong}});
    std::puts(out.dump(2).c_str());
  } else {
    print_rows(rows);
    if (asked)
      fmt::print("\n{} of {} agree, {} not read, {} wrong\n", n_agree, counted(rows.size(), "row"),
                 n_none, n_wrong);
  }
  return n_wrong > 0 ? kRegression : kPass;
}

Result<int> run(const Options& o) {
  const auto pipeline = harness::parse_pipeline(o.pipeline);
  if (!pipeline) {
    const std::vector<std::string> known = {"flexible", "strict"};
    return fail("--pipeline: expected flexible or strict, got '{}'.{}", o.pipeline,
                suggestion(o.pipeline, known));
  }
  const bool from_input = o.text.empty() || o.text == "-";
  const std::string_view source = from_input ? "standard input" : "the text";
  if (!o.language.empty()) ASSAY_TRY_VOID(check_language(o.language, "--lang"));
  if (o.language.empty() && !from_input)
    return fail("the text's language is missing. Say --lang ja, --lang en or --lang zh.");
  std::string text = o.text;
  if (from_input) text.assign(std::istreambuf_iterator<char>(std::cin), {});
  ASSAY_TRY_VOID(check_utf8(text, source));
  if (o.language.empty()) return run_csv(o, text, source, *pipeline);
  return run_text(o, text, *pipeline);
}

}  // namespace

const Verb extract_verb{
    .name = "extract",
    .summary = "The final number of a reply, the rule that found it, and where it stands",
    .examples =
        "  assay extract --lang ja \"答えは14万2000円です。\"\n"
        "  assay extract --lang en --pipeline strict < reply.txt\n"
        "      strict: only places that say that they hold the answer; flexible: every rule\n"
        "  assay extract --lang en -- \"-5\"\n"
        "  assay extract < suites/extraction/cases.csv\n"
        "      without --lang: CSV with the columns language,text and perhaps expected (a number\n"
        "      or none); then it counts how many agree\n\n"
        "Exit codes: 0 done, 1 a number is not the expected one, 2 could not run.",
    .setup = [](CLI::App& app) -> Action {
      auto o = std::make_shared<Options>();
      app.add_option("text", o->text, "The reply; - or nothing: standard input");
      app.add_option("-l,--lang", o->language,
                     "Language of the text: ja, en, zh. Without it, standard input is CSV");
      app.add_option("--pipeline", o->pipeline, "Which rules may speak: flexible or strict")
          ->capture_default_str();
      app.add_flag("--json", o->json, "Print JSON");
      return [o] { return run(*o); };
    }};

}  // namespace assay::cli
