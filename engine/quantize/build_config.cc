#include "engine/quantize/build_config.h"

#include "base/file.h"
#include "engine/checkpoint/checkpoint.h"

namespace assay::engine {
namespace {

// A whole number as the release writes it: readers multiply it by d.
Json bits_of(const Tier& tier) {
  if (tier.index_bits() % tier.dim == 0) return tier.index_bits() / tier.dim;
  return tier.bits();
}

Result<Json> entry_of(const std::string& module, const Json& how, const Recipe& recipe) {
  const std::string format = how.value("format", "");
  if (format.starts_with("gptq"))
    return Json{{"bits", format == "gptq 4 bit" ? 4 : 8}, {"group_size", recipe.spine_group}};
  for (const Tier& tier : recipe.tiers)
    if (format == "vq" && tier.name == how.value("tier", ""))
      return Json{{"bits", bits_of(tier)}, {"format", "vq"}, {"d", tier.dim}};
  return fail("module {} is stored as {}, expected a GPTQ form or VQ of a tier of the recipe",
              module, how.dump());
}

Result<Json> quantization_config(const Recipe& recipe, const Json& modules) {
  Json extra = Json::object();
  for (const auto& [module, how] : modules.items()) {
    ASSAY_TRY(extra[module], entry_of(module, how, recipe));
  }
  return Json{{"quant_method", "auto-round"},
              {"bits", 16},
              {"group_size", recipe.group},
              {"sym", false},
              {"codebooks_file", "vq_codebooks.safetensors"},
              {"extra_config", extra}};
}

}  // namespace

Result<void> write_build_config(const fs::path& original, const fs::path& out, const Recipe& recipe,
                                const Json& modules) {
  ASSAY_TRY(Json config, read_json(original / "config.json"));
  ASSAY_TRY(config["quantization_config"], quantization_config(recipe, modules));
  // Multi-token-prediction layers are not quantised, so the new checkpoint has none.
  if (config.contains("num_nextn_predict_layers")) config["num_nextn_predict_layers"] = 0;
  return write_file_atomic(out / "config.json", config.dump(0) + "\n");
}

Result<void> restore_build_config(const fs::path& original, const fs::path& out,
                                  const Recipe& recipe) {
  ASSAY_TRY(const Json report, read_json(out / "quantisation.json"));
  if (!report.is_object() || !report.value("modules", Json()).is_object())
    return fail("{} has no modules, so config.json cannot be made again from it",
                (out / "quantisation.json").string());
  ASSAY_TRY_VOID(write_build_config(original, out, recipe, report["modules"]));
  const auto check = [&]() -> Result<void> {
    ASSAY_TRY(const Checkpoint checkpoint, Checkpoint::open(out));
    ASSAY_TRY(const std::string fingerprint, checkpoint.fingerprint());
    return check_as_written(checkpoint, fingerprint);
  };
  auto is_good = check();
  std::error_code ignored;  // a config.json says that all is well
  if (!is_good) fs::remove(out / "config.json", ignored);
  return is_good;
}

}  // namespace assay::engine
