// CHECK(cond) << values: a broken promise of our own code. Prints file, line, condition and values,
// then aborts. Bad input never ends here: see result.h.
#pragma once

#include <sstream>

namespace assay {

class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* condition);
  [[noreturn]] ~CheckFailure();
  std::ostream& stream() { return message_; }

 private:
  std::ostringstream message_;
};

struct CheckVoidify {
  void operator&(std::ostream&) const {}
};

}  // namespace assay

#define CHECK(condition)     \
  (condition)                \
      ? static_cast<void>(0) \
      : ::assay::CheckVoidify() & ::assay::CheckFailure(__FILE__, __LINE__, #condition).stream()
