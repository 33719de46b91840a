#include "engine/quantize/identity.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/shortened.h"
#include "engine/checkpoint/unfinished.h"

namespace assay::engine {
namespace {

fs::path finished_identity(const fs::path& out) { return out / "quantisation-identity.json"; }

// Tiers by their names, as --tiers has them.
std::string value_text(const Json& value) {
  if (value.is_null()) return "not set";
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return value.dump();
  std::string out;
  for (const Json& v : value)
    out += (out.empty() ? "" : ", ") + value_text(v.is_object() ? v.value("name", Json()) : v);
  return out;
}

void add(std::vector<std::string>& out, const std::string& name, const std::string& there,
         const std::string& asked) {
  out.push_back(fmt::format("{} {} there, {} asked for", name, there, asked));
}

// Settings that only one of them has are younger than the other, or left at what they begin with.
void compare(const std::string& name, const Json& there, const Json& asked,
             std::vector<std::string>& out) {
  if (there == asked) return;
  if (!there.is_object() && !asked.is_object())
    return add(out, name, value_text(there), value_text(asked));
  Json keys = there.is_object() ? there : Json::object();
  if (asked.is_object()) keys.update(asked);
  for (const auto& [key, ignored] : keys.items())
    compare(name.empty() ? key : name + "." + key,
            there.is_object() ? there.value(key, Json()) : Json(),
            asked.is_object() ? asked.value(key, Json()) : Json(), out);
}

std::string calibration_text(const Json& identity) {
  return fmt::format("{} (texts {:.8})", identity.value("calibration_set", "a set"),
                     identity.value("calibration", ""));
}

}  // namespace

Json identity_of(const QuantizeInput& in, const std::string& model_fingerprint) {
  std::string ids;
  for (const CalibrationText& t : in.texts) {
    ids += fmt::format("{}:", t.reply);
    for (const int id : t.ids) ids += fmt::format("{},", id);
  }
  return {{"model", model_fingerprint},
          {"calibration", hash_hex(ids)},
          {"calibration_set", fmt::format("{} of {} texts", in.calibration, in.texts.size())},
          {"recipe", in.recipe.to_json()}};
}

Result<Json> read_identity(const fs::path& file) {
  ASSAY_TRY(Json json, read_json(file));
  const auto is = [&](const char* key, Json::value_t type) {
    return json.contains(key) && json[key].type() == type;
  };
  if (!json.is_object() || !is("model", Json::value_t::string) ||
      !is("calibration", Json::value_t::string) || !is("recipe", Json::value_t::object) ||
      (json.contains("calibration_set") && !is("calibration_set", Json::value_t::string)))
    return fail("{} is damaged: it has no model, calibration and recipe", file.string());
  return json;
}

std::string differences(const Json& there, const Json& asked) {
  std::vector<std::string> out;
  if (there.value("model", "") != asked.value("model", ""))
    add(out, "model (its fingerprint)", there.value("model", "?"), asked.value("model", "?"));
  if (there.value("calibration", "") != asked.value("calibration", ""))
    add(out, "calibration", calibration_text(there), calibration_text(asked));
  compare("", there.value("recipe", Json::object()), asked.value("recipe", Json::object()), out);
  return shortened(out, "; ");
}

Result<bool> is_finished(const fs::path& out, const Json& identity) {
  std::error_code ignored;
  const fs::path file = finished_identity(out);
  const bool is_unfinished = fs::exists(quantise_state(out) / kIdentityFile, ignored) &&
                             !fs::exists(out / "config.json", ignored);
  if (is_unfinished || !fs::exists(file, ignored)) return false;
  const auto read = read_identity(file);
  if (!read)
    return fail(
        "{}. It tells what the finished build {} was made of, so it is not known whether that is "
        "what is asked for. assay inspect {} shows what it is; choose another folder for a new one",
        read.error().message, out.string(), out.string());
  const Json& there = *read;
  if (const std::string differs = differences(there, identity); !differs.empty())
    return fail(
        "{} is finished, and of other settings: {}. Nothing is overwritten: choose another folder, "
        "or ask for the settings that it has",
        out.string(), differs);
  return true;
}

Result<void> save_finished_identity(const fs::path& out, const Json& identity) {
  return write_file_atomic(finished_identity(out), identity.dump(2) + "\n");
}

}  // namespace assay::engine
