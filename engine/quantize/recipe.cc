#include "engine/quantize/recipe.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <iterator>
#include <span>
#include <variant>

#include "base/shortened.h"
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
  std::string_view meaning;
  std::span<const int> choices = {};  // if not everything in between
  int multiple_of = 1;
};

constexpr double kAny = 1 << 30;
constexpr int kBits[] = {4, 8, 16}, kBeams[] = {1, 2, 4, 8, 16, 32, 64}, kSwitch[] = {0, 1};
// What --set takes, what its errors say and what --help lists.
constexpr Setting kSettings[] = {
    {"group", &Recipe::group, 1, kAny, "columns of an expert's matrix that share a scale"},
    // Codes of 4 bits lie 8 to a word, whose readers look up one scale for it.
    {"spine_group", &Recipe::spine_group, 8, kAny, "the same of all other matrices", {}, 8},
    {"attention_bits", &Recipe::attention_bits, 4, 16, "of attention's matrices", kBits},
    {"kv_a_bits", &Recipe::kv_a_bits, 4, 16, "of the one that makes what the cache keeps", kBits},
    {"dense_mlp_bits", &Recipe::dense_mlp_bits, 4, 16, "of layers without experts", kBits},
    {"shared_expert_bits", &Recipe::shared_expert_bits, 4, 16, "of experts that all share", kBits},
    {"lm_head_bits", &Recipe::lm_head_bits, 4, 16, "of the head", kBits},
    {"temper", &Recipe::temper, 0, 1,
     "tiers by errors as they are (0) to relative to what a module adds (1)"},
    {"focus", &Recipe::focus, 0, 1,
     "tokens weigh the same (0) to only where the model is unsure (1)"},
    {"damping", &Recipe::damping, 1e-6, 10, "of a Hessian, in means of its diagonal"},
    {"shrinkage", &Recipe::shrinkage, 0, kAny,
     "tokens with which an expert's Hessian counts half, its layer's half"},
    {"activation_order", &Recipe::activation_order, 0, 1,
     "1: an expert's sub-vectors are swept by what goes through them, most first", kSwitch},
    {"spine_activation_order", &Recipe::spine_activation_order, 0, 1,
     "1: likewise the columns of all other matrices", kSwitch},
    {"beam", &Recipe::beam, 1, 64, "codings of a row that a sweep goes on with", kBeams},
    {"n_refits", &Recipe::n_refits, 0, 100, "sweeps more, with scales fitted again"},
    {"n_descents", &Recipe::n_descents, 0, 100, "passes of coordinate descent after them"},
    {"n_rounds", &Recipe::n_rounds, 1, 100, "of encoding it all, codebooks fitted in between"},
    {"points_per_code", &Recipe::points_per_code, 1, kAny,
     "sub-vectors that a codebook is fitted to, per codeword"},
    {"codebook_power", &Recipe::codebook_power, 0, 1,
     "there they count the same (0) to as much as they matter (1)"},
    {"kept_gate", &Recipe::kept_gate, 0.001, 1000,
     "what gate_proj keeps of predicted errors, relative to the others"},
    {"kept_up", &Recipe::kept_up, 0.001, 1000, "likewise up_proj"},
    {"kept_down", &Recipe::kept_down, 0.001, 1000, "likewise down_proj"},
    {"kept_sample", &Recipe::kept_sample, 0, kAny,
     "experts of a layer to measure that on instead; 0: none"},
    {"n_down_tokens", &Recipe::n_down_tokens, 1, kAny, "that a rare expert's down_proj borrows"},
};

// "0.5", "1e-06", and whole numbers with their thousands apart: "1,073,741,824".
std::string number_text(double value) {
  if (value != std::floor(value) || value < 1000) return fmt::format("{:g}", value);
  std::string digits = fmt::format("{:.0f}", value);
  for (std::size_t i = digits.size() - 3; i > 0 && i < digits.size(); i -= 3) digits.insert(i, ",");
  return digits;
}

bool is_whole(const Setting& s) { return std::holds_alternative<int Recipe::*>(s.member); }

double value_of(const Recipe& r, const Setting& s) {
  return is_whole(s) ? r.*std::get<int Recipe::*>(s.member)
                     : r.*std::get<double Recipe::*>(s.member);
}

std::string range_text(const Setting& s) {
  std::string list;
  for (const int choice : s.choices) {
    const bool is_last = choice == s.choices.back();
    list += fmt::format("{}{}", list.empty() ? "" : is_last ? " or " : ", ", choice);
  }
  if (!list.empty()) return list;
  return fmt::format("{} from {} to {}",
                     s.multiple_of > 1 ? fmt::format("a multiple of {}", s.multiple_of)
                     : is_whole(s)     ? "an integer"
                                       : "a number",
                     number_text(s.least), number_text(s.most));
}

bool is_within(const Setting& s, double value) {
  if (!s.choices.empty())
    return std::find(s.choices.begin(), s.choices.end(), value) != s.choices.end();
  if (is_whole(s) && (value != std::floor(value) || std::fmod(value, s.multiple_of) != 0))
    return false;
  return value >= s.least && value <= s.most;
}

tl::unexpected<Error> unknown_setting(std::string_view name) {
  std::vector<std::string> known;
  for (const Setting& s : kSettings) known.emplace_back(s.name);
  return fail("unknown setting '{}', expected NAME=VALUE with one of: {}", name, shortened(known));
}

}  // namespace

std::vector<SettingText> recipe_settings() {
  std::vector<SettingText> out;
  const Recipe standard;
  for (const Setting& s : kSettings)
    out.push_back({std::string(s.name), range_text(s), number_text(value_of(standard, s)),
                   std::string(s.meaning)});
  return out;
}

Result<void> Recipe::set(std::string_view assignment) {
  const std::size_t equals = assignment.find('=');
  const std::string_view key = assignment.substr(0, equals);
  const auto* s = std::find_if(std::begin(kSettings), std::end(kSettings),
                               [&](const Setting& of) { return of.name == key; });
  if (s == std::end(kSettings)) return unknown_setting(key);
  if (equals == std::string_view::npos)
    return fail("setting '{}' has no value, expected {}={:g}: {}", key, key, value_of(Recipe(), *s),
                range_text(*s));
  const std::string_view text = assignment.substr(equals + 1);
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size() || !is_within(*s, value))
    return fail("setting {}: got '{}', expected {}", key, text, range_text(*s));
  if (is_whole(*s))
    this->*std::get<int Recipe::*>(s->member) = static_cast<int>(value);
  else
    this->*std::get<double Recipe::*>(s->member) = value;
  return {};
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
  if (activation_order != 0 && !compensate_gate_up && !compensate_down)
    return fail(
        "setting activation_order: got {}, expected 0 without error feedback: there a sub-vector "
        "has no say in the others, in whichever order they are",
        activation_order);
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
  if (activation_order != 0) json["activation_order"] = activation_order;
  if (spine_activation_order != 0) json["spine_activation_order"] = spine_activation_order;
  if (beam != 1) json["beam"] = beam;
  if (codebook_power != 1) json["codebook_power"] = codebook_power;
  if (kept_gate != 1 || kept_up != 1 || kept_down != 1)
    json["kept"] = {{"gate", kept_gate}, {"up", kept_up}, {"down", kept_down}};
  if (kept_sample != 0) json["kept_sample"] = kept_sample;
  return json;
}

}  // namespace assay::engine
