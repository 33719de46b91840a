// A key that nobody reads is no error, for checkpoints carry many. One that is nearly the name of a
// known key that is absent is named: it has no effect, and a default is taken instead.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "base/json.h"

namespace assay::engine {

struct KnownKeys {
  std::set<std::string> read;         // by us: what may be meant
  std::set<std::string> others = {};  // that other tools write, and that mean themselves
};

// Of one JSON object (none of anything else): "norm_topk_prb has no effect: is norm_topk_prob
// meant?", each with `prefix` before the key. Two edits at most, or another convention of names.
std::vector<std::string> misspelt_keys(const Json& json, const KnownKeys& known,
                                       const std::string& prefix = "");

// ". " and the sentences, to follow an error: what is absent may be there by another name.
std::string after_error(const std::vector<std::string>& misspelt);

}  // namespace assay::engine
