// The measurements of `assay diverge` as a suite: suite.json and its texts. Pure but for load;
// divergence_suite_run does the work.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/result.h"
#include "engine/text/corpus.h"
#include "harness/measurement.h"

namespace assay::harness {

struct DivergenceSettings {
  int limit = 0;  // of texts, spread evenly over the file; 0: all
  // Of those, for the base's noise floor and the candidate's decode_against_prefill; 0: none.
  int n_noise_texts = 0;
  Json to_json() const;
};

struct DivergenceSuite {
  MeasureHead head;
  std::string texts;                               // file name, in the suite's folder
  std::map<Profile, DivergenceSettings> profiles;  // those that it supports
  std::vector<text::CorpusLine> lines;             // of that file, all of them; filled by load
};
Result<DivergenceSuite> parse_divergence_suite(std::string_view suite_json,
                                               std::string_view source);
Result<DivergenceSuite> load_divergence_suite(const fs::path& folder);

// Said in run.json where there is nothing to compare with.
inline constexpr std::string_view kNoBase = "needs --base MODEL|FILE";

}  // namespace assay::harness
