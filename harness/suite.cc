#include "harness/suite.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <set>

#include "base/hash.h"
#include "base/suggest.h"
#include "engine/text/unicode.h"
#include "harness/cases.h"
#include "harness/json_fields.h"
#include "harness/mgsm.h"
#include "harness/needle_source.h"

namespace assay::harness {
namespace {

constexpr std::string_view kProfileNames[] = {"quick", "ci", "nightly", "full"};
constexpr std::string_view kMetricNames[] = {"accuracy", "closed",   "stopped", "error",
                                             "answered", "language", "no_loop"};
constexpr std::string_view kScoringNames[] = {"number", "text", "language", "needle", "none"};
constexpr int kMostRepeats = 1000;
constexpr int kMaxTokensLimit = 1 << 20;

bool has(const std::vector<std::string>& list, std::string_view name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

template <class Names>
std::vector<std::string> list_of(const Names& names) {
  return {std::begin(names), std::end(names)};
}

Result<void> require_known(std::string_view where, std::string_view what,
                           const std::vector<std::string>& names,
                           const std::vector<std::string>& known) {
  std::set<std::string> seen;
  for (const std::string& name : names) {
    if (!has(known, name))
      return fail("{}: unknown {} '{}'.{}", where, what, name, suggestion(name, known));
    if (!seen.insert(name).second) return fail("{}: {} '{}' is listed twice", where, what, name);
  }
  return {};
}

Result<Sampling> parse_sampling(const Json& json, std::string where) {
  ASSAY_TRY(const auto fields,
            JsonFields::open(json, std::move(where),
                             {"temperature", "top_p", "top_k", "min_p", "repetition_penalty"}));
  Sampling sampling;
  ASSAY_TRY(sampling.temperature, fields.number("temperature", 0, 10));
  if (fields.has("top_p")) {
    ASSAY_TRY(sampling.top_p, fields.number("top_p", 0, 1));
  }
  if (fields.has("min_p")) {
    ASSAY_TRY(sampling.min_p, fields.number("min_p", 0, 1));
  }
  if (fields.has("repetition_penalty")) {
    ASSAY_TRY(sampling.repetition_penalty, fields.number("repetition_penalty", 0.01, 100));
  }
  if (fields.has("top_k")) {
    ASSAY_TRY(const long top_k, fields.integer("top_k", 0, std::numeric_limits<int>::max()));
    sampling.top_k = static_cast<int>(top_k);
  }
  return sampling;
}

Result<Arm> parse_arm(const Json& json, const std::string& where) {
  ASSAY_TRY(const auto fields,
            JsonFields::open(json, where,
                             {"name", "enable_thinking", "max_tokens", "max_thinking_tokens",
                              "force_close", "repeats", "system", "kinds", "profile", "sampling"}));
  Arm arm;
  ASSAY_TRY(arm.name, fields.text("name"));
  ASSAY_TRY(arm.enable_thinking, fields.boolean("enable_thinking"));
  ASSAY_TRY(const long max_tokens, fields.integer("max_tokens", 1, kMaxTokensLimit));
  arm.max_tokens = static_cast<int>(max_tokens);
  if (fields.has("max_thinking_tokens")) {
    if (!arm.enable_thinking)
      return fail("{}: 'max_thinking_tokens' needs \"enable_thinking\": true", where);
    ASSAY_TRY(const long max_thinking, fields.integer("max_thinking_tokens", 1, max_tokens));
    arm.max_thinking_tokens = static_cast<int>(max_thinking);
  }
  if (fields.has("force_close")) {
    ASSAY_TRY(arm.force_close, fields.boolean("force_close"));
    if (arm.force_close && (arm.max_thinking_tokens == 0 || arm.max_thinking_tokens == max_tokens))
      return fail(
          "{}: 'force_close' needs a 'max_thinking_tokens' below max_tokens ({}), so that an "
          "answer "
          "can follow",
          where, max_tokens);
  }
  if (fields.has("repeats")) {
    ASSAY_TRY(const long repeats, fields.integer("repeats", 1, kMostRepeats));
    arm.repeats = static_cast<int>(repeats);
  }
  if (fields.has("system")) {
    ASSAY_TRY(arm.system, fields.text("system"));
  }
  if (fields.has("kinds")) {
    ASSAY_TRY_VOID(fields.array("kinds"));
    ASSAY_TRY(arm.kinds, fields.texts("kinds"));
  }
  if (fields.has("profile")) {
    ASSAY_TRY(const std::string profile, fields.text("profile"));
    const auto parsed = parse_profile(profile);
    if (!parsed) return fail("{}: {}", where, parsed.error().message);
    arm.profile = *parsed;
  }
  if (fields.has("sampling")) {
    ASSAY_TRY(arm.sampling, parse_sampling(json["sampling"], where + ": sampling"));
  }
  return arm;
}

Result<Gate> parse_gate(const Json& json, std::string where) {
  ASSAY_TRY(const auto fields,
            JsonFields::open(json, where, {"name", "metric", "where", "min", "max"}));
  Gate gate;
  ASSAY_TRY(gate.name, fields.text("name"));
  ASSAY_TRY(const std::string metric, fields.text("metric"));
  const auto known = list_of(kMetricNames);
  if (!has(known, metric))
    return fail("{}: unknown metric '{}'.{}", where, metric, suggestion(metric, known));
  gate.metric =
      static_cast<GateMetric>(std::find(known.begin(), known.end(), metric) - known.begin());
  if (fields.has("min") == fields.has("max"))
    return fail("{}: expected exactly one of 'min' and 'max'", where);
  if (fields.has("min")) {
    ASSAY_TRY(gate.min, fields.number("min", 0, 1));
  } else {
    ASSAY_TRY(gate.max, fields.number("max", 0, 1));
  }
  if (json.contains("where")) {
    ASSAY_TRY(const auto filter,
              JsonFields::open(json["where"], where + ".where", {"arm", "language", "kind"}));
    ASSAY_TRY(gate.where.arms, filter.texts("arm"));
    ASSAY_TRY(gate.where.languages, filter.texts("language"));
    ASSAY_TRY(gate.where.kinds, filter.texts("kind"));
  }
  return gate;
}

// A gate that can never see a sample would pass for ever.
Result<void> check_gate(const Suite& suite, const Gate& gate, const std::string& where) {
  std::vector<std::string> arms, kinds;
  for (const Arm& arm : suite.arms) arms.push_back(arm.name);
  for (const Case& c : suite.cases)
    if (!has(kinds, c.kind)) kinds.push_back(c.kind);
  ASSAY_TRY_VOID(require_known(where + ".where", "arm", gate.where.arms, arms));
  ASSAY_TRY_VOID(
      require_known(where + ".where", "language", gate.where.languages, suite.languages));
  ASSAY_TRY_VOID(require_known(where + ".where", "kind", gate.where.kinds, kinds));
  for (const Case& c : suite.cases)
    for (const Arm& arm : suite.arms)
      if (c.gated && arm.asks(c) && gate.where.selects(arm.name, c.language, c.kind)) return {};
  return fail(
      "{}: gate '{}' ({}) selects no case, so it could never fail. Mend 'where', or the cases.",
      where, gate.name, gate.where.text());
}

Result<Suite> parse_head(std::string_view text, std::string_view source) {
  if (const auto bad = text::first_invalid_utf8(text))
    return fail("{}: not valid UTF-8 at byte {}", source, *bad);
  ASSAY_TRY(const Json json, parse_json(text, source));
  ASSAY_TRY(const auto fields,
            JsonFields::open(json, std::string(source),
                             {"format", "name", "version", "title", "description", "languages",
                              "cases", "generator", "scoring", "arms", "sampling", "gates",
                              "profiles", "keep_steps", "floor"}));
  const std::string where(source);
  ASSAY_TRY([[maybe_unused]] const long format, fields.integer("format", 1, 1));
  Suite suite;
  ASSAY_TRY(suite.name, fields.name("name"));
  ASSAY_TRY(const long version, fields.integer("version", 1, 1 << 30));
  suite.version = static_cast<int>(version);
  ASSAY_TRY(suite.title, fields.text("title"));
  ASSAY_TRY(suite.description, fields.text_or("description", ""));
  ASSAY_TRY_VOID(fields.array("languages"));
  ASSAY_TRY(suite.languages, fields.texts("languages"));
  ASSAY_TRY_VOID(require_known(where, "language", suite.languages, {"ja", "en", "zh"}));
  ASSAY_TRY(const std::string scoring, fields.text("scoring"));
  if (!parse_scoring(scoring))
    return fail("{}: unknown 'scoring' \"{}\".{}", where, scoring,
                suggestion(scoring, list_of(kScoringNames)));
  suite.scoring = *parse_scoring(scoring);
  if (fields.has("keep_steps")) {
    ASSAY_TRY(suite.draw_steps, fields.boolean("keep_steps"));
  }
  if (fields.has("floor")) {
    ASSAY_TRY(suite.floor, fields.number("floor", 0.001, 1));
  }
  ASSAY_TRY(const Json* arms, fields.array("arms"));
  std::set<std::string> names;
  for (std::size_t i = 0; i < arms->size(); ++i) {
    const std::string at = fmt::format("{}: arms[{}]", where, i);
    ASSAY_TRY(Arm arm, parse_arm((*arms)[i], at));
    if (!names.insert(arm.name).second) return fail("{}: arm '{}' is already there", at, arm.name);
    suite.arms.push_back(std::move(arm));
  }
  if (!fields.has("sampling")) return fail("{}: missing key 'sampling'", where);
  ASSAY_TRY(suite.sampling, parse_sampling(json["sampling"], where + ": sampling"));
  ASSAY_TRY(const Json* gates, fields.array("gates"));
  names.clear();
  for (std::size_t i = 0; i < gates->size(); ++i) {
    const std::string at = fmt::format("{}: gates[{}]", where, i);
    ASSAY_TRY(Gate gate, parse_gate((*gates)[i], at));
    if (!names.insert(gate.name).second)
      return fail("{}: a gate named '{}' is already there", at, gate.name);
    suite.gates.push_back(std::move(gate));
  }
  ASSAY_TRY_VOID(fields.array("profiles"));
  ASSAY_TRY(const auto profiles, fields.texts("profiles"));
  ASSAY_TRY_VOID(require_known(where, "profile", profiles, list_of(kProfileNames)));
  for (const std::string& name : profiles) suite.profiles.push_back(*parse_profile(name));
  return suite;
}

// An arm's kinds must exist, or it would be asked nothing for ever.
Result<void> check_arm(const Suite& suite, const Arm& arm, const std::string& where) {
  std::vector<std::string> kinds;
  for (const Case& c : suite.cases)
    if (!has(kinds, c.kind)) kinds.push_back(c.kind);
  return require_known(where, "kind", arm.kinds, kinds);
}

}  // namespace

std::string_view name_of(Profile profile) { return kProfileNames[static_cast<int>(profile)]; }
std::string_view name_of(GateMetric metric) { return kMetricNames[static_cast<int>(metric)]; }

std::string_view name_of(Scoring scoring) { return kScoringNames[static_cast<int>(scoring)]; }

std::optional<Scoring> parse_scoring(std::string_view name) {
  const auto at = std::find(std::begin(kScoringNames), std::end(kScoringNames), name);
  if (at == std::end(kScoringNames)) return std::nullopt;
  return static_cast<Scoring>(at - std::begin(kScoringNames));
}

bool Arm::asks(const Case& c) const {
  // An unfinished thinking can only be gone on with where thinking is on.
  return (kinds.empty() || has(kinds, c.kind)) && (enable_thinking || c.prefill.empty());
}

Result<Profile> parse_profile(std::string_view written) {
  for (int i = 0; i < 4; ++i)
    if (kProfileNames[i] == written) return static_cast<Profile>(i);
  return fail("unknown profile '{}'.{}", written, suggestion(written, list_of(kProfileNames)));
}

Json Sampling::to_json() const {
  Json json = {{"temperature", temperature}};
  if (top_p) json["top_p"] = *top_p;
  if (top_k) json["top_k"] = *top_k;
  if (min_p) json["min_p"] = *min_p;
  if (repetition_penalty) json["repetition_penalty"] = *repetition_penalty;
  return json;
}

bool Selector::selects(std::string_view arm, std::string_view language,
                       std::string_view kind) const {
  return (arms.empty() || has(arms, arm)) && (languages.empty() || has(languages, language)) &&
         (kinds.empty() || has(kinds, kind));
}

std::string Selector::text() const {
  std::vector<std::string> parts;
  for (const auto* list : {&arms, &languages, &kinds})
    if (!list->empty()) parts.push_back(fmt::format("{}", fmt::join(*list, "+")));
  return parts.empty() ? "all" : fmt::format("{}", fmt::join(parts, ", "));
}

namespace {

// What needs the cases to be checked.
Result<Suite> checked(Suite suite, std::string_view json_source) {
  for (std::size_t i = 0; i < suite.arms.size(); ++i)
    ASSAY_TRY_VOID(check_arm(suite, suite.arms[i], fmt::format("{}: arms[{}]", json_source, i)));
  for (std::size_t i = 0; i < suite.gates.size(); ++i)
    ASSAY_TRY_VOID(check_gate(suite, suite.gates[i], fmt::format("{}: gates[{}]", json_source, i)));
  return suite;
}

Result<std::string> file_name(const Json& value, std::string_view what, const fs::path& json_path) {
  const fs::path name = value.is_string() ? value.get<std::string>() : "";
  if (name.empty() || name.has_parent_path())
    return fail("{}: {} must name a file in the suite's folder, got {}", json_path.string(), what,
                value.dump());
  return name.string();
}

Result<std::vector<NeedleSentence>> read_haystack(const std::string& language, const fs::path& file,
                                                  Hasher& hasher) {
  ASSAY_TRY(const std::string text, read_file(file));
  hasher.update(text);
  return split_sentences(text, language, file.string());
}

// Cases that are made, not read: "generator": {"name": "needle", …}.
Result<Suite> load_needles(const fs::path& folder, const std::string& json_text, const Json& json,
                           const SuiteInputs& inputs) {
  const fs::path json_path = folder / "suite.json";
  ASSAY_TRY(Suite suite, parse_head(json_text, json_path.string()));
  const std::string where = json_path.string() + ": generator";
  const Json& params = json["generator"];
  if (!params.is_object() || !params.contains("name") || params["name"] != "needle")
    return fail("{}: 'name' must be \"needle\" (the only generator), got {}", where,
                params.is_object() ? params.value("name", Json()).dump() : params.dump());
  if (json.contains("cases"))
    return fail("{}: 'cases' and 'generator' exclude each other", json_path.string());
  if (suite.scoring != Scoring::kNeedle)
    return fail("{}: a generator of needles needs \"scoring\": \"needle\", got \"{}\"",
                json_path.string(), name_of(suite.scoring));
  ASSAY_TRY(const auto cases, expand_needle_cases(params, where));
  ASSAY_TRY(const NeedleFiles files, needle_files(params, where));
  Hasher hasher;
  hasher.update(json_text);
  auto source = std::make_shared<NeedleSource>();
  ASSAY_TRY(const std::string tables_text, read_file(folder / files.tables));
  hasher.update(tables_text);
  ASSAY_TRY(source->tables, parse_needle_tables(tables_text, (folder / files.tables).string()));
  std::map<std::string, fs::path> texts;
  for (const auto& [language, file] : files.texts) texts[language] = folder / file;
  for (const auto& [language, file] : inputs.haystacks) texts[language] = file;
  for (const auto& [language, file] : texts) {
    const bool is_given = inputs.haystacks.contains(language);
    if (auto read = read_haystack(language, file, hasher); read)
      source->texts[language] = *std::move(read);
    else
      return fail("{}{}",
                  is_given ? fmt::format("--haystack {}={}: ", language, file.string()) : "",
                  read.error().message);
  }
  for (const NeedleCase& one : cases) {
    Case c;
    c.id = one.id;
    c.cluster = one.cluster;
    c.language = one.language;
    c.kind = name_of(one.recipe.kind);
    c.profile = one.profile;
    c.gated = one.gated;
    c.scoring = Scoring::kNeedle;
    c.recipe = one.recipe.to_json();
    suite.cases.push_back(std::move(c));
  }
  suite.needle = std::move(source);
  suite.hash = hasher.hex();
  return checked(std::move(suite), json_path.string());
}

}  // namespace

Result<Suite> parse_suite(std::string_view suite_json, std::string_view json_source,
                          std::string_view cases_csv, std::string_view csv_source) {
  ASSAY_TRY(Suite suite, parse_head(suite_json, json_source));
  ASSAY_TRY(suite.cases, parse_cases(cases_csv, csv_source, suite.languages, suite.scoring));
  Hasher hasher;
  hasher.update(suite_json);
  hasher.update(cases_csv);
  suite.hash = hasher.hex();
  return checked(std::move(suite), json_source);
}

Result<Suite> load_suite(const fs::path& folder, const SuiteInputs& inputs) {
  const fs::path json_path = folder / "suite.json";
  ASSAY_TRY(const std::string json_text, read_file(json_path));
  // Only where the cases are must be known here; what reads them checks the rest.
  ASSAY_TRY(const Json json, parse_json(json_text, json_path.string()));
  if (json.is_object() && json.contains("generator"))
    return load_needles(folder, json_text, json, inputs);
  if (!json.is_object() || !json.contains("cases"))
    return fail(
        "{}: missing key 'cases' (the file of cases, usually \"cases.csv\"; or 'generator')",
        json_path.string());
  if (json["cases"].is_object()) {
    ASSAY_TRY(Suite suite, parse_head(json_text, json_path.string()));
    ASSAY_TRY(MgsmCases mgsm, load_mgsm_cases(json["cases"], json_path.string() + ": cases",
                                              suite.languages, inputs.data, inputs.languages));
    suite.cases = std::move(mgsm.cases);
    Hasher hasher;
    hasher.update(json_text);
    hasher.update(mgsm.hash);
    suite.hash = hasher.hex();
    return checked(std::move(suite), json_path.string());
  }
  ASSAY_TRY(const std::string cases_name, file_name(json["cases"], "'cases'", json_path));
  const fs::path csv_path = folder / cases_name;
  ASSAY_TRY(const std::string csv_text, read_file(csv_path));
  return parse_suite(json_text, json_path.string(), csv_text, csv_path.string());
}

}  // namespace assay::harness
