#include "harness/cli/command_line.h"

#include <fmt/format.h>

#include "base/file.h"
#include "base/shell_quoted.h"
#include "harness/cli/process_job.h"

namespace assay::cli {

std::string compare_command(std::string_view base, std::string_view candidate) {
  return fmt::format("assay compare {} {}", shell_quoted(base), shell_quoted(candidate));
}

std::string command_line() {
  const auto bytes = read_file("/proc/self/cmdline");
  if (!bytes || bytes->empty()) return "assay";
  std::string out = n_processes() > 1 ? fmt::format("mpirun -np {}", n_processes()) : "";
  std::string_view rest = *bytes;
  while (!rest.empty()) {
    const std::size_t end = rest.find('\0');
    out += (out.empty() ? "" : " ") + shell_quoted(rest.substr(0, end));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  return out;
}

}  // namespace assay::cli
