#include "base/memory.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include "base/file.h"

namespace assay {
namespace {

constexpr const char* kStatus = "/proc/self/status";

// Of a line "VmHWM:     1756 kB" (a tab and blanks).
std::optional<std::int64_t> bytes_at(const std::string& status, const std::string& key) {
  const std::size_t at = status.find("\n" + key + ":");
  if (at == std::string::npos) return std::nullopt;
  std::int64_t kib = 0;
  if (!(std::istringstream(status.substr(at + key.size() + 2)) >> kib)) return std::nullopt;
  return kib * 1024;
}

}  // namespace

Result<MemoryUse> memory_use() {
  ASSAY_TRY(const std::string status, read_file(kStatus));
  const auto resident = bytes_at(status, "VmRSS"), peak = bytes_at(status, "VmHWM"),
             of_files = bytes_at(status, "RssFile"), shared = bytes_at(status, "RssShmem");
  if (!resident || !peak || !of_files || !shared)
    return fail("{}: expected VmRSS, VmHWM, RssFile and RssShmem (proc(5)), got {} bytes without",
                kStatus, status.size());
  // The kernel raises the mark when it looks, not at every page.
  return MemoryUse{*resident, *of_files + *shared, std::max(*peak, *resident)};
}

bool reset_peak_memory() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;
  return file.good();
}

}  // namespace assay
