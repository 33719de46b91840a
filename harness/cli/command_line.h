// The command that started this process, as one would type it again.
#pragma once

#include <string>
#include <string_view>

#include "base/shell_quoted.h"

namespace assay::cli {

// Of two runs' folders.
std::string compare_command(std::string_view base, std::string_view candidate);
std::string command_line();  // from /proc/self/cmdline; "assay" where there is none

}  // namespace assay::cli
