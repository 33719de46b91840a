// A suite that measures instead of asking: suite.json has "measure" and no cases
// (docs/formats/suite.md). What comes of it is an entry of run.json's "measurements": figures, or
// the reason for which there are none. Never a verdict.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace assay::harness {

class JsonFields;

enum class Profile;  // harness/suite.h

struct MeasureHead {
  std::string name, title, description;
  std::string measure;  // "throughput" or "divergence"
  int version = 0;
  std::string hash;  // over the bytes of suite.json and of the files that it names
};

// "measure" of a suite.json, whatever else is right or wrong in it; none: a suite of cases.
std::optional<std::string> measure_of(const Json& suite_json);

// suite.json of a measure: the head's keys, and `parameters` that this measure knows beside them.
struct MeasureFile {
  MeasureHead head;  // hash over suite.json alone
  Json json;
};
Result<MeasureFile> parse_measure_file(std::string_view suite_json, std::string_view source,
                                       std::string_view measure,
                                       std::initializer_list<std::string_view> parameters);

// "profiles": an object whose keys are those that the suite supports, and whose values change
// parameters for that profile; `where` of each is "suite.json: profiles.quick".
struct MeasureProfile {
  Profile profile;
  std::string where;
  Json changes;
};
Result<std::vector<MeasureProfile>> parse_measure_profiles(const Json& suite_json,
                                                           std::string_view source);

struct Measurement {
  MeasureHead suite;
  std::string reason;  // why it was not measured; empty: it was
  Json result;         // of that measure; null if it was not measured
  double wall_s = 0;
};
Measurement not_measured(const MeasureHead& suite, std::string reason);
// {"suite", "version", "title", "hash", "measure", "state": "measured" | "not_run", "reason",
// "wall_s", "result"}
Json to_json(const Measurement& measurement);

// run.json's "measurements" for a terminal; empty text for an empty list.
std::string render_measurements(const Json& measurements, bool colour);

}  // namespace assay::harness
