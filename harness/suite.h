// A suite: what is asked, in which ways, and what must hold. Data only: suite.json and cases.csv,
// described in docs/formats/suite.md. Everything is checked here, so that later code can rely on
// it.
#pragma once

#include <map>
#include <memory>
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

struct Sampling {
  double temperature = 0;
  std::optional<double> top_p, min_p, repetition_penalty;  // absent: off
  std::optional<int> top_k;
  Json to_json() const;
};

// One way of asking the cases.
struct Arm {
  std::string name;
  bool enable_thinking = true;
  int max_tokens = 0;           // the whole reply
  int max_thinking_tokens = 0;  // 0: only max_tokens limits thinking
  bool force_close = false;     // at max_thinking_tokens </think> is written, and the model goes on
  int repeats = 1;              // how often each case is asked, each time with other draws
  std::string system;           // a system message put before the case's own messages
  std::vector<std::string> kinds;     // only these are asked; empty: all
  Profile profile = Profile::kQuick;  // the smallest that includes the arm
  std::optional<Sampling> sampling;   // instead of the suite's
  bool asks(const struct Case& c) const;
};

// How a finished answer is judged.
enum class Scoring {
  kNumber,    // it is one exact number
  kText,      // it names one of the accepted answers
  kLanguage,  // it and the reasoning are in the language asked for
  kNeedle,    // it gives every value that was asked for, and no other
  kNone,      // it is not: only how the reply ended counts
};
std::string_view name_of(Scoring scoring);
std::optional<Scoring> parse_scoring(std::string_view name);

struct Case {
  std::string id;
  std::string cluster;  // cases of one problem (the same sum in three languages) share it
  std::string language, kind;
  Profile profile = Profile::kFull;  // the smallest that includes the case
  OrderedJson messages;              // as the OpenAI API has them
  Scoring scoring = Scoring::kNumber;
  std::string answer;              // canonical exact number; texts, the accepted ones, with |
  std::string reasoning_language;  // that the thinking must be in; empty: not looked at
  Json recipe;                     // of a generated case, which has no messages; else null
  std::string prefill;             // an unfinished thinking that the model has to go on with
  std::string steps, note;
  bool gated = true;  // false: asked and reported, in no gate
};

// Which samples a gate looks at; an empty list means all.
struct Selector {
  std::vector<std::string> arms, languages, kinds;
  bool selects(std::string_view arm, std::string_view language, std::string_view kind) const;
  std::string text() const;  // "thinking, ja+zh", "all"
};

enum class GateMetric { kAccuracy, kClosed, kStopped, kError, kAnswered, kLanguage, kNoLoop };
std::string_view name_of(GateMetric metric);

struct Gate {
  std::string name;
  GateMetric metric = GateMetric::kAccuracy;
  Selector where;
  std::optional<double> min, max;  // exactly one
};

struct NeedleSource;  // harness/needle_source.h

inline constexpr double kDefaultFloor = 0.02;

struct Suite {
  std::string name, title, description;
  int version = 0;
  std::vector<std::string> languages;
  std::vector<Arm> arms;
  Sampling sampling;
  std::vector<Gate> gates;
  std::vector<Profile> profiles;
  std::vector<Case> cases;
  Scoring scoring = Scoring::kNumber;          // of cases that do not say otherwise
  std::shared_ptr<const NeedleSource> needle;  // where the cases are generated
  bool draw_steps = false;       // the report draws p(</think>) and p(eos) over every reply
  double floor = kDefaultFloor;  // the smallest net drop, a share of samples, that is a regression
  std::string hash;              // over the bytes of its files
};

// Pure; `*_source` are the names that messages use.
Result<Suite> parse_suite(std::string_view suite_json, std::string_view json_source,
                          std::string_view cases_csv, std::string_view csv_source);

// What a user brings to suites that do not come with all of it.
struct SuiteInputs {
  fs::path data;                              // folder of public files (mgsm_ja.tsv …)
  std::map<std::string, fs::path> haystacks;  // language → a text for needles to be hidden in
  std::vector<std::string> languages;         // asked for (empty: all): of others a file may lack
};
Result<Suite> load_suite(const fs::path& folder, const SuiteInputs& inputs = {});

}  // namespace assay::harness
