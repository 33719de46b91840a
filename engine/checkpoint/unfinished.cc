#include "engine/checkpoint/unfinished.h"

#include <fmt/format.h>

#include "base/file.h"
#include "base/json.h"

namespace assay::engine {
namespace {

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

bool has_layer(const fs::path& round, int layer) {
  return is_there(round / layer_tensors_name(layer)) && is_there(round / layer_report_name(layer));
}

}  // namespace

fs::path quantise_state(const fs::path& out) { return out / "quantize-state"; }
fs::path quantise_round(const fs::path& out, int round) {
  return quantise_state(out) / fmt::format("round-{}", round);
}
std::string layer_tensors_name(int layer) { return fmt::format("layer-{:05}.safetensors", layer); }
std::string layer_report_name(int layer) { return fmt::format("layer-{:05}.json", layer); }

std::string UnfinishedQuantisation::text() const {
  if (n_layers == 0) return "no layer done";
  const std::string of_round =
      n_rounds > 1 ? fmt::format(" in round {} of {}", round + 1, n_rounds) : "";
  return fmt::format("{} of {} layers done{}", n_done, n_layers, of_round);
}

std::optional<UnfinishedQuantisation> unfinished_quantisation(const fs::path& out) {
  const auto identity = read_json(quantise_state(out) / "identity.json");
  if (!identity) return std::nullopt;
  UnfinishedQuantisation u;
  try {
    u.n_rounds = identity->at("recipe").at("n_rounds").get<int>();
    if (const fs::path file = quantise_state(out) / "plan.json"; is_there(file)) {
      const auto plan = read_json(file);
      if (!plan) return std::nullopt;
      u.n_layers = static_cast<int>(plan->at("tier").size());
    }
  } catch (const Json::exception&) {
    return std::nullopt;
  }
  while (u.round + 1 < u.n_rounds && is_there(quantise_round(out, u.round + 1))) ++u.round;
  while (u.n_done < u.n_layers && has_layer(quantise_round(out, u.round), u.n_done)) ++u.n_done;
  return u;
}

}  // namespace assay::engine
