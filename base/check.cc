#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace assay {

CheckFailure::CheckFailure(const char* file, int line, const char* condition) {
  message_ << file << ":" << line << ": CHECK(" << condition << ") failed. ";
}

CheckFailure::~CheckFailure() {
  std::fprintf(stderr, "%s\nThis is a bug in assay, not in your input.\n", message_.str().c_str());
  std::abort();
}

}  // namespace assay
