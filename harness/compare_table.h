// A comparison for a terminal, from the JSON that is on record: what flipped first, then rows,
// thinking, fidelity, speed. Pure: text out.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/json.h"

namespace assay::harness {

struct CompareStyle {
  bool colour = false;
  std::size_t n_flips = 5;  // shown in full; 0: all
  bool every_row = false;   // else of many rows only those in which something changed
  // What compares the two, for what is left out.
  std::string command = "assay compare BASE CANDIDATE";
};

// `comparison` as to_json(Comparison) writes it, with "confirmation" and "fidelity" where there
// are.
std::string render_comparison(const Json& comparison, const CompareStyle& style);
std::string render_fidelity(const Json& fidelity, bool colour);
// `how` they were clocked: "in turns", "from two files".
std::string render_speed(const Json& speed, std::string_view how, bool colour);

}  // namespace assay::harness
