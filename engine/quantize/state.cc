#include "engine/quantize/state.h"

#include <cstring>

#include "base/file.h"
#include "engine/checkpoint/unfinished.h"
#include "engine/quantize/identity.h"
#include "engine/quantize/output_place.h"

namespace assay::engine {
namespace {

Result<void> make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return fail("cannot create folder {}: {}", path.string(), error.message());
  return {};
}

// The projections of an expert, in the order of kProjections.
template <class Stats>
auto projections_of(Stats& e) {
  return std::array{&e.gate, &e.up, &e.down};
}

}  // namespace

Result<StateLock> State::lock_what_is_there(const fs::path& out) {
  if (!is_there(quantise_state(out))) return StateLock();
  return StateLock::take(quantise_state(out));
}

Result<State> State::open(const fs::path& out, const Json& identity, StateLock lock) {
  State s;
  s.out_ = out;
  s.folder_ = quantise_state(out);
  const fs::path file = s.folder_ / kIdentityFile;
  if (!is_there(file)) ASSAY_TRY_VOID(check_place(out));  // hours after it was asked first
  if (!lock.is_held()) {
    ASSAY_TRY_VOID(make_folder(s.folder_));
    ASSAY_TRY(lock, StateLock::take(s.folder_));
  }
  s.lock_ = std::move(lock);
  if (!is_there(file)) {
    ASSAY_TRY_VOID(write_file_atomic(file, identity.dump(2) + "\n"));
    return s;
  }
  ASSAY_TRY(const Json before, read_identity(file));
  s.is_resumed_ = true;
  const std::string differs = differences(before, identity);
  if (differs.empty()) return s;
  return fail(
      "{} holds unfinished work of other settings: {}. Go on with the settings that it has, "
      "delete it, or choose another folder",
      s.folder_.string(), differs);
}

fs::path State::stats_file(int layer) const { return folder_ / layer_stats_name(layer); }
fs::path State::codebook_file(std::size_t tier) const {
  return folder_ / tier_codebook_name(static_cast<int>(tier));
}
fs::path State::errors_file(std::size_t layer) const {
  return folder_ / layer_errors_name(static_cast<int>(layer));
}

Result<void> State::save_stats(int layer, const std::vector<ExpertStats>& stats) const {
  std::vector<NewTensor> tensors;
  std::vector<std::int32_t> n_tokens;
  for (std::size_t e = 0; e < stats.size(); ++e) {
    n_tokens.push_back(stats[e].n_tokens);
    const auto projections = projections_of(stats[e]);
    for (std::size_t p = 0; p < projections.size(); ++p)
      for (const auto& [what, values] : {std::pair{"energy", &projections[p]->col_energy},
                                         {"weight", &projections[p]->row_weight}})
        tensors.push_back(new_tensor(fmt::format("{}.{}.{}", e, kProjections[p], what), DType::kF32,
                                     {static_cast<std::int64_t>(values->size())}, *values));
  }
  tensors.push_back(
      new_tensor("n_tokens", DType::kI32, {static_cast<std::int64_t>(stats.size())}, n_tokens));
  return write_sealed(stats_file(layer), std::move(tensors));
}

Result<std::vector<ExpertStats>> State::load_stats(int layer) const {
  ASSAY_TRY(const SafetensorsFile file, open_sealed(stats_file(layer)));
  std::map<std::string, const TensorView*> by_name;
  for (const TensorView& t : file.tensors()) by_name[t.name] = &t;
  const auto copy = [&](const std::string& name, auto& out) -> Result<void> {
    const auto it = by_name.find(name);
    if (it == by_name.end() || it->second->bytes.size() % 4 != 0)
      return damaged(stats_file(layer), name + " is missing");
    out.resize(it->second->bytes.size() / 4);
    std::memcpy(out.data(), it->second->bytes.data(), it->second->bytes.size());
    return {};
  };
  std::vector<std::int32_t> n_tokens;
  ASSAY_TRY_VOID(copy("n_tokens", n_tokens));
  std::vector<ExpertStats> out(n_tokens.size());
  for (std::size_t e = 0; e < out.size(); ++e) {
    out[e].n_tokens = n_tokens[e];
    const auto projections = projections_of(out[e]);
    for (std::size_t p = 0; p < projections.size(); ++p) {
      ASSAY_TRY_VOID(
          copy(fmt::format("{}.{}.energy", e, kProjections[p]), projections[p]->col_energy));
      ASSAY_TRY_VOID(
          copy(fmt::format("{}.{}.weight", e, kProjections[p]), projections[p]->row_weight));
    }
  }
  return out;
}

Result<void> State::save_uncertainty(const std::vector<float>& uncertainty) const {
  return write_sealed(uncertainty_file(),
                      {new_tensor("uncertainty", DType::kF32,
                                  {static_cast<std::int64_t>(uncertainty.size())}, uncertainty)});
}

Result<std::vector<float>> State::load_uncertainty() const {
  ASSAY_TRY(const SafetensorsFile file, open_sealed(uncertainty_file()));
  for (const TensorView& t : file.tensors()) {
    if (t.name != "uncertainty" || t.dtype != DType::kF32) continue;
    std::vector<float> out(static_cast<std::size_t>(t.n_elements()));
    std::memcpy(out.data(), t.bytes.data(), t.bytes.size());
    return out;
  }
  return damaged(uncertainty_file(), "it has no F32 tensor uncertainty");
}

