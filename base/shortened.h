// A list as it may stand in a message: on one line that a person reads to its end.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace assay {

// "a, b, c and 17 more": all of a list of up to `n_most`, else the first of them.
std::string shortened(std::span<const std::string> list, std::string_view separator = ", ",
                      std::size_t n_most = 6);

}  // namespace assay
