#include "engine/checkpoint/inspect.h"

#include <array>
#include <cstdlib>
#include <map>
#include <set>
#include <tuple>

#include "engine/checkpoint/weights.h"

namespace assay::engine {
namespace {

constexpr std::array<std::string_view, 12> kRoles = {
    "routed experts", "shared experts", "attention", "indexer",        "dense MLP", "router",
    "embedding",      "lm head",        "norms",     "not used (MTP)", "other",     "codebooks"};

std::string_view role_of(std::string_view name, const ModelConfig& c) {
  const auto contains = [&](std::string_view part) {
    return name.find(part) != std::string_view::npos;
  };
  for (int l = 0; l < c.n_mtp_layers; ++l)
    if (name.starts_with(fmt::format("model.layers.{}.", c.n_layers + l))) return kRoles[9];
  if (contains("mlp.experts.") || contains(".switch_mlp.")) return kRoles[0];
  if (contains("shared_experts")) return kRoles[1];
  if (contains(".indexer.")) return kRoles[3];
  if (contains("norm")) return kRoles[8];
  if (contains("self_attn")) return kRoles[2];
  if (contains("mlp.gate.")) return kRoles[5];
  if (contains(".mlp.")) return kRoles[4];
  if (contains("embed_tokens")) return kRoles[6];
  return name.starts_with("lm_head") ? kRoles[7] : kRoles[10];
}

// A decoded token reads one row of the embedding and its own share of the experts; all else that is
// used is read whole. A tied embedding is read whole as the head, a stored copy of it not at all.
std::int64_t active_share(std::string_view role, std::int64_t total, const ModelConfig& c) {
  if (role == kRoles[0]) return total / c.n_experts * c.n_experts_per_token;
  if (role == kRoles[6]) return c.tied_embeddings ? total : total / c.vocab;
  if (role == kRoles[7] && c.tied_embeddings) return 0;
  return role == kRoles[9] || role == kRoles[10] ? 0 : total;
}

// "model.layers.3.mlp.experts.0.gate_proj.weight" or "….switch_mlp.gate_proj[0]": 3, gate_proj.
std::pair<int, std::string> place_of(std::string name) {
  if (name.ends_with(".weight")) name.resize(name.size() - 7);
  if (name.ends_with("]")) name.resize(name.rfind('['));
  constexpr std::string_view kLayers = "model.layers.";
  const int layer = name.starts_with(kLayers) ? std::atoi(name.c_str() + kLayers.size()) : -1;
  return {layer, name.substr(name.rfind('.') + 1)};
}

double n_bits(const TensorView& t) { return 8.0 * static_cast<double>(t.bytes.size()); }

// As the tiers of assay quantize are called: "1.5 bits".
std::string code_bits_text(const kernels::VqMatrix& vq) {
  const double bits = static_cast<double>(vq.index_bits) * vq.n_books / vq.dim;
  return fmt::format("{:g} bit{}", bits, bits == 1 ? "" : "s");
}

// AQLM keeps a module's codebooks and scales with it, in a dtype of its choice.
void count_aqlm(const Checkpoint& checkpoint, const std::string& module,
                const kernels::VqMatrix& vq, TierSummary& t) {
  t.format = fmt::format("aqlm {} (d {}, K {}, {})", code_bits_text(vq), vq.dim, vq.n_codes,
                         vq.n_books == 1 ? "1 book" : fmt::format("{} books", vq.n_books));
  t.n_padding_bits = n_bits(*checkpoint.find(module + ".codes")) - t.n_code_bits;
  t.n_scale_bits = n_bits(*checkpoint.find(module + ".scales"));
  t.n_codebook_bits = n_bits(*checkpoint.find(module + ".codebooks"));
}

TierSummary tier_of(const Matrix& m, const Checkpoint& checkpoint) {
  TierSummary t;
  t.n_modules = 1;
  t.n_weights = std::int64_t{m.n_rows} * m.n_cols;
  const auto n = static_cast<double>(t.n_weights);
  if (const auto* vq = std::get_if<kernels::VqMatrix>(&m.codes)) {
    t.format = fmt::format("vq {} (d {}, K {})", code_bits_text(*vq), vq->dim, vq->n_codes);
    t.n_code_bits = n * vq->index_bits * vq->n_books / vq->dim;
    t.n_padding_bits = 32.0 * m.n_rows * vq->row_words() - t.n_code_bits;
    t.n_scale_bits = 16.0 * m.n_rows * vq->n_groups();
    if (checkpoint.config().quantisation.of(m.name).kind == ModuleFormat::Kind::kAqlm)
      count_aqlm(checkpoint, m.name, *vq, t);
  } else if (const auto* scaled = std::get_if<kernels::ScaledMatrix>(&m.codes)) {
    using Kind = kernels::ScaledMatrix::Kind;
    const int bits = scaled->kind == Kind::kGptq4 ? 4 : 8;
    if (scaled->kind == Kind::kFp8E4m3) {
      t.format = "fp8";
      const int n_row_groups = (m.n_rows + scaled->group - 1) / scaled->group;
      t.n_scale_bits = 32.0 * n_row_groups * scaled->n_groups();
    } else {
      t.format = fmt::format("gptq {} bit", bits);
      t.n_scale_bits = (16.0 + bits) * m.n_rows * scaled->n_groups();
    }
    t.n_code_bits = n * bits;
  } else {
    t.format = std::string(name_of(m.dtype));
    t.n_code_bits = 8 * n * static_cast<double>(bytes_of(m.dtype));
  }
  return t;
}

// Sizes of the modules, which their tensors alone do not tell: codes are padded.
void add_quantisation(const Checkpoint& checkpoint, const ModelWeights& weights,
                      std::map<std::string_view, RoleSummary>& roles, CheckpointSummary& s) {
  const ModelConfig& c = checkpoint.config();
  for (auto& [role, summary] : roles)
    if (role != kRoles[9] && role != kRoles[10]) summary.n_parameters = 0;
  std::map<std::tuple<int, std::string, bool, std::string>, TierSummary> tiers;
  double n_routed = 0, code_bits = 0, padding_bits = 0, scale_bits = 0, codebook_bits = 0;
  std::set<const float*> global_books;
  for (const Matrix* m : all_matrices(weights)) {
    const std::string_view role = role_of(m->name, c);
    TierSummary t = tier_of(*m, checkpoint);
    roles.at(role).n_parameters += t.n_weights;
    if (m->n_rows == 1) continue;  // norms and biases
    std::tie(t.layer, t.projection) = place_of(m->name);
    t.routed = role == kRoles[0];
    if (t.routed) {
      n_routed += static_cast<double>(t.n_weights);
      code_bits += t.n_code_bits;
      padding_bits += t.n_padding_bits;
      scale_bits += t.n_scale_bits;
      codebook_bits += t.n_codebook_bits;
      const auto* vq = std::get_if<kernels::VqMatrix>(&m->codes);
      if (vq != nullptr && t.n_codebook_bits == 0 && global_books.insert(vq->codebook).second)
        codebook_bits += 16.0 * vq->n_codes * vq->dim;
    }
    TierSummary& sum = tiers[{t.layer, t.projection, t.routed, t.format}];
    t.n_modules += sum.n_modules;
    t.n_weights += sum.n_weights;
    t.n_code_bits += sum.n_code_bits;
    t.n_padding_bits += sum.n_padding_bits;
    t.n_scale_bits += sum.n_scale_bits;
    t.n_codebook_bits += sum.n_codebook_bits;
    sum = t;
  }
  for (auto& [key, tier] : tiers) s.tiers.push_back(std::move(tier));
  s.quantisation = c.quantisation.method();
  s.routed_code_bits = code_bits / n_routed;
  s.routed_padding_bits = padding_bits / n_routed;
  s.routed_scale_bits = scale_bits / n_routed;
  s.routed_codebook_bits = codebook_bits / n_routed;
  s.routed_total_bits = (code_bits + padding_bits + scale_bits + codebook_bits) / n_routed;
  std::set<std::string> suffixes;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    const std::string module = name.substr(0, name.rfind('.'));
    if (c.quantisation.of(module).kind == ModuleFormat::Kind::kVq &&
        c.quantisation.modules().contains(module))
      suffixes.insert(name.substr(module.size()));
  }
  s.vq_suffixes.assign(suffixes.begin(), suffixes.end());
}

}  // namespace

