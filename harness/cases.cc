#include "harness/cases.h"

#include <algorithm>
#include <map>

#include "base/csv.h"
#include "base/suggest.h"
#include "engine/text/unicode.h"
#include "harness/extract.h"
#include "harness/text_answer.h"

namespace assay::harness {
namespace {

constexpr std::string_view kRequired[] = {"id",     "cluster",  "language", "kind",  "profile",
                                          "prompt", "messages", "answer",   "steps", "note"};
constexpr std::string_view kOptional[] = {"gated", "scoring", "reasoning_language", "prefill"};

using Columns = std::map<std::string, std::size_t, std::less<>>;

Result<Columns> find_columns(const CsvTable& table, std::string_view source) {
  std::vector<std::string> known(std::begin(kRequired), std::end(kRequired));
  known.insert(known.end(), std::begin(kOptional), std::end(kOptional));
  Columns columns;
  for (std::size_t i = 0; i < table.header.size(); ++i) {
    const std::string& name = table.header[i];
    if (std::find(known.begin(), known.end(), name) == known.end())
      return fail("{}:1: unknown column '{}'.{}", source, name, suggestion(name, known));
    if (!columns.emplace(name, i).second)
      return fail("{}:1: column '{}' is there twice", source, name);
  }
  for (const std::string_view name : kRequired)
    if (!columns.contains(name))
      return fail("{}:1: missing column '{}' (leave its fields empty where it says nothing)",
                  source, name);
  return columns;
}

Result<OrderedJson> parse_messages(const std::string& text, const std::string& where) {
  ASSAY_TRY(OrderedJson messages, parse_ordered_json(text, where + ": messages"));
  const std::string expected =
      "'messages' must be a non-empty JSON list of {\"role\": system|user|assistant|tool, "
      "\"content\": …}";
  if (!messages.is_array() || messages.empty()) return fail("{}: {}", where, expected);
  for (const OrderedJson& message : messages) {
    if (!message.is_object() || !message.contains("role") || !message["role"].is_string() ||
        !message.contains("content"))
      return fail("{}: {}", where, expected);
    const std::string& role = message["role"].get_ref<const std::string&>();
    if (role != "system" && role != "user" && role != "assistant" && role != "tool")
      return fail("{}: unknown role '{}'. {}", where, role, expected);
  }
  return messages;
}

// What the column `answer` holds, by the way in which the case is judged.
Result<std::string> parse_answer(const std::string& written, Scoring scoring,
                                 const std::string& where) {
  switch (scoring) {
    case Scoring::kNumber:
      if (const auto number = canonical_number(written)) return *number;
      return fail("{}: 'answer' must be a number (1016, -5, 0.25, 1/2, 50%), got '{}'", where,
                  written);
    case Scoring::kText:
      if (accepted_answers(written).empty())
        return fail("{}: 'answer' is empty, expected what is accepted, separated by |", where);
      return written;
    case Scoring::kNeedle:
      return fail("{}: needles come from a generator, not from a file of cases", where);
    case Scoring::kLanguage:
    case Scoring::kNone:
      if (!written.empty())
        return fail("{}: 'answer' must be empty where scoring is {}, got '{}'", where,
                    name_of(scoring), written);
      return written;
  }
  return written;
}

}  // namespace

Result<std::vector<Case>> parse_cases(std::string_view csv, std::string_view source,
                                      const std::vector<std::string>& languages, Scoring scoring) {
  if (const auto bad = text::first_invalid_utf8(csv)) {
    const auto line = 1 + std::count(csv.begin(), csv.begin() + static_cast<long>(*bad), '\n');
    return fail("{}:{}: not valid UTF-8 at byte {}. Save the file as UTF-8.", source, line, *bad);
  }
  ASSAY_TRY(const CsvTable table, parse_csv(csv, source));
  ASSAY_TRY(const Columns columns, find_columns(table, source));

  std::vector<Case> cases;
  std::map<std::string, int, std::less<>> line_of_id;
  for (const CsvRow& row : table.rows) {
    const std::string where = fmt::format("{}:{}", source, row.line);
    const auto field = [&](std::string_view name) -> const std::string& {
      return row.fields[columns.find(name)->second];
    };
    const auto optional_field = [&](std::string_view name) {
      return columns.contains(name) ? field(name) : std::string();
    };
    Case c;
    for (const auto& [name, target] : {std::pair{"id", &c.id},
                                       {"cluster", &c.cluster},
                                       {"language", &c.language},
                                       {"kind", &c.kind}}) {
      *target = field(name);
      if (target->empty()) return fail("{}: '{}' is empty", where, name);
    }
    if (const auto [at, is_new] = line_of_id.emplace(c.id, row.line); !is_new)
      return fail("{}: id '{}' is already on line {}. Ids must be unique.", where, c.id,
                  at->second);
    if (std::find(languages.begin(), languages.end(), c.language) == languages.end())
      return fail("{}: language '{}' is not one of suite.json's.{}", where, c.language,
                  suggestion(c.language, languages));
    const auto profile = parse_profile(field("profile"));
    if (!profile) return fail("{}: {}", where, profile.error().message);
    c.profile = *profile;

    const std::string &prompt = field("prompt"), &messages = field("messages");
    if (prompt.empty() == messages.empty())
      return fail("{}: expected exactly one of 'prompt' and 'messages', got {}", where,
                  prompt.empty() ? "neither" : "both");
    if (messages.empty()) {
      c.messages = OrderedJson::array({{{"role", "user"}, {"content", prompt}}});
    } else {
      ASSAY_TRY(c.messages, parse_messages(messages, where));
    }
    c.scoring = scoring;
    if (const std::string own = optional_field("scoring"); !own.empty()) {
      const auto parsed = parse_scoring(own);
      if (!parsed)
        return fail(
            "{}: unknown 'scoring' '{}'.{}", where, own,
            suggestion(own, std::vector<std::string>{"number", "text", "language", "none"}));
      c.scoring = *parsed;
    }
    ASSAY_TRY(c.answer, parse_answer(field("answer"), c.scoring, where));
    c.reasoning_language = optional_field("reasoning_language");
    if (!c.reasoning_language.empty() &&
        std::find(languages.begin(), languages.end(), c.reasoning_language) == languages.end())
      return fail("{}: 'reasoning_language' '{}' is not one of suite.json's.{}", where,
                  c.reasoning_language, suggestion(c.reasoning_language, languages));
    c.prefill = optional_field("prefill");
    c.steps = field("steps");
    c.note = field("note");
    const std::string gated = optional_field("gated");
    if (!gated.empty() && gated != "yes" && gated != "no")
      return fail("{}: 'gated' must be yes, no or empty (yes), got '{}'", where, gated);
    c.gated = gated != "no";
    cases.push_back(std::move(c));
  }
  if (cases.empty()) return fail("{}: there is no case, only a header", source);
  return cases;
}

}  // namespace assay::harness
