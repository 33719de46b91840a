// A word of a command that a message asks to be typed.
#pragma once

#include <string>
#include <string_view>

namespace assay {

// Quoted only where a shell would split or expand it.
std::string shell_quoted(std::string_view word);

}  // namespace assay
