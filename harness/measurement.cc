#include "harness/measurement.h"

#include "harness/json_fields.h"
#include "harness/suite.h"

namespace assay::harness {

std::optional<std::string> measure_of(const Json& suite_json) {
  if (!suite_json.is_object() || !suite_json.contains("measure")) return std::nullopt;
  const Json& measure = suite_json["measure"];
  return measure.is_string() ? measure.get<std::string>() : "";
}

Result<MeasureHead> parse_measure_head(const JsonFields& fields, std::string_view measure) {
  ASSAY_TRY([[maybe_unused]] const long format, fields.integer("format", 1, 1));
  MeasureHead head;
  ASSAY_TRY(head.measure, fields.text("measure"));
  if (head.measure != measure)
    return fail("{}: 'measure' must be \"{}\" here, got \"{}\"", fields.where(), measure,
                head.measure);
  ASSAY_TRY(head.name, fields.name("name"));
  ASSAY_TRY(const long version, fields.integer("version", 1, 1 << 30));
  head.version = static_cast<int>(version);
  ASSAY_TRY(head.title, fields.text("title"));
  ASSAY_TRY(head.description, fields.text_or("description", ""));
  return head;
}

Result<std::vector<MeasureProfile>> parse_measure_profiles(const Json& suite_json,
                                                           std::string_view source) {
  const auto found = suite_json.find("profiles");
  if (found == suite_json.end()) return fail("{}: missing key 'profiles'", source);
  if (!found->is_object() || found->empty())
    return fail(
        "{}: 'profiles' must be an object whose keys are the profiles that the suite supports, got "
        "{}",
        source, found->dump());
  std::vector<MeasureProfile> out;
  for (const auto& [name, changes] : found->items()) {
    const auto profile = parse_profile(name);
    if (!profile) return fail("{}: profiles: {}", source, profile.error().message);
    out.push_back({*profile, fmt::format("{}: profiles.{}", source, name), changes});
  }
  return out;
}

Json to_json(const Measurement& m) {
  return {{"suite", m.suite.name},
          {"version", m.suite.version},
          {"title", m.suite.title},
          {"hash", m.suite.hash},
          {"measure", m.suite.measure},
          {"state", m.reason.empty() ? "measured" : "not_run"},
          {"reason", m.reason},
          {"wall_s", m.wall_s},
          {"result", m.reason.empty() ? m.result : Json()}};
}

}  // namespace assay::harness