Result<void> State::save_codebook(std::size_t tier, const Tier& of,
                                  const Codebook& codebook) const {
  return write_sealed(codebook_file(tier),
                      Json{{"tier", of.name}, {"d", of.dim}, {"values", codebook.values}});
}

Result<Codebook> State::load_codebook(std::size_t tier, const Tier& of) const {
  ASSAY_TRY(const Json json, read_sealed(codebook_file(tier)));
  Codebook book{.dim = of.dim, .n_codes = of.n_codes, .values = {}};
  try {
    json.at("values").get_to(book.values);
    const auto n = static_cast<std::size_t>(of.dim) * static_cast<std::size_t>(of.n_codes);
    if (json.at("tier") == of.name && json.at("d") == of.dim && book.values.size() == n)
      return book;
  } catch (const Json::exception& e) {
    return damaged(codebook_file(tier), e.what());
  }
  return damaged(codebook_file(tier), fmt::format("expected tier {} with {} codewords of d = {}",
                                                  of.name, of.n_codes, of.dim));
}

Result<void> State::save_errors(std::size_t layer, const LayerErrors& errors) const {
  Json json = Json::array();
  for (const ModuleErrors& m : errors)
    json.push_back({{"energy", m.energy}, {"nearest", m.nearest}});
  return write_sealed(errors_file(layer), json);
}

Result<LayerErrors> State::load_errors(std::size_t layer, std::size_t n_modules,
                                       std::size_t n_tiers) const {
  ASSAY_TRY(const Json json, read_sealed(errors_file(layer)));
  LayerErrors out;
  try {
    for (const Json& m : json) {
      out.push_back({m.at("energy").get<double>(), m.at("nearest").get<std::vector<double>>()});
      if (out.back().nearest.size() != n_tiers)
        return damaged(errors_file(layer),
                       fmt::format("{} tiers of module {}, expected {}", out.back().nearest.size(),
                                   out.size() - 1, n_tiers));
    }
  } catch (const Json::exception& e) {
    return damaged(errors_file(layer), e.what());
  }
  if (out.size() != n_modules)
    return damaged(errors_file(layer),
                   fmt::format("{} modules, expected {}", out.size(), n_modules));
  return out;
}

Result<void> State::save_layer(int round, int layer, const std::vector<NewTensor>& tensors,
                               const Json& report) const {
  std::vector<TensorView> views;
  for (const NewTensor& t : tensors) views.push_back({t.name, t.dtype, t.shape, t.bytes});
  ASSAY_TRY_VOID(write_tensors(layer_file(round, layer), tensors));
  return write_sealed(report_file(round, layer),
                      Json{{"tensors", checksum_of(views)}, {"modules", report}});
}

Result<SafetensorsFile> State::open_layer(int round, int layer) const {
  ASSAY_TRY(const Json report, read_sealed(report_file(round, layer)));
  return open_sealed_by(layer_file(round, layer), report.value("tensors", Json()));
}

Result<Json> State::load_report(int round, int layer) const {
  ASSAY_TRY(const Json report, read_sealed(report_file(round, layer)));
  return report["modules"];
}

fs::path State::codebooks_file(int round) const {
  return (round == 0 ? folder_ : quantise_round(out_, round)) / "codebooks.safetensors";
}
fs::path State::layer_file(int round, int layer) const {
  return quantise_round(out_, round) / layer_tensors_name(layer);
}
fs::path State::report_file(int round, int layer) const {
  return quantise_round(out_, round) / layer_report_name(layer);
}

Result<void> State::begin_round(int round) const {
  return make_folder(quantise_round(out_, round));
}

std::string State::piece_in_hand(const ModelConfig& config, const Recipe& recipe) const {
  // Beside a count of layers a number alone could be either.
  const auto named = [&](int l) {
    return fmt::format("layer {} (of 0 to {})", l, config.n_layers - 1);
  };
  if (recipe.focus != 0 && !has_uncertainty()) return "the focus of all tokens";
  for (int l = 0; l < config.n_layers; ++l)
    if (!config.is_dense_layer(l) && !has_stats(l)) return "statistics of " + named(l);
  if (!has_plan()) {
    for (std::size_t t = 0; t < recipe.tiers.size(); ++t)
      if (!has_codebook(t)) return fmt::format("the codebook of tier {}", recipe.tiers[t].name);
    for (int l = 0; l < config.n_layers; ++l)
      if (!config.is_dense_layer(l) && !has_errors(static_cast<std::size_t>(l)))
        return "predicted errors of " + named(l);
    for (int l = 0; recipe.kept_sample > 0 && l < config.n_layers; ++l)
      if (!config.is_dense_layer(l) && !is_there(folder_ / layer_kept_name(l)))
        return fmt::format("the samples of {} that are encoded", named(l));
    return "the choice of tiers";
  }
  int round = 0;
  while (round + 1 < recipe.n_rounds && is_there(codebooks_file(round + 1))) ++round;
  for (int l = 0; l < config.n_layers; ++l)
    if (!has_layer(round, l)) return named(l);
  if (!has_layer(round, config.n_layers)) return "what is in no layer";
  return round + 1 < recipe.n_rounds ? "the refit of the codebooks" : "the index and fingerprint";
}

void State::remove() const {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

}  // namespace assay::engine
