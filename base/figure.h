// A figure for people: with `decimals` decimals, and fewer where there would be more than `digits`
// significant digits: "1.00123", "30105.6", never "30105.55547" (decimals 5, digits 6). From 1e9
// with an exponent.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>

namespace assay {

inline std::string figure(double value, int decimals, int digits) {
  const double size = std::abs(value);
  if (!(size < 1e9)) return fmt::format("{:.{}g}", value, digits);  // NaN and infinities too
  const int before_point = size < 1 ? 1 : 1 + static_cast<int>(std::log10(size));
  return fmt::format("{:.{}f}", value, std::clamp(digits - before_point, 0, decimals));
}

}  // namespace assay
