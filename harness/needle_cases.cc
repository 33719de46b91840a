#include "harness/needle_cases.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/hash.h"
#include "base/suggest.h"
#include "harness/json_fields.h"

namespace assay::harness {
namespace {

constexpr std::string_view kKindNames[] = {"single",      "multi_key", "multi_value",
                                           "multi_query", "variable",  "absent"};
constexpr long kMinTokens = 128, kMaxTokens = 1L << 20;
// A grid larger than this is a slip of the pen: at 1K tokens a case it would be 100M tokens.
constexpr std::size_t kMaxCases = 100'000;

std::vector<std::string> kind_names() { return {std::begin(kKindNames), std::end(kKindNames)}; }

Result<void> check_language(const std::string& name, std::string_view where) {
  const std::vector<std::string> known = {"ja", "en", "zh"};
  if (std::find(known.begin(), known.end(), name) != known.end()) return {};
  return fail("{}: unknown language '{}'.{}", where, name, suggestion(name, known));
}

// "ja", or haystack.needle.question: "en.en.ja".
struct Languages {
  std::string written, haystack, needle, question;
};

Result<Languages> parse_languages(const std::string& written, const std::string& where) {
  std::vector<std::string> parts(1);
  for (const char c : written) {
    if (c == '.') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  if (parts.size() == 1) parts = {parts[0], parts[0], parts[0]};
  if (parts.size() != 3)
    return fail(
        "{}: 'languages' must hold a language (\"ja\") or haystack.needle.question "
        "(\"en.en.ja\"), got \"{}\"",
        where, written);
  for (const std::string& part : parts) ASSAY_TRY_VOID(check_language(part, where));
  // One spelling of each, so that equal cases have equal ids.
  const bool crossed = parts[0] != parts[1] || parts[0] != parts[2];
  return Languages{crossed ? written : parts[0], parts[0], parts[1], parts[2]};
}

template <class T>
Result<std::vector<T>> whole_numbers(const JsonFields& fields, const char* key, long min,
                                     long max) {
  ASSAY_TRY(const Json* list, fields.array(key));
  std::vector<T> out;
  for (const Json& each : *list) {
    const Json object = {{key, each}};
    ASSAY_TRY(const auto one, JsonFields::open(object, fields.where(), {key}));
    ASSAY_TRY(const long number, one.integer(key, min, max));
    out.push_back(static_cast<T>(number));
  }
  return out;
}

struct Grid {
  Profile profile = Profile::kFull;
  std::vector<NeedleKind> kinds;
  std::vector<Languages> languages;
  std::vector<int> lengths, depths;  // tokens, percent
  int repeats = 1;
  bool gated = true;
};

Result<Grid> parse_grid(const Json& json, const std::string& where) {
  ASSAY_TRY(const auto fields, JsonFields::open(json, where,
                                                {"profile", "kinds", "languages", "lengths",
                                                 "depths", "repeats", "gated"}));
  Grid grid;
  ASSAY_TRY(const std::string profile, fields.text("profile"));
  auto parsed = parse_profile(profile);
  if (!parsed) return fail("{}: {}", where, parsed.error().message);
  grid.profile = *parsed;
  ASSAY_TRY_VOID(fields.array("kinds"));
  ASSAY_TRY(const auto kinds, fields.texts("kinds"));
  for (const std::string& written : kinds) {
    auto kind = parse_needle_kind(written);
    if (!kind) return fail("{}: {}", where, kind.error().message);
    grid.kinds.push_back(*kind);
  }
  ASSAY_TRY_VOID(fields.array("languages"));
  ASSAY_TRY(const auto languages, fields.texts("languages"));
  for (const std::string& written : languages) {
    ASSAY_TRY(Languages each, parse_languages(written, where));
    grid.languages.push_back(std::move(each));
  }
  ASSAY_TRY(grid.lengths, whole_numbers<int>(fields, "lengths", kMinTokens, kMaxTokens));
  ASSAY_TRY(grid.depths, whole_numbers<int>(fields, "depths", 0, 100));
  if (fields.has("repeats")) {
    ASSAY_TRY(const long repeats, fields.integer("repeats", 1, 1000));
    grid.repeats = static_cast<int>(repeats);
  }
  if (fields.has("gated")) {
    ASSAY_TRY(grid.gated, fields.boolean("gated"));
  }
  return grid;
}

struct Params {
  std::uint64_t seed = 0;
  std::vector<Grid> grids;  // smallest profile first
  NeedleFiles files;
};

Result<Params> parse_params(const Json& json, const std::string& where) {
  ASSAY_TRY(const auto fields,
            JsonFields::open(json, where, {"name", "seed", "tables", "texts", "grids"}));
  ASSAY_TRY(const std::string name, fields.text("name"));
  if (name != "needle") return fail("{}: 'name' must be \"needle\", got \"{}\"", where, name);
  Params params;
  ASSAY_TRY(const long seed, fields.integer("seed", 0, 1L << 53));
  params.seed = static_cast<std::uint64_t>(seed);
  ASSAY_TRY(params.files.tables, fields.text("tables"));
  if (fields.has("texts")) {
    const Json& texts = json["texts"];
    ASSAY_TRY(const auto files, JsonFields::open(texts, where + ".texts", {"ja", "en", "zh"}));
    for (const auto& [language, unused] : texts.items()) {
      ASSAY_TRY(params.files.texts[language], files.text(language));
    }
  }
  ASSAY_TRY(const Json* grids, fields.array("grids"));
  for (std::size_t i = 0; i < grids->size(); ++i) {
    ASSAY_TRY(Grid grid, parse_grid((*grids)[i], fmt::format("{}.grids[{}]", where, i)));
    params.grids.push_back(std::move(grid));
  }
  std::stable_sort(params.grids.begin(), params.grids.end(),
                   [](const Grid& a, const Grid& b) { return a.profile < b.profile; });
  return params;
}

NeedleCase make_case(const Grid& grid, NeedleKind kind, const Languages& languages, int length,
                     int depth, int repeat, std::uint64_t seed) {
  NeedleCase c;
  c.id = fmt::format("{}-{}-{}-d{}-r{}", name_of(kind), languages.written, length, depth, repeat);
  c.cluster = fmt::format("{}-{}-d{}-r{}", name_of(kind), length, depth, repeat);
  c.language = languages.question;
  c.profile = grid.profile;
  c.gated = grid.gated;
  c.recipe = {kind,   languages.haystack, languages.needle, languages.question,
              length, depth / 100.0};
  // By cluster, so that its languages share their values.
  c.recipe.seed = hash_u64(fmt::format("{}/{}", seed, c.cluster)) >> 11;
  return c;
}

}  // namespace

std::string_view name_of(NeedleKind kind) { return kKindNames[static_cast<int>(kind)]; }

Result<NeedleKind> parse_needle_kind(std::string_view written) {
  const auto found = std::find(std::begin(kKindNames), std::end(kKindNames), written);
  if (found == std::end(kKindNames))
    return fail("unknown needle kind '{}'.{}", written, suggestion(written, kind_names()));
  return static_cast<NeedleKind>(found - std::begin(kKindNames));
}

Json NeedleRecipe::to_json() const {
  return {{"kind", name_of(kind)},
          {"haystack_language", haystack_language},
          {"needle_language", needle_language},
          {"question_language", question_language},
          {"n_tokens", n_tokens},
          {"depth", depth},
          {"seed", seed}};
}

Result<NeedleRecipe> NeedleRecipe::parse(const Json& json, std::string_view where) {
  ASSAY_TRY(const auto fields,
            JsonFields::open(json, std::string(where),
                             {"kind", "haystack_language", "needle_language", "question_language",
                              "n_tokens", "depth", "seed"}));
  NeedleRecipe recipe;
  ASSAY_TRY(const std::string kind, fields.text("kind"));
  auto parsed = parse_needle_kind(kind);
  if (!parsed) return fail("{}: {}", where, parsed.error().message);
  recipe.kind = *parsed;
  for (const auto& [key, language] : {std::pair{"haystack_language", &recipe.haystack_language},
                                      std::pair{"needle_language", &recipe.needle_language},
                                      std::pair{"question_language", &recipe.question_language}}) {
    ASSAY_TRY(*language, fields.text(key));
    ASSAY_TRY_VOID(check_language(*language, where));
  }
  ASSAY_TRY(const long n_tokens, fields.integer("n_tokens", kMinTokens, kMaxTokens));
  recipe.n_tokens = static_cast<int>(n_tokens);
  ASSAY_TRY(recipe.depth, fields.number("depth", 0, 1));
  ASSAY_TRY(const long seed, fields.integer("seed", 0, 1L << 53));
  recipe.seed = static_cast<std::uint64_t>(seed);
  return recipe;
}

Result<std::vector<NeedleCase>> expand_needle_cases(const Json& params, std::string_view where) {
  ASSAY_TRY(const Params parsed, parse_params(params, std::string(where)));
  std::vector<NeedleCase> cases;
  std::set<std::string> seen;
  for (const Grid& grid : parsed.grids)
    for (const NeedleKind kind : grid.kinds)
      for (const int length : grid.lengths)
        for (const int depth : grid.depths)
          for (int repeat = 1; repeat <= grid.repeats; ++repeat)
            for (const Languages& languages : grid.languages) {
              NeedleCase c = make_case(grid, kind, languages, length, depth, repeat, parsed.seed);
              if (!seen.insert(c.id).second) continue;  // a smaller profile has it already
              cases.push_back(std::move(c));
              if (cases.size() > kMaxCases)
                return fail("{}: the grids make more than {} cases", where, kMaxCases);
            }
  return cases;
}

Result<NeedleFiles> needle_files(const Json& params, std::string_view where) {
  ASSAY_TRY(Params parsed, parse_params(params, std::string(where)));
  return std::move(parsed.files);
}

}  // namespace assay::harness
