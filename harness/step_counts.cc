#include "harness/step_counts.h"

#include <fmt/format.h>

namespace assay::harness {

Json to_json(const engine::StepCounts& counts) {
  Json out = {{"direct", counts.n_direct},
              {"recorded", counts.n_recorded},
              {"replayed", counts.n_replayed}};
  if (counts.n_beyond_graphs > 0) out["beyond_graphs"] = counts.n_beyond_graphs;
  return out;
}

std::string step_counts_text(const Json& counts) {
  const auto n = [&](const char* key) { return counts.at(key).get<std::int64_t>(); };
  std::string text = fmt::format("{} replayed as graphs, {} recorded, {} launch by launch",
                                 n("replayed"), n("recorded"), n("direct"));
  if (counts.contains("beyond_graphs"))
    text +=
        fmt::format(", {} of them because the memory for graphs is used up", n("beyond_graphs"));
  return text;
}

std::string engine_steps_line(const Json& counts, std::string_view backend,
                              std::string_view kernel) {
  return fmt::format("{} ({} {})", step_counts_text(counts), backend, kernel);
}

std::string engine_steps_line(const Json& run) {
  const Json timings = run.value("timings", Json::object());
  if (!timings.contains("steps")) return "";
  const Json target = run.at("provenance").value("target", Json::object());
  return engine_steps_line(timings.at("steps"), target.value("backend", ""),
                           target.value("kernel", ""));
}

}  // namespace assay::harness
