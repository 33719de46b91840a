// A size in bytes for people: "14.21 GB", and below 0.01 GB, which would read as nothing, "3.40
// MB".
#pragma once

#include <fmt/format.h>

#include <string>

namespace assay {

inline std::string size_text(double n_bytes) {
  if (n_bytes >= 1e7) return fmt::format("{:.2f} GB", n_bytes * 1e-9);
  if (n_bytes >= 1e4) return fmt::format("{:.2f} MB", n_bytes * 1e-6);
  return fmt::format("{:.0f} bytes", n_bytes);
}

}  // namespace assay
