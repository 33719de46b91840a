// How an engine ran its steps, in records and for people: a GPU that launches kernel by kernel
// where it should replay a graph is slow, and says so nowhere else.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "engine/engine.h"

namespace assay::harness {

Json to_json(const engine::StepCounts& counts);
// Of what to_json made: "812 replayed as graphs, 4 recorded, 30 launch by launch".
std::string step_counts_text(const Json& counts);
// The same, and the kernel that they ran on.
std::string engine_steps_line(const Json& counts, std::string_view backend,
                              std::string_view kernel);
// A run's, with the kernel that they ran on; empty where its engine counts none, as on a host, and
// in records of before they were kept.
std::string engine_steps_line(const Json& run);

}  // namespace assay::harness
