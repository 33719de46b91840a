// Many runs side by side, a column each: releases as a model card lists them. Shown, not judged.
#pragma once

#include <span>
#include <string>
#include <vector>

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

// Names for folders: as many of each path's last parts as tell it from the others. The same folder
// again is numbered.
std::vector<std::string> names_apart(std::span<const std::string> folders);

}  // namespace assay::harness
