#include "engine/quantize/output_place.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/file.h"
#include "base/json.h"
#include "engine/checkpoint/enclosing.h"
#include "engine/checkpoint/mending.h"
#include "engine/checkpoint/unfinished.h"
#include "engine/quantize/state_check.h"

namespace assay::engine {
namespace {

// A folder of nothing, or of a state in which nothing is finished yet.
bool is_as_good_as_empty(const fs::path& out) {
  std::error_code ignored;
  for (fs::directory_iterator it(out, ignored), end; it != end; it.increment(ignored))
    if (it->path() != quantise_state(out)) return false;
  return is_state_without_pieces(quantise_state(out));
}

// Of a build that assay quantize has finished and then lost files of.
Result<void> check_build(const fs::path& out) {
  const auto lacks = [&](const char* name) { return !is_there(out / name); };
  std::string missing;
  for (const char* name : {"config.json", "quantisation.json", "quantisation-identity.json"})
    if (lacks(name)) missing += (missing.empty() ? "" : " and ") + std::string(name);
  // The other two are enough to make it again (build_config.h).
  if (missing.empty() || missing == "config.json") return {};
  return fail(
      "{} is a finished build that lacks {}{}. Nothing is overwritten: copy what is missing from "
      "where the build is whole, delete the folder to make it anew, or choose another folder",
      out.string(), missing,
      lacks("quantisation-identity.json")
          ? ", so it is not known whether it is what is asked for (assay inspect shows what it is)"
          : "");
}

Result<void> check_what_is_there(const fs::path& out) {
  std::error_code ignored;
  if (!fs::is_directory(out, ignored))
    return fail("{} is there and is not a folder: nothing is overwritten. Choose another",
                out.string());
  if (is_as_good_as_empty(out) || !is_state_without_pieces(quantise_state(out))) return {};
  if (is_own_build(out)) return check_build(out);
  return fail("{} is there and not an empty folder: nothing is overwritten. Choose another folder",
              out.string());
}

fs::path part_that_is_there(const fs::path& out) {
  fs::path place = out.is_absolute() ? out : fs::path(".") / out;
  while (!is_there(place) && place.has_parent_path() && place != place.parent_path())
    place = place.parent_path();
  return place;
}

// Only making something shows it: a system that is read-only, a quota, rights.
Result<void> check_can_write(const fs::path& out) {
  const fs::path place = part_that_is_there(out);
  std::string trial = (place / ".assay-quantize-XXXXXX").string();
  if (::mkdtemp(trial.data()) == nullptr)
    return fail("cannot make {}: nothing can be written in {}: {}. Choose another folder",
                out.string(), place.string(), std::strerror(errno));
  std::error_code ignored;
  fs::remove(trial, ignored);
  return {};
}

bool is_left_out(std::string_view tensor, const ModelConfig& config) {
  for (int l = 0; l < config.n_mtp_layers; ++l)
    if (tensor.starts_with(fmt::format("model.layers.{}.", config.n_layers + l))) return true;
  return false;
}

// Codes, scales and what stays as it is; a mixture of tiers comes near its bits, not up to them.
double least_bytes(const Checkpoint& original, const Recipe& recipe) {
  constexpr double kLeastOfBits = 0.9;
  const double expert = kLeastOfBits * recipe.bits + 16.0 / recipe.group;
  const double spine = std::min({recipe.attention_bits, recipe.kv_a_bits, recipe.dense_mlp_bits,
                                 recipe.shared_expert_bits, recipe.lm_head_bits});
  double n_bits = 0;
  for (const auto& [name, t] : original.tensors()) {
    if (is_left_out(name, original.config())) continue;
    const double as_it_is = 8.0 * static_cast<double>(bytes_of(t->dtype));
    const bool is_projection = name.ends_with("_proj.weight") || name == "lm_head.weight";
    const double bits = name.find(".mlp.experts.") != std::string::npos ? expert
                        : is_projection                                 ? spine
                                                                        : as_it_is;
    n_bits += static_cast<double>(t->n_elements()) * std::min(bits, as_it_is);
  }
  return n_bits / 8;
}

double bytes_in(const fs::path& folder) {
  double n = 0;
  std::error_code ignored;
  for (fs::recursive_directory_iterator it(folder, ignored), end; it != end; it.increment(ignored))
    if (it->is_regular_file(ignored)) n += static_cast<double>(it->file_size(ignored));
  return n;
}

}  // namespace

Result<void> check_place(const fs::path& out) {
  if (is_there(out)) {
    ASSAY_TRY_VOID(check_what_is_there(out));
    if (is_there(out / "config.json")) return {};  // nothing is to be made
  } else {
    ASSAY_TRY_VOID(check_is_in_no_checkpoint(out));
  }
  return check_can_write(out);
}

Result<void> check_space(const fs::path& out, const Checkpoint& original, const Recipe& recipe) {
  std::error_code error;
  const fs::path place = part_that_is_there(out);
  const fs::space_info disk = fs::space(place, error);
  if (error || is_there(out / "config.json")) return {};  // not known; nothing is to be made
  const double needed = least_bytes(original, recipe) - bytes_in(out);
  if (static_cast<double>(disk.available) >= needed) return {};
  return fail(
      "{}: {:.1f} MiB are free on the disk of {}, and the build takes {:.1f} more at the least. "
      "Make "
      "room, or choose a folder on another disk",
      out.string(), static_cast<double>(disk.available) / 0x1p20, place.string(), needed / 0x1p20);
}

}  // namespace assay::engine