Result<CheckpointSummary> inspect(const Checkpoint& checkpoint,
                                  const std::filesystem::path& cache_dir) {
  const ModelConfig& c = checkpoint.config();
  CheckpointSummary s;
  s.dir = checkpoint.dir().string();
  s.model_type = c.model_type;
  s.synthetic = c.synthetic;
  s.misspelt = misspelt_in_files(checkpoint.dir(), c);
  s.n_shards = static_cast<int>(checkpoint.shards().size());
  ASSAY_TRY(const ModelWeights weights, bind_weights(checkpoint, false));
  ASSAY_TRY(s.fingerprint, checkpoint.fingerprint(cache_dir));
  std::map<std::string_view, RoleSummary> roles;
  std::map<std::string_view, std::set<std::string_view>> dtypes;
  std::set<const TensorView*> codebooks;
  for (const SafetensorsFile& shard : checkpoint.shards())
    if (shard.path().filename() == c.quantisation.codebooks_file())
      for (const TensorView& t : shard.tensors()) codebooks.insert(&t);
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    const std::string_view role = codebooks.contains(tensor) ? kRoles[11] : role_of(name, c);
    RoleSummary& r = roles
                         .try_emplace(role, RoleSummary{.role = std::string(role),
                                                        .dtypes = {},
                                                        .n_tensors = 0,
                                                        .n_parameters = 0,
                                                        .n_bytes = 0})
                         .first->second;
    const auto n_bytes = static_cast<std::int64_t>(tensor->bytes.size());
    ++r.n_tensors;
    r.n_parameters += tensor->n_elements();
    r.n_bytes += n_bytes;
    dtypes[role].insert(name_of(tensor->dtype));
    s.n_bytes += n_bytes;
  }
  if (!c.quantisation.method().empty()) add_quantisation(checkpoint, weights, roles, s);
  for (const std::string_view role : kRoles) {
    const auto it = roles.find(role);
    if (it == roles.end()) continue;
    it->second.dtypes = fmt::format("{}", fmt::join(dtypes[role], " + "));
    s.roles.push_back(it->second);
    s.n_parameters += it->second.n_parameters;
    // Of the whole role and not of each tensor: one expert's share need not be a whole number.
    s.n_active_parameters += active_share(role, it->second.n_parameters, c);
    s.n_active_bytes += active_share(role, it->second.n_bytes, c);
    if (role != kRoles[0]) continue;
    s.n_routed_bytes = it->second.n_bytes;
    if (s.quantisation.empty())
      s.routed_code_bits = s.routed_total_bits = 8.0 * static_cast<double>(it->second.n_bytes) /
                                                 static_cast<double>(it->second.n_parameters);
  }
  ASSAY_TRY_VOID(check_as_written(checkpoint, s.fingerprint));
  return s;
}

