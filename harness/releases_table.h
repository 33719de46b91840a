// Many runs side by side, a column each: releases as a model card lists them. Shown, not judged.
#pragma once

#include <span>
#include <string>

#include "base/json.h"

namespace assay::harness {

// What each run.json says: accuracy with its interval by suite, arm and language, how thinking ends
// and how long it is, mean KLD, decode speed, weight bytes a token reads.
struct Release {
  std::string name;
  const Json* run;
};
std::string render_releases(std::span<const Release> releases, bool colour);
Json releases_json(std::span<const Release> releases);

}  // namespace assay::harness
