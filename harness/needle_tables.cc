#include "harness/needle_tables.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/json.h"
#include "engine/text/unicode.h"
#include "harness/json_fields.h"

namespace assay::harness {
namespace {

// Fewer digits than four would also be a year or a count, more than fifteen a hash.
constexpr long kMinDigits = 4, kMaxDigits = 15;

Result<std::vector<std::string>> non_empty_texts(const JsonFields& fields, std::string_view key) {
  ASSAY_TRY_VOID(fields.array(key));
  return fields.texts(key);
}

Result<std::vector<int>> integers(const Json& object, std::string_view where, const char* key,
                                  long min, long max) {
  if (!object.contains(key) || !object[key].is_array() || object[key].empty())
    return fail("{}: '{}' must be a non-empty list of whole numbers from {} to {}", where, key, min,
                max);
  std::vector<int> out;
  for (const Json& each : object[key]) {
    if (!each.is_number_integer() || each.get<double>() < static_cast<double>(min) ||
        each.get<double>() > static_cast<double>(max))
      return fail("{}: '{}' must hold whole numbers from {} to {}, got {}", where, key, min, max,
                  each.dump());
    out.push_back(each.get<int>());
  }
  return out;
}

// `text` has the placeholders `expected` and no others; one may stand there more than once.
Result<void> require_placeholders(std::string_view text, std::vector<std::string> expected,
                                  std::string_view where) {
  ASSAY_TRY(std::vector<std::string> found, placeholders(text, where));
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  std::sort(expected.begin(), expected.end());
  if (found != expected)
    return fail("{}: '{}' must have the placeholders {{{}}}, got {{{}}}", where, text,
                fmt::join(expected, "} {"), fmt::join(found, "} {"));
  return {};
}

Result<NeedleGrammar> parse_grammar(const Json& json, const std::string& where) {
  ASSAY_TRY(const auto fields, JsonFields::open(json, where, {"templates", "vocabulary"}));
  NeedleGrammar grammar;
  ASSAY_TRY(grammar.templates, non_empty_texts(fields, "templates"));
  if (!json.contains("vocabulary") || !json["vocabulary"].is_object())
    return fail("{}: 'vocabulary' must be an object of word lists", where);
  for (const auto& [name, words] : json["vocabulary"].items()) {
    Json one = Json::object();  // JsonFields knows objects whose keys are all known
    one[name] = words;
    ASSAY_TRY(const auto list, JsonFields::open(one, where + ".vocabulary", {name}));
    ASSAY_TRY(grammar.vocabulary[name], non_empty_texts(list, name));
  }
  for (const std::string& text : grammar.templates) {
    ASSAY_TRY(const auto names, placeholders(text, where));
    for (const std::string& name : names)
      if (!grammar.vocabulary.contains(vocabulary_name(name)))
        return fail("{}: '{}' names {{{}}}, but 'vocabulary' has no '{}'", where, text, name,
                    vocabulary_name(name));
  }
  return grammar;
}

Result<NeedleQuestions> parse_questions(const Json& all, const std::string& where, const char* name,
                                        const std::vector<std::string>& expected) {
  const std::string at = fmt::format("{}.{}", where, name);
  if (!all.contains(name)) return fail("{}: missing key '{}'", where, name);
  ASSAY_TRY(const auto fields, JsonFields::open(all[name], at, {"ask", "reask"}));
  NeedleQuestions questions;
  ASSAY_TRY(questions.ask, non_empty_texts(fields, "ask"));
  ASSAY_TRY(questions.reask, non_empty_texts(fields, "reask"));
  std::set<std::string> seen;
  for (const auto* list : {&questions.ask, &questions.reask}) {
    for (const std::string& text : *list) {
      ASSAY_TRY_VOID(require_placeholders(text, expected, at));
      if (!seen.insert(text).second)
        return fail("{}: '{}' stands there twice: a re-ask must use other words", at, text);
    }
  }
  return questions;
}

Result<NeedleLanguage> parse_language(const Json& json, const std::string& where) {
  ASSAY_TRY(const auto fields,
            JsonFields::open(json, where,
                             {"join", "haystack", "keys", "attributes", "needles", "intros",
                              "labels", "questions", "absent"}));
  for (const char* key : {"join", "haystack", "keys", "questions"})
    if (!fields.has(key)) return fail("{}: missing key '{}'", where, key);
  NeedleLanguage language;
  if (json["join"].is_string()) language.join = json["join"].get<std::string>();
  if (!json["join"].is_string() || (!language.join.empty() && language.join != " "))
    return fail("{}: 'join' must be \"\" or \" \", got {}", where, json["join"].dump());
  ASSAY_TRY(language.haystack, parse_grammar(json["haystack"], where + ".haystack"));
  ASSAY_TRY(language.keys, parse_grammar(json["keys"], where + ".keys"));
  ASSAY_TRY(language.attributes, non_empty_texts(fields, "attributes"));
  ASSAY_TRY(language.needles, non_empty_texts(fields, "needles"));
  for (const std::string& needle : language.needles)
    ASSAY_TRY_VOID(require_placeholders(needle, {"attribute", "key", "value"}, where + ".needles"));
  ASSAY_TRY(language.intros, non_empty_texts(fields, "intros"));
  ASSAY_TRY(language.labels, non_empty_texts(fields, "labels"));
  ASSAY_TRY(language.absent_phrases, non_empty_texts(fields, "absent"));

  const Json& questions = json["questions"];
  const std::string at = where + ".questions";
  ASSAY_TRY_VOID(JsonFields::open(questions, at, {"key", "values", "keys", "variable"}));
  ASSAY_TRY(language.key, parse_questions(questions, at, "key", {"attribute", "key"}));
  ASSAY_TRY(language.values, parse_questions(questions, at, "values", {"attribute", "key"}));
  ASSAY_TRY(language.keys_asked,
            parse_questions(questions, at, "keys", {"attribute", "key", "key2"}));
  ASSAY_TRY(language.variable, parse_questions(questions, at, "variable", {"name"}));
  return language;
}

Result<void> parse_variable(const Json& json, const std::string& where, NeedleTables& tables) {
  ASSAY_TRY(const auto fields,
            JsonFields::open(json, where, {"define", "copy", "letters", "n_letters", "digits"}));
  ASSAY_TRY(tables.define, fields.text("define"));
  ASSAY_TRY_VOID(require_placeholders(tables.define, {"name", "value"}, where));
  ASSAY_TRY(tables.copy, fields.text("copy"));
  ASSAY_TRY_VOID(require_placeholders(tables.copy, {"name", "from"}, where));
  ASSAY_TRY(tables.letters, fields.text("letters"));
  ASSAY_TRY(const long n_letters, fields.integer("n_letters", 2, 16));
  tables.n_letters = static_cast<int>(n_letters);
  // Four names must differ; a handful of letters is enough to draw them without a search.
  const std::set<char> letters(tables.letters.begin(), tables.letters.end());
  if (letters.size() != tables.letters.size() || letters.size() < 8 || *letters.begin() < 'A' ||
      *letters.rbegin() > 'Z')
    return fail("{}: 'letters' must be at least 8 different capitals A-Z, got \"{}\"", where,
                tables.letters);
  ASSAY_TRY(tables.variable_digits, integers(json, where, "digits", kMinDigits, kMaxDigits));
  return {};
}

}  // namespace

Result<std::vector<std::string>> placeholders(std::string_view text, std::string_view where) {
  std::vector<std::string> out;
  for (std::size_t at = 0; (at = text.find_first_of("{}", at)) != std::string_view::npos;) {
    const std::size_t end = text.find_first_of("{}", at + 1);
    if (text[at] == '}' || end == std::string_view::npos || text[end] == '{' || end == at + 1)
      return fail("{}: '{}' has a brace without its other half", where, text);
    out.emplace_back(text.substr(at + 1, end - at - 1));
    at = end + 1;
  }
  return out;
}

std::string vocabulary_name(std::string_view placeholder) {
  std::string name(placeholder.substr(0, placeholder.find_first_of("0123456789")));
  if (!name.empty() && name[0] >= 'A' && name[0] <= 'Z') name[0] += 'a' - 'A';
  return name;
}

Result<const NeedleLanguage*> NeedleTables::of(std::string_view language) const {
  const auto found = languages.find(language);
  if (found == languages.end()) {
    std::vector<std::string_view> known;
    for (const auto& [name, unused] : languages) known.push_back(name);
    return fail("the needle tables have no language '{}', only {}", language,
                fmt::join(known, ", "));
  }
  return &found->second;
}

Result<NeedleTables> parse_needle_tables(std::string_view text, std::string_view source) {
  if (const auto bad = text::first_invalid_utf8(text))
    return fail("{}: not valid UTF-8 at byte {}", source, *bad);
  ASSAY_TRY(const Json json, parse_json(text, source));
  const std::string where(source);
  ASSAY_TRY(const auto fields, JsonFields::open(json, where,
                                                {"format", "value_digits", "paragraphs", "gaps",
                                                 "variable", "languages"}));
  ASSAY_TRY([[maybe_unused]] const long format, fields.integer("format", 1, 1));
  NeedleTables tables;
  ASSAY_TRY(tables.value_digits, integers(json, where, "value_digits", kMinDigits, kMaxDigits));
  ASSAY_TRY(tables.paragraphs, integers(json, where, "paragraphs", 1, 1000));
  ASSAY_TRY(tables.gaps, non_empty_texts(fields, "gaps"));
  for (const std::string& gap : tables.gaps)
    if (gap.empty() || gap.find_first_not_of(" \n") != std::string::npos)
      return fail("{}: 'gaps' must hold white space, got \"{}\"", where, gap);
  if (!fields.has("variable")) return fail("{}: missing key 'variable'", where);
  ASSAY_TRY_VOID(parse_variable(json["variable"], where + ": variable", tables));
  if (!fields.has("languages") || !json["languages"].is_object() || json["languages"].empty())
    return fail("{}: 'languages' must be an object with at least one language", where);
  for (const auto& [name, language] : json["languages"].items()) {
    const std::string at = fmt::format("{}: languages.{}", where, name);
    if (name != "ja" && name != "en" && name != "zh")
      return fail("{}: unknown language; known are ja, en and zh", at);
    ASSAY_TRY(tables.languages[name], parse_language(language, at));
    // A question may use another language than its needle, so attributes pair up by index.
    const NeedleLanguage& first = tables.languages.begin()->second;
    if (tables.languages[name].attributes.size() != first.attributes.size())
      return fail("{}: 'attributes' must have as many entries in every language, got {} and {}", at,
                  tables.languages[name].attributes.size(), first.attributes.size());
  }
  return tables;
}

}  // namespace assay::harness
