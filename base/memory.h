// What this process holds of the machine's memory, by Linux's account (proc(5)).
#pragma once

#include <cstdint>

#include "base/result.h"

namespace assay {

struct MemoryUse {
  std::int64_t resident_bytes;  // now, pages of mapped files included …
  std::int64_t mapped_bytes;  // … and these alone: the system takes them back when it needs them
  std::int64_t peak_bytes;    // the most that was resident at once
};

// An error where there is no /proc.
Result<MemoryUse> memory_use();

// From now on the peak counts anew, for getrusage and the parent's wait4 too. False where the
// system does not allow that: it is then still counted from the beginning of the process.
bool reset_peak_memory();

}  // namespace assay
