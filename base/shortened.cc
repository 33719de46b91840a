#include "base/shortened.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace assay {

std::string shortened(std::span<const std::string> list, std::string_view separator,
                      std::size_t n_most) {
  const std::size_t n = std::min(list.size(), n_most);
  const std::string shown = fmt::format("{}", fmt::join(list.first(n), separator));
  return n == list.size() ? shown : fmt::format("{} and {} more", shown, list.size() - n);
}

}  // namespace assay
