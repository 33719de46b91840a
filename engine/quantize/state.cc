#include "engine/quantize/state.h"

#include <cstring>

#include "base/file.h"
#include "engine/checkpoint/unfinished.h"

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

Result<void> write_tensors(const fs::path& path, const std::vector<NewTensor>& tensors) {
  std::vector<TensorView> views;
  for (const NewTensor& t : tensors) views.push_back({t.name, t.dtype, t.shape, t.bytes});
  return write_safetensors(path, std::move(views));
}

bool State::is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

Result<State> State::open(const fs::path& out, const Json& identity) {
  State s;
  s.out_ = out;
  s.folder_ = quantise_state(out);
  const fs::path file = s.folder_ / "identity.json";
  if (is_there(file)) {
    ASSAY_TRY(const Json before, read_json(file));
    if (before == identity) return s;
    std::string differs;
    for (const auto& [key, value] : identity.items())
      if (!before.contains(key) || before[key] != value)
        differs += fmt::format("{}{}", differs.empty() ? "" : ", ", key);
    return fail(
        "{} holds unfinished work of other settings ({} differ): go on with the same settings, "
        "delete it, or "
        "choose another folder",
        s.folder_.string(), differs);
  }
  std::error_code ignored;
  if (fs::exists(out, ignored) && !(fs::is_directory(out, ignored) && fs::is_empty(out, ignored)))
    return fail(
        "{} is there and not an empty folder: nothing is overwritten. Choose another folder",
        out.string());
  ASSAY_TRY_VOID(make_folder(s.folder_));
  ASSAY_TRY_VOID(write_file_atomic(file, identity.dump(2) + "\n"));
  return s;
}

fs::path State::stats_file(int layer) const {
  return folder_ / fmt::format("stats-{:05}.safetensors", layer);
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
  return write_tensors(stats_file(layer), tensors);
}

Result<std::vector<ExpertStats>> State::load_stats(int layer) const {
  ASSAY_TRY(const SafetensorsFile file, SafetensorsFile::open(stats_file(layer)));
  std::map<std::string, const TensorView*> by_name;
  for (const TensorView& t : file.tensors()) by_name[t.name] = &t;
  const auto copy = [&](const std::string& name, auto& out) -> Result<void> {
    const auto it = by_name.find(name);
    if (it == by_name.end() || it->second->bytes.size() % 4 != 0)
      return fail("{}: {} is missing. Delete the folder and begin again",
                  stats_file(layer).string(), name);
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
  return write_tensors(uncertainty_file(),
                       {new_tensor("uncertainty", DType::kF32,
                                   {static_cast<std::int64_t>(uncertainty.size())}, uncertainty)});
}

Result<std::vector<float>> State::load_uncertainty() const {
  ASSAY_TRY(const SafetensorsFile file, SafetensorsFile::open(uncertainty_file()));
  if (file.tensors().size() != 1 || file.tensors()[0].dtype != DType::kF32)
    return fail("{}: expected one F32 tensor. Delete the folder and begin again",
                uncertainty_file().string());
  const TensorView& t = file.tensors()[0];
  std::vector<float> out(static_cast<std::size_t>(t.n_elements()));
  std::memcpy(out.data(), t.bytes.data(), t.bytes.size());
  return out;
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

void State::remove() const {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

}  // namespace assay::engine
