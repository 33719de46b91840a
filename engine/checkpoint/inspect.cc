#include "engine/checkpoint/inspect.h"

#include <array>
#include <map>
#include <set>

namespace assay::engine {
namespace {

constexpr std::array<std::string_view, 11> kRoles = {
    "routed experts", "shared experts", "attention", "indexer",        "dense MLP", "router",
    "embedding",      "lm head",        "norms",     "not used (MTP)", "other"};

std::string_view role_of(std::string_view name, const ModelConfig& c) {
  const auto contains = [&](std::string_view part) {
    return name.find(part) != std::string_view::npos;
  };
  for (int l = 0; l < c.n_mtp_layers; ++l)
    if (name.starts_with(fmt::format("model.layers.{}.", c.n_layers + l))) return kRoles[9];
  if (contains("mlp.experts.")) return kRoles[0];
  if (contains("shared_experts")) return kRoles[1];
  if (contains(".indexer.")) return kRoles[3];
  if (contains("norm")) return kRoles[8];
  if (contains("self_attn")) return kRoles[2];
  if (contains("mlp.gate.")) return kRoles[5];
  if (contains(".mlp.")) return kRoles[4];
  if (contains("embed_tokens")) return kRoles[6];
  return name == "lm_head.weight" ? kRoles[7] : kRoles[10];
}

// A decoded token reads one row of the embedding and its own share of the experts; all else that is
// used is read whole. A tied embedding is read whole as the head, a stored copy of it not at all.
std::int64_t active_share(std::string_view role, std::int64_t total, const ModelConfig& c) {
  if (role == kRoles[0]) return total / c.n_experts * c.n_experts_per_token;
  if (role == kRoles[6]) return c.tied_embeddings ? total : total / c.vocab;
  if (role == kRoles[7] && c.tied_embeddings) return 0;
  return role == kRoles[9] || role == kRoles[10] ? 0 : total;
}

}  // namespace

Result<CheckpointSummary> inspect(const Checkpoint& checkpoint,
                                  const std::filesystem::path& cache_dir) {
  const ModelConfig& c = checkpoint.config();
  CheckpointSummary s;
  s.dir = checkpoint.dir().string();
  s.model_type = c.model_type;
  s.n_shards = static_cast<int>(checkpoint.shards().size());
  ASSAY_TRY(s.fingerprint, checkpoint.fingerprint(cache_dir));
  std::map<std::string_view, RoleSummary> roles;
  std::map<std::string_view, std::set<std::string_view>> dtypes;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    const std::string_view role = role_of(name, c);
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
    s.n_parameters += tensor->n_elements();
    s.n_bytes += n_bytes;
  }
  for (const std::string_view role : kRoles) {
    const auto it = roles.find(role);
    if (it == roles.end()) continue;
    it->second.dtypes = fmt::format("{}", fmt::join(dtypes[role], " + "));
    s.roles.push_back(it->second);
    // Of the whole role and not of each tensor: one expert's share need not be a whole number.
    s.n_active_parameters += active_share(role, it->second.n_parameters, c);
    s.n_active_bytes += active_share(role, it->second.n_bytes, c);
    if (role == kRoles[0]) s.n_routed_bytes = it->second.n_bytes;
  }
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
  return {{"dir", s.dir},
          {"model_type", s.model_type},
          {"fingerprint", s.fingerprint},
          {"n_shards", s.n_shards},
          {"roles", roles},
          {"n_parameters", s.n_parameters},
          {"n_active_parameters", s.n_active_parameters},
          {"n_bytes", s.n_bytes},
          {"n_active_bytes", s.n_active_bytes}};
}

}  // namespace assay::engine
