// What a quantisation has done so far, in OUT/quantize-state: everything is written atomically, so
// that a run that was killed goes on after the last finished layer.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "engine/checkpoint/safetensors.h"
#include "engine/quantize/plan.h"

namespace assay::engine {

// A tensor on its way to a file.
struct NewTensor {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;
};
template <class T>
NewTensor new_tensor(std::string name, DType dtype, std::vector<std::int64_t> shape,
                     const std::vector<T>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {std::move(name), dtype, std::move(shape), {bytes.begin(), bytes.end()}};
}
Result<void> write_tensors(const std::filesystem::path& path,
                           const std::vector<NewTensor>& tensors);

class State {
 public:
  // `identity` says what is made of what and how. A folder with other work in it, or with a
  // finished checkpoint, is an error.
  static Result<State> open(const std::filesystem::path& out, const Json& identity);

  bool has_stats(int layer) const { return is_there(stats_file(layer)); }
  Result<void> save_stats(int layer, const std::vector<ExpertStats>& stats) const;
  Result<std::vector<ExpertStats>> load_stats(int layer) const;

  bool has_uncertainty() const { return is_there(uncertainty_file()); }
  Result<void> save_uncertainty(const std::vector<float>& uncertainty) const;
  Result<std::vector<float>> load_uncertainty() const;

  bool has_plan() const { return is_there(folder_ / "plan.json"); }
  const std::filesystem::path& folder() const { return folder_; }

  // Of a round of encoding: its codebooks (round 0: the plan's), and finished layers, the last
  // number being all that is in no layer.
  std::filesystem::path codebooks_file(int round) const;
  std::filesystem::path layer_file(int round, int layer) const;
  std::filesystem::path report_file(int round, int layer) const;
  bool has_layer(int round, int layer) const {
    return is_there(layer_file(round, layer)) && is_there(report_file(round, layer));
  }
  Result<void> begin_round(int round) const;
  void remove() const;

 private:
  std::filesystem::path stats_file(int layer) const;
  std::filesystem::path uncertainty_file() const { return folder_ / "uncertainty.safetensors"; }
  static bool is_there(const std::filesystem::path& path);

  std::filesystem::path out_, folder_;
};

}  // namespace assay::engine
