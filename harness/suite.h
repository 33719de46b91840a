// A suite: what is asked, in which ways, and what must hold. Data only: suite.json and cases.csv,
// described in docs/formats/suite.md. Everything is checked here, so that later code can rely on
// it.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/result.h"

namespace assay::harness {

// Each profile includes the cases of those before it.
enum class Profile { kQuick, kCi, kNightly, kFull };
std::string_view name_of(Profile profile);
Result<Profile> parse_profile(std::string_view written);  // an error suggests the nearest

// One way of asking every case.
struct Arm {
  std::string name;
  bool enable_thinking = true;
  int max_tokens = 0;           // the whole reply
  int max_thinking_tokens = 0;  // 0: only max_tokens limits thinking
};

struct Sampling {
  double temperature = 0;
  std::optional<double> top_p, min_p, repetition_penalty;  // absent: off
  std::optional<int> top_k;
  Json to_json() const;
};

struct Case {
  std::string id;
  std::string cluster;  // cases of one problem (the same sum in three languages) share it
  std::string language, kind;
  Profile profile = Profile::kFull;  // the smallest that includes the case
  OrderedJson messages;              // as the OpenAI API has them
  std::string answer;                // canonical exact number
  std::string steps, note;
  bool gated = true;  // false: asked and reported, in no gate
};

// Which samples a gate looks at; an empty list means all.
struct Selector {
  std::vector<std::string> arms, languages, kinds;
  bool selects(std::string_view arm, std::string_view language, std::string_view kind) const;
  std::string text() const;  // "thinking, ja+zh", "all"
};

enum class GateMetric { kAccuracy, kClosed, kStopped, kError };
std::string_view name_of(GateMetric metric);

struct Gate {
  std::string name;
  GateMetric metric = GateMetric::kAccuracy;
  Selector where;
  std::optional<double> min, max;  // exactly one
};

struct Suite {
  std::string name, title, description;
  int version = 0;
  std::vector<std::string> languages;
  std::vector<Arm> arms;
  Sampling sampling;
  std::vector<Gate> gates;
  std::vector<Profile> profiles;
  std::vector<Case> cases;
  std::string hash;  // over both files' bytes
};

// Pure; `*_source` are the names that messages use.
Result<Suite> parse_suite(std::string_view suite_json, std::string_view json_source,
                          std::string_view cases_csv, std::string_view csv_source);
Result<Suite> load_suite(const fs::path& folder);

// Suites by name in `suites_folder`, "all" for every one of them, or a path to a suite's folder.
Result<std::vector<Suite>> find_suites(std::span<const std::string> names,
                                       const fs::path& suites_folder);

}  // namespace assay::harness
