// The faults that `assay selftest --power` plants, each at graded strength, and which of them must
// be caught. Data: what is strong was decided before anything was measured.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"

namespace assay::harness {

struct SelftestFault {
  enum class How {
    kFiles,    // `files`, for engine/plant.h, in a damaged copy of the model
    kExperts,  // scales of chosen experts × `value`, likewise
    kBits,     // quantised again, to `value` bits
    kEngine,   // `engine`, in the running engine
  };
  enum class Experts { kNone, kBusiest, kJapanese };  // which ones: by routing, so known only then
  std::string name;                                   // "expert-scale-1.2": --faults, folders
  std::string what, strength;                         // for the table
  bool strong = false;                                // must end in a regression, or not valid
  bool quantised = false;                             // in the VQ build; else in the bf16 model
  How how = How::kFiles;
  std::string files;  // {busiest} and {idlest} stand for experts of the middle layer, "3/5"
  Experts experts = Experts::kNone;
  double value = 0;
  engine::PlantedFault engine;
};

std::span<const SelftestFault> selftest_faults();

// By name; "all" is every one, "none" is none. An unknown name is an error with a suggestion.
Result<std::vector<SelftestFault>> faults_named(const std::vector<std::string>& names);

}  // namespace assay::harness
