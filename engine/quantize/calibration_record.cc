#include <fmt/format.h>

#include <string_view>

#include "base/file.h"
#include "base/hash.h"
#include "engine/quantize/quantize.h"

namespace assay::engine {

std::string fingerprint_of(const CalibrationText& text) {
  const std::string_view ids(reinterpret_cast<const char*>(text.ids.data()),
                             text.ids.size() * sizeof(int));
  return fmt::format("{:016x}", hash_u64(fmt::format("{}:", text.reply).append(ids)));
}

std::map<std::string, std::int64_t> tokens_by_language(const std::vector<CalibrationText>& texts) {
  std::map<std::string, std::int64_t> out;
  for (const CalibrationText& t : texts) out[t.lang] += static_cast<std::int64_t>(t.ids.size());
  return out;
}

Json to_json(const CalibrationRecord& r) {
  std::int64_t n_tokens = 0;
  for (const auto& [lang, n] : r.tokens_by_language) n_tokens += n;
  return {{"set", r.set},
          {"n_texts", r.n_texts},
          {"n_tokens", n_tokens},
          {"tokens_by_language", r.tokens_by_language},
          {"fingerprints", r.fingerprints}};
}

Result<std::optional<CalibrationRecord>> read_calibration_record(const fs::path& build) {
  const fs::path file = build / "quantisation.json";
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return std::nullopt;
  ASSAY_TRY(const Json json, read_json(file));
  try {
    const Json& calibration = json.at("calibration");
    CalibrationRecord out;
    calibration.at("set").get_to(out.set);
    calibration.at("n_texts").get_to(out.n_texts);
    calibration.at("tokens_by_language").get_to(out.tokens_by_language);
    if (calibration.contains("fingerprints")) calibration["fingerprints"].get_to(out.fingerprints);
    return out;
  } catch (const Json::exception& error) {
    return fail("{} is damaged: what it says of its calibration cannot be read: {}", file.string(),
                error.what());
  }
}

}  // namespace assay::engine
