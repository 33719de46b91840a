#include "harness/provenance.h"

#include <fmt/chrono.h>
#include <sys/utsname.h>

#include <ctime>

#include "base/file.h"
#include "base/thread_pool.h"
#include "harness/version.h"

namespace assay::harness {
namespace {

std::string cpu_model() {
  const auto text = read_file("/proc/cpuinfo");
  if (!text) return "unknown";
  const std::size_t name = text->find("model name");
  if (name == std::string::npos) return "unknown";
  const std::size_t begin = text->find(": ", name), end = text->find('\n', name);
  return begin < end ? text->substr(begin + 2, end - begin - 2) : "unknown";
}

std::tm utc() { return fmt::gmtime(std::time(nullptr)); }

}  // namespace

std::string utc_now() { return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", utc()); }
std::string utc_now_for_path() { return fmt::format("{:%Y%m%d-%H%M%S}", utc()); }

Json make_provenance(const std::string& command, Json target) {
  const BuildInfo& build = build_info();
  utsname host = {};
  const bool known = ::uname(&host) == 0;
  return {{"assay", build.version},
          {"commit", build.commit},
          {"build_type", build.build_type},
          {"compiler", build.compiler},
          {"command", command},
          {"started", utc_now()},
          {"machine",
           {{"cpu", cpu_model()},
            {"n_cores", n_usable_cores()},
            {"kernel", known ? fmt::format("{} {}", host.sysname, host.release) : "unknown"},
            {"arch", known ? host.machine : "unknown"}}},
          {"target", std::move(target)}};
}

}  // namespace assay::harness