Json to_json(const CheckpointSummary& s) {
  Json roles = Json::array();
  for (const RoleSummary& r : s.roles)
    roles.push_back({{"role", r.role},
                     {"dtypes", r.dtypes},
                     {"n_tensors", r.n_tensors},
                     {"n_parameters", r.n_parameters},
                     {"n_bytes", r.n_bytes}});
  Json out = {
      {"dir", s.dir},
      {"model_type", s.model_type},
      {"fingerprint", s.fingerprint},
      {"n_shards", s.n_shards},
      {"roles", roles},
      {"n_parameters", s.n_parameters},
      {"n_active_parameters", s.n_active_parameters},
      {"n_bytes", s.n_bytes},
      {"n_active_bytes", s.n_active_bytes},
      {"bits",
       {{"routed_experts_total", s.routed_total_bits}, {"all_tensors", s.bits_per_parameter()}}}};
  if (!s.synthetic.empty()) out["synthetic"] = s.synthetic;
  if (!s.misspelt.empty()) out["misspelt"] = s.misspelt;
  if (s.quantisation.empty()) return out;
  Json tiers = Json::array();
  for (const TierSummary& t : s.tiers)
    tiers.push_back({{"layer", t.layer},
                     {"projection", t.projection},
                     {"routed", t.routed},
                     {"format", t.format},
                     {"n_modules", t.n_modules},
                     {"n_weights", t.n_weights},
                     {"code_bits", t.n_code_bits / static_cast<double>(t.n_weights)},
                     {"padding_bits", t.n_padding_bits / static_cast<double>(t.n_weights)},
                     {"total_bits", t.total_bits()}});
  out["quantisation"] = {{"method", s.quantisation},
                         {"routed_code_bits", s.routed_code_bits},
                         {"routed_padding_bits", s.routed_padding_bits},
                         {"routed_scale_bits", s.routed_scale_bits},
                         {"routed_codebook_bits", s.routed_codebook_bits},
                         {"routed_total_bits", s.routed_total_bits},
                         {"bits_per_parameter", s.bits_per_parameter()},
                         {"vq_suffixes", s.vq_suffixes},
                         {"tiers", tiers}};
  return out;
}

}  // namespace assay::engine
