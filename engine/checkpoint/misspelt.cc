#include "engine/checkpoint/misspelt.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <string_view>

#include "base/suggest.h"

namespace assay::engine {
namespace {

// Without what another convention of names writes otherwise: normTopkProb, norm-topk-prob.
std::string plain_name(std::string_view key) {
  std::string plain;
  for (const unsigned char c : key)
    if (c != '_' && c != '-') plain.push_back(static_cast<char>(std::tolower(c)));
  return plain;
}

constexpr int kSlips = 2;  // a letter left out, one too many, or two that changed places

}  // namespace

std::vector<std::string> misspelt_keys(const Json& json, const KnownKeys& known,
                                       const std::string& prefix) {
  std::vector<std::string> out;
  if (!json.is_object()) return out;
  for (const auto& [written, value] : json.items()) {
    if (known.read.contains(written) || known.others.contains(written)) continue;
    const std::string plain = plain_name(written);
    const std::string* meant = nullptr;
    int n_slips = kSlips + 1;
    for (const std::string& key : known.read) {
      if (json.contains(key)) continue;
      // Of a name of two letters something must be left.
      if (const int n = edit_distance(plain, plain_name(key));
          n < n_slips && n < static_cast<int>(std::max(plain.size(), key.size()))) {
        meant = &key;
        n_slips = n;
      }
    }
    if (meant != nullptr)
      out.push_back(fmt::format("{}{} has no effect: is {} meant?", prefix, written, *meant));
  }
  return out;
}

std::string after_error(const std::vector<std::string>& misspelt) {
  return misspelt.empty() ? "" : fmt::format(". {}", fmt::join(misspelt, " "));
}

}  // namespace assay::engine
