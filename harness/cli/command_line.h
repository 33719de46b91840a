// The command that started this process, as one would type it again.
#pragma once

#include <string>
#include <string_view>

namespace assay::cli {

std::string shell_quoted(
    std::string_view word);  // quoted only where a shell would split or expand it
// Of two runs' folders.
std::string compare_command(std::string_view base, std::string_view candidate);
std::string command_line();  // from /proc/self/cmdline; "assay" where there is none

}  // namespace assay::cli
