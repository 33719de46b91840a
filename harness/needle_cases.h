// Needle cases: a fact hidden in a long text, and a question about it. Nothing of the text is
// stored: a case is a recipe of a few bytes, from which needle.h builds the same prompt every time
// (docs/formats/needle.md). Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "harness/suite.h"

namespace assay::harness {

enum class NeedleKind {
  kSingle,      // one key with its value
  kMultiKey,    // four keys with the same attribute, one of which is asked
  kMultiValue,  // one key with three values, all asked
  kMultiQuery,  // four keys, two of which are asked in one question
  kVariable,    // a value reached over two hops: VAR C = VAR B, VAR B = VAR A, VAR A = 38216
  kAbsent,      // two keys, and a third one is asked that the text does not mention
};
std::string_view name_of(NeedleKind kind);  // "single", "multi_key" …
Result<NeedleKind> parse_needle_kind(std::string_view written);

struct NeedleRecipe {
  NeedleKind kind = NeedleKind::kSingle;
  std::string haystack_language, needle_language, question_language;  // ja, en, zh
  int n_tokens = 0;        // of the whole rendered prompt, exactly
  double depth = 0;        // 0 … 1: where the (first) asked needle lies, by the haystack's tokens
  std::uint64_t seed = 0;  // below 2^53, so that every JSON reader keeps it

  Json to_json() const;
  static Result<NeedleRecipe> parse(const Json& json, std::string_view where);
};

struct NeedleCase {
  std::string id;       // "single-ja-4096-d50-r1"; crossed languages: "single-en.ja.ja-4096-d50-r1"
  std::string cluster;  // the id without languages: those cases share their values
  std::string language;              // of the question
  Profile profile = Profile::kFull;  // the smallest that includes the case
  bool gated = true;
  NeedleRecipe recipe;
};

// `params` is suite.json's "generator" object; messages begin with `where`.
Result<std::vector<NeedleCase>> expand_needle_cases(const Json& params, std::string_view where);

// The files that `params` names, relative to the suite's folder.
struct NeedleFiles {
  std::string tables;
  std::map<std::string, std::string> texts;  // language → a haystack of the user's own
};
Result<NeedleFiles> needle_files(const Json& params, std::string_view where);

}  // namespace assay::harness
