// A count with its noun, for messages: "1 token", "2 tokens", "2 replies".
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace assay {

template <class N>
std::string counted(N n, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", n, n == 1 ? one : many);
}
template <class N>
std::string counted(N n, std::string_view one) {
  return counted(n, one, std::string(one) + "s");
}

}  // namespace assay
