// assay inspect: what is in a checkpoint, without running it.
#include "engine/checkpoint/inspect.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <memory>

#include "engine/checkpoint/checkpoint.h"
#include "harness/cli/engine_flags.h"
#include "harness/cli/verb.h"

namespace assay::cli {
namespace {

using engine::Checkpoint;
using engine::CheckpointSummary;

struct Options {
  std::string model, match;
  bool tensors = false, json = false;
};

std::string grouped(std::int64_t n) {
  std::string digits = std::to_string(n);
  for (int i = static_cast<int>(digits.size()) - 3; i > 0; i -= 3)
    digits.insert(static_cast<std::size_t>(i), ",");
  return digits;
}

std::string size_text(std::int64_t n_bytes) {
  const auto n = static_cast<double>(n_bytes);
  return n >= 0x1p30 ? fmt::format("{:.2f} GiB", n / 0x1p30)
                     : fmt::format("{:.2f} MiB", n / 0x1p20);
}

void print_architecture(const engine::ModelConfig& c) {
  fmt::print("  layers      {}, numbered 0 to {} ({} dense, {} mixture of experts){}\n", c.n_layers,
             c.n_layers - 1, c.first_dense_layers, c.n_layers - c.first_dense_layers,
             c.n_mtp_layers > 0 ? fmt::format(", {} MTP (not used)", c.n_mtp_layers) : "");
  fmt::print("  hidden      {}, vocabulary {}, {} positions, rope theta {:g}\n", c.hidden, c.vocab,
             c.max_positions, c.rope_theta);
  fmt::print("  attention   {} heads, q_lora {}, kv_lora {}, head {} nope + {} rope, value {}\n",
             c.n_heads, c.q_lora, c.kv_lora, c.qk_nope, c.qk_rope, c.v_head);
  fmt::print("  experts     {} routed of width {}, {} per token, {} shared, scaling {:g}\n",
             c.n_experts, c.moe_intermediate, c.n_experts_per_token, c.n_shared_experts,
             c.routed_scaling);
  if (c.index_topk == 0) {
    fmt::print("  indexer     none: attention is dense\n");
    return;
  }
  std::string full;
  for (int l = 0; l < c.n_layers; ++l)
    if (c.indexer_full[l]) full += fmt::format("{}{}", full.empty() ? "" : ", ", l);
  fmt::print("  indexer     top {} by {} heads of {}; layers {} choose, the others share\n",
             c.index_topk, c.index_n_heads, c.index_head_dim, full);
}

// "5 × vq 1 bit (d 8, K 256), 11 × vq 2 bits (d 4, K 256)".
std::string histogram(const std::map<std::string, int>& n_by_format) {
  std::string out;
  for (const auto& [format, n] : n_by_format)
    out += fmt::format("{}{} × {}", out.empty() ? "" : ", ", n, format);
  return out;
}

// What config.json's quant_method means: "auto-round" reads like a model's or a maker's name.
std::string layout_text(const CheckpointSummary& s) {
  std::error_code ignored;
  const bool is_ours = fs::exists(fs::path(s.dir) / "quantisation.json", ignored);
  return fmt::format("{} (quant_method in config.json): how the files are laid out, not {}",
                     s.quantisation,
                     is_ours ? "who made them; quantisation.json is of assay quantize"
                             : "which model it is or who made it");
}

void print_quantisation(const CheckpointSummary& s) {
  std::map<std::pair<int, std::string>, std::map<std::string, int>> routed;
  std::map<std::string, std::map<std::string, int>> by_projection, spine;
  for (const engine::TierSummary& t : s.tiers) {
    if (t.routed) routed[{t.layer, t.projection}][t.format] += t.n_modules;
    (t.routed ? by_projection : spine)[t.projection][t.format] += t.n_modules;
  }
  fmt::print(
      "\n  quantised: routed experts {:.3f} bits of code + {:.3f} of padding + {:.3f} of scales + "
      "{:.3f} of codebooks = {:.3f} bits in all; all tensors {:.3f} bits a parameter\n",
      s.routed_code_bits, s.routed_padding_bits, s.routed_scale_bits, s.routed_codebook_bits,
      s.routed_total_bits, s.bits_per_parameter());
  fmt::print("  layout: {}\n", layout_text(s));
  if (!s.vq_suffixes.empty())
    fmt::print("  vq tensors are named {}\n", fmt::join(s.vq_suffixes, " and "));
  fmt::print("\n  {:<26} {}\n", "routed experts", "modules and their form");
  for (const auto& [projection, n] : by_projection)
    fmt::print("  all layers, {:<14} {}\n", projection, histogram(n));
  for (const auto& [place, n] : routed)
    fmt::print("  layer {:<3} {:<16} {}\n", place.first, place.second, histogram(n));
  fmt::print("\n  {:<26}\n", "all else");
  for (const auto& [projection, n] : spine) fmt::print("  {:<26} {}\n", projection, histogram(n));
  fmt::print("\n");
}

void print_tensors(const Checkpoint& checkpoint, const std::string& match) {
  for (const auto& [name, t] : checkpoint.tensors())
    if (name.find(match) != std::string::npos)
      fmt::print("{:<64} {:<8} {:<20} {:>14}\n", name, engine::name_of(t->dtype),
                 fmt::format("[{}]", fmt::join(t->shape, ", ")),
                 grouped(static_cast<std::int64_t>(t->bytes.size())));
}

Json tensors_json(const Checkpoint& checkpoint, const std::string& match) {
  Json out = Json::array();
  for (const auto& [name, t] : checkpoint.tensors())
    if (name.find(match) != std::string::npos)
      out.push_back({{"name", name},
                     {"dtype", engine::name_of(t->dtype)},
                     {"shape", t->shape},
                     {"n_bytes", t->bytes.size()}});
  return out;
}

std::int64_t file_bytes(const Checkpoint& checkpoint) {
  std::int64_t n = 0;
  std::error_code ignored;
  for (const engine::SafetensorsFile& shard : checkpoint.shards())
    n += static_cast<std::int64_t>(fs::file_size(shard.path(), ignored));
  return n;
}

Result<int> run(const Options& o) {
  ASSAY_TRY(const Checkpoint checkpoint, Checkpoint::open(o.model));
  if (o.tensors && !o.json) {
    print_tensors(checkpoint, o.match);
    return kPass;
  }
  warn_of_misspelt_keys(o.model, engine::misspelt_in_files(o.model, checkpoint.config()));
  ASSAY_TRY(const CheckpointSummary summary, engine::inspect(checkpoint, cache_dir()));
  if (o.json) {
    Json out = to_json(summary);
    if (o.tensors) out["tensors"] = tensors_json(checkpoint, o.match);
    std::puts(out.dump(2).c_str());
    return kPass;
  }
  fmt::print("{}  ({}, {} shard{})\n\n", summary.dir, summary.model_type, summary.n_shards,
             summary.n_shards == 1 ? "" : "s");
  if (!summary.synthetic.empty())
    fmt::print("  not a model: {} (assay synthesize)\n\n", summary.synthetic);
  print_architecture(checkpoint.config());
  fmt::print("\n  {:<18} {:>8}  {:<14} {:>18} {:>12}\n", "role", "tensors", "dtype", "parameters",
             "size");
  for (const auto& r : summary.roles)
    fmt::print("  {:<18} {:>8}  {:<14} {:>18} {:>12}\n", r.role, r.n_tensors, r.dtypes,
               grouped(r.n_parameters), size_text(r.n_bytes));
  fmt::print("  {:<18} {:>8}  {:<14} {:>18} {:>12}\n", "total", checkpoint.tensors().size(), "",
             grouped(summary.n_parameters), size_text(summary.n_bytes));
  fmt::print("  {:<18} {:>8}  {:<14} {:>18} {:>12}\n", "per decoded token", "", "",
             grouped(summary.n_active_parameters), size_text(summary.n_active_bytes));
  fmt::print("  sizes are of tensors; their files, with headers, are {}\n\n",
             size_text(file_bytes(checkpoint)));
  if (!summary.quantisation.empty())
    print_quantisation(summary);
  else
    fmt::print("  not quantised: routed experts {:.3f} bits a weight; all tensors {:.3f}\n",
               summary.routed_total_bits, summary.bits_per_parameter());
  fmt::print("  fingerprint {}\n", summary.fingerprint);
  return kPass;
}

}  // namespace

const Verb inspect_verb{
    .name = "inspect",
    .summary = "What is in a checkpoint: architecture, tensors, parameters, size, fingerprint",
    .examples =
        "  assay inspect golden/micro-glm/model\n"
        "  assay inspect M --tensors --match layers.3.self_attn\n"
        "      name, dtype, shape and bytes of the tensors whose name holds the text\n"
        "  assay inspect M --json\n",
    .setup = [](CLI::App& app) -> Action {
      auto o = std::make_shared<Options>();
      app.add_option("model", o->model, "Checkpoint folder")->required();
      app.add_flag("--tensors", o->tensors, "List every tensor");
      app.add_option("--match", o->match, "Only tensors whose name holds this text");
      app.add_flag("--json", o->json, "Print JSON");
      return [o] { return run(*o); };
    }};

}  // namespace assay::cli
