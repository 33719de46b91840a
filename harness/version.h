// What this binary was built from, for provenance and --version.
#pragma once

#include <string>

namespace assay {

struct BuildInfo {
  const char* version;     // "0.1.0"
  const char* commit;      // 40 hexadecimal digits, "-dirty" appended; "unknown" without git
  const char* build_type;  // "Release"
  const char* compiler;    // "GNU 12.2.0"
};
const BuildInfo& build_info();

std::string version_text();  // one line

}  // namespace assay
