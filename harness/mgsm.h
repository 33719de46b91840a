// MGSM: 250 grade-school problems, the same in every language (Shi et al. 2022, "Language Models
// are Multilingual Chain-of-Thought Reasoners"). The files are not ours to bring along: users have
// them from google-research/url-nlp, mgsm/mgsm_<language>.tsv, a question and its number a line.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/result.h"
#include "harness/suite.h"

namespace assay::harness {

struct MgsmCases {
  std::vector<Case> cases;  // language by language; a problem's languages are one cluster
  std::string hash;         // over the bytes of every file
};

// `spec` is suite.json's "cases": {"format": "mgsm", "files": {"ja": "mgsm_ja.tsv", …},
// "prompts": {"ja": "{question} …", …}, "profiles": {"quick": 10, …}}: the first so many problems.
// The file of a language that is not `asked` for (empty: all are) may be missing.
Result<MgsmCases> load_mgsm_cases(const Json& spec, const std::string& where,
                                  const std::vector<std::string>& languages, const fs::path& data,
                                  const std::vector<std::string>& asked);

// Pure. A line is a question, a tab and a number; the last line may lack its end.
Result<std::vector<std::pair<std::string, std::string>>> parse_mgsm(std::string_view tsv,
                                                                    std::string_view source);

}  // namespace assay::harness
