// A suite that measures instead of asking: suite.json has "measure" and no cases
// (docs/formats/suite.md). What comes of it is an entry of run.json's "measurements": figures, or
// the reason for which there are none. Never a verdict.
#pragma once

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

// The keys that every suite.json with "measure" has beside the parameters of that measure:
// "format", "name", "version", "title", "description" (may be left out), "measure" and "profiles".
// All of it but the hash.
Result<MeasureHead> parse_measure_head(const JsonFields& fields, std::string_view measure);

// "profiles": the keys are those that the suite supports, the values change parameters for it.
struct MeasureProfile {
  Profile profile;
  std::string where;  // "suite.json: profiles.quick"
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
// {"suite", "version", "title", "hash", "measure", "state": "measured" or "not_run", "reason",
// "wall_s", "result"}
Json to_json(const Measurement& measurement);

}  // namespace assay::harness
