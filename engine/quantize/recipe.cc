#include "engine/quantize/recipe.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <variant>

#include "engine/quantize/beam_sweep.h"

namespace assay::engine {

int Tier::index_bits() const { return std::bit_width(static_cast<unsigned>(n_codes - 1)); }

std::vector<Tier> vq_tiers() {
  return {{"1", 8, 256}, {"1.5", 8, 4096}, {"2", 4, 256}, {"3", 4, 4096}};
}

std::vector<Tier> scalar_tiers() { return {{"s1", 1, 2}, {"s2", 1, 4}, {"s3", 1, 8}}; }

Result<std::vector<Tier>> tiers_named(const std::vector<std::string>& names) {
  std::vector<Tier> known = vq_tiers(), out;
  for (Tier& t : scalar_tiers()) known.push_back(std::move(t));
  std::string list;
  for (const Tier& t : known) list += fmt::format("{}{}", list.empty() ? "" : ", ", t.name);
  for (const std::string& name : names) {
    if (std::count(names.begin(), names.end(), name) > 1)
      return fail("tier '{}' is named twice", name);
    const std::size_t before = out.size();
    for (const Tier& t : known)
      if (t.name == name) out.push_back(t);
    if (out.size() == before) return fail("unknown tier '{}', expected some of: {}", name, list);
  }
  return out;
}

Result<Recipe> named_recipe(std::string_view name) {
  Recipe r;
  r.name = name;
  r.tiers = vq_tiers();
  if (name == "ja-1.71") return r;
  if (name == "arith-1.86") {
    r.bits = 1.86;
    r.compensate_down = false;
    return r;
  }
  return fail("unknown recipe '{}', expected ja-1.71 or arith-1.86", name);
}

namespace {

struct Setting {
  std::string_view name;
  std::variant<int Recipe::*, double Recipe::*> member;
  double least, most;
};

constexpr double kAny = 1 << 30;
constexpr Setting kSettings[] = {
    {"group", &Recipe::group, 1, kAny},
    {"spine_group", &Recipe::spine_group, 1, kAny},
    {"attention_bits", &Recipe::attention_bits, 4, 16},
    {"kv_a_bits", &Recipe::kv_a_bits, 4, 16},
    {"dense_mlp_bits", &Recipe::dense_mlp_bits, 4, 16},
    {"shared_expert_bits", &Recipe::shared_expert_bits, 4, 16},
    {"lm_head_bits", &Recipe::lm_head_bits, 4, 16},
    {"temper", &Recipe::temper, 0, 1},
    {"focus", &Recipe::focus, 0, 1},
    {"damping", &Recipe::damping, 1e-6, 10},
    {"shrinkage", &Recipe::shrinkage, 0, kAny},
    {"beam", &Recipe::beam, 1, 64},
    {"n_refits", &Recipe::n_refits, 0, 100},
    {"n_descents", &Recipe::n_descents, 0, 100},
    {"n_rounds", &Recipe::n_rounds, 1, 100},
    {"points_per_code", &Recipe::points_per_code, 1, kAny},
    {"codebook_power", &Recipe::codebook_power, 0, 1},
    {"kept_gate", &Recipe::kept_gate, 0.001, 1000},
    {"kept_up", &Recipe::kept_up, 0.001, 1000},
    {"kept_down", &Recipe::kept_down, 0.001, 1000},
    {"kept_sample", &Recipe::kept_sample, 0, kAny},
    {"n_down_tokens", &Recipe::n_down_tokens, 1, kAny},
};

}  // namespace

Result<void> Recipe::set(std::string_view assignment) {
  const std::size_t equals = assignment.find('=');
  const std::string_view key = assignment.substr(0, equals);
  std::string known;
  for (const Setting& s : kSettings) {
    known += fmt::format("{}{}", known.empty() ? "" : ", ", s.name);
    if (s.name != key || equals == std::string_view::npos) continue;
    const std::string_view text = assignment.substr(equals + 1);
    double value = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool is_int = std::holds_alternative<int Recipe::*>(s.member);
    const bool is_bits = key.ends_with("_bits");
    if (code != std::errc() || end != text.data() + text.size() || value < s.least ||
        value > s.most || (is_int && value != std::floor(value)) ||
        (is_bits && value != 4 && value != 8 && value != 16))
      return fail("setting {}: got '{}', expected {}", key, text,
                  is_bits ? std::string("4, 8 or 16")
                          : fmt::format("{} from {:g} to {:g}", is_int ? "an integer" : "a number",
                                        s.least, s.most));
    if (is_int)
      this->*std::get<int Recipe::*>(s.member) = static_cast<int>(value);
    else
      this->*std::get<double Recipe::*>(s.member) = value;
    return {};
  }
  if (equals == std::string_view::npos)
    return fail("setting '{}' has no value, expected NAME=VALUE, as in focus=0.5. The names: {}",
                key, known);
  return fail("unknown setting '{}', expected NAME=VALUE with one of: {}", key, known);
}

Result<void> Recipe::check() const {
  if (tiers.empty()) return fail("the recipe has no tier to choose from");
  for (const Tier& t : tiers)
    if (group % t.dim != 0)
      return fail(
          "setting group: got {}, expected a multiple of d = {} (tier {}): a scale belongs to "
          "whole "
          "sub-vectors",
          group, t.dim, t.name);
  if (kept_sample > 0 && (kept_gate != 1 || kept_up != 1 || kept_down != 1))
    return fail(
        "setting kept_sample: got {} beside kept_gate, kept_up or kept_down: what a projection "
        "keeps "
        "is either measured or said",
        kept_sample);
  if (!is_beam_width(beam))
    return fail("setting beam: got {}, expected 1, 2, 4, 8, 16, 32 or 64", beam);
  if (beam > 1 && !compensate_gate_up && !compensate_down)
    return fail(
        "setting beam: got {}, expected 1 without error feedback: there a sub-vector has no say in "
        "the others, and the nearest codeword is the best",
        beam);
  const auto [least, most] = std::minmax_element(
      tiers.begin(), tiers.end(), [](const Tier& a, const Tier& b) { return a.bits() < b.bits(); });
  if (bits < least->bits() || bits > most->bits())
    return fail(
        "{:g} code bits a weight are asked for, but the tiers to choose from have {:g} (tier {}) "
        "to "
        "{:g} (tier {})",
        bits, least->bits(), least->name, most->bits(), most->name);
  return {};
}

Json Recipe::to_json() const {
  Json list = Json::array();
  for (const Tier& t : tiers)
    list.push_back({{"name", t.name}, {"d", t.dim}, {"K", t.n_codes}, {"bits", t.bits()}});
  Json json = {{"name", name},
               {"bits", bits},
               {"tiers", list},
               {"group", group},
               {"spine_group", spine_group},
               {"compensate", {{"gate_up", compensate_gate_up}, {"down", compensate_down}}},
               {"spine_bits",
                {{"attention", attention_bits},
                 {"kv_a", kv_a_bits},
                 {"dense_mlp", dense_mlp_bits},
                 {"shared_experts", shared_expert_bits},
                 {"lm_head", lm_head_bits}}},
               {"temper", temper},
               {"focus", focus},
               {"damping", damping},
               {"shrinkage", shrinkage},
               {"n_refits", n_refits},
               {"n_descents", n_descents},
               {"n_rounds", n_rounds},
               {"points_per_code", points_per_code},
               {"n_down_tokens", n_down_tokens},
               {"seed", seed}};
  // Younger than builds that are still to be told apart, or gone on with: only where they are set.
  if (beam != 1) json["beam"] = beam;
  if (codebook_power != 1) json["codebook_power"] = codebook_power;
  if (kept_gate != 1 || kept_up != 1 || kept_down != 1)
    json["kept"] = {{"gate", kept_gate}, {"up", kept_up}, {"down", kept_down}};
  if (kept_sample != 0) json["kept_sample"] = kept_sample;
  return json;
}

}  // namespace assay::engine
