#include "harness/divergence_suite.h"

#include "base/hash.h"
#include "harness/json_fields.h"
#include "harness/suite.h"

namespace assay::harness {
namespace {

constexpr int kMaxTexts = 1 << 20;

// Those that are there; the rest stays as it was.
Result<void> read_settings(const JsonFields& fields, DivergenceSettings& out) {
  if (fields.has("limit")) {
    ASSAY_TRY(const long n, fields.integer("limit", 0, kMaxTexts));
    out.limit = static_cast<int>(n);
  }
  if (fields.has("noise_texts")) {
    ASSAY_TRY(const long n, fields.integer("noise_texts", 0, kMaxTexts));
    out.n_noise_texts = static_cast<int>(n);
  }
  return {};
}

}  // namespace

Json DivergenceSettings::to_json() const {
  return {{"limit", limit}, {"noise_texts", n_noise_texts}};
}

Result<DivergenceSuite> parse_divergence_suite(std::string_view suite_json,
                                               std::string_view source) {
  ASSAY_TRY(const Json json, parse_json(suite_json, source));
  ASSAY_TRY(const auto fields,
            JsonFields::open(json, std::string(source),
                             {"format", "name", "version", "title", "description", "measure",
                              "profiles", "texts", "limit", "noise_texts"}));
  DivergenceSuite suite;
  ASSAY_TRY(suite.head, parse_measure_head(fields, "divergence"));
  suite.head.hash = hash_hex(suite_json);
  ASSAY_TRY(suite.texts, fields.text("texts"));
  if (fs::path(suite.texts).has_parent_path())
    return fail("{}: 'texts' must name a file in the suite's folder, got \"{}\"", source,
                suite.texts);
  DivergenceSettings all;
  ASSAY_TRY_VOID(read_settings(fields, all));
  ASSAY_TRY(const auto profiles, parse_measure_profiles(json, source));
  for (const MeasureProfile& p : profiles) {
    ASSAY_TRY(const auto changes, JsonFields::open(p.changes, p.where, {"limit", "noise_texts"}));
    DivergenceSettings settings = all;
    ASSAY_TRY_VOID(read_settings(changes, settings));
    suite.profiles.emplace(p.profile, settings);
  }
  return suite;
}

Result<DivergenceSuite> load_divergence_suite(const fs::path& folder) {
  const fs::path path = folder / "suite.json";
  ASSAY_TRY(const std::string json, read_file(path));
  ASSAY_TRY(DivergenceSuite suite, parse_divergence_suite(json, path.string()));
  const fs::path texts = folder / suite.texts;
  ASSAY_TRY(const std::string bytes, read_file(texts));
  Hasher hasher;
  hasher.update(json);
  hasher.update(bytes);
  suite.head.hash = hasher.hex();
  ASSAY_TRY(suite.lines, text::read_corpus(texts));
  return suite;
}

}  // namespace assay::harness
