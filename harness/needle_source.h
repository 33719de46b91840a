// What a suite of needles is made from: its tables, and texts of the user's own in their place.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "harness/needle.h"

namespace assay::harness {

struct NeedleSource {
  NeedleTables tables;
  std::map<std::string, std::vector<NeedleSentence>, std::less<>> texts;  // by language

  const std::vector<NeedleSentence>* own_text(std::string_view language) const {
    const auto found = texts.find(language);
    return found == texts.end() ? nullptr : &found->second;
  }
};

}  // namespace assay::harness
