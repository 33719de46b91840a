#include "engine/mixture.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/hash.h"
#include "engine/model.h"

namespace assay::engine {
namespace {

using Part = WeightSite::Part;

struct Place {
  WeightSite site;
  Matrix* matrix;
};

// Every matrix that a model of this configuration has, in the order of a forward pass.
std::vector<Place> places_of(ModelWeights& weights) {
  std::vector<Place> out;
  WeightSite at;
  const auto add = [&](Part part, const char* projection, Matrix& matrix) {
    if (matrix.empty()) return;
    at.part = part;
    at.projection = projection;
    out.push_back({at, &matrix});
  };
  const auto add_mlp = [&](Part part, MlpWeights& mlp) {
    add(part, "gate_proj", mlp.gate);
    add(part, "up_proj", mlp.up);
    add(part, "down_proj", mlp.down);
  };
  add(Part::kEmbedding, "", weights.embed);
  for (std::size_t l = 0; l < weights.layers.size(); ++l) {
    LayerWeights& w = weights.layers[l];
    at.layer = static_cast<int>(l);
    add(Part::kNorms, "input_layernorm", w.input_norm);
    add(Part::kAttention, "q_a_proj", w.q_a);
    add(Part::kNorms, "q_a_layernorm", w.q_a_norm);
    add(Part::kAttention, "q_b_proj", w.q_b);
    add(Part::kAttention, "kv_a_proj_with_mqa", w.kv_a);
    add(Part::kNorms, "kv_a_layernorm", w.kv_a_norm);
    add(Part::kAttention, "kv_b_proj", w.kv_b);
    add(Part::kIndexer, "wq_b", w.indexer.wq_b);
    add(Part::kIndexer, "wk", w.indexer.wk);
    add(Part::kIndexer, "weights_proj", w.indexer.weights_proj);
    add(Part::kIndexer, "k_norm.weight", w.indexer.k_norm_weight);
    add(Part::kIndexer, "k_norm.bias", w.indexer.k_norm_bias);
    add(Part::kAttention, "o_proj", w.o);
    add(Part::kNorms, "post_attention_layernorm", w.post_attention_norm);
    add(Part::kRouter, "gate", w.router);
    add(Part::kRouter, "e_score_correction_bias", w.router_bias);
    add_mlp(w.experts.empty() ? Part::kMlp : Part::kSharedExpert, w.mlp);
    for (std::size_t e = 0; e < w.experts.size(); ++e) {
      at.expert = static_cast<int>(e);
      add_mlp(Part::kExperts, w.experts[e]);
    }
    at.expert = -1;
  }
  at.layer = -1;
  add(Part::kFinalNorm, "", weights.final_norm);
  add(Part::kHead, "", weights.lm_head);
  return out;
}

bool same_bytes(const void* a, const void* b, std::int64_t n) {
  return a == b || std::memcmp(a, b, static_cast<std::size_t>(n)) == 0;
}

bool same(const kernels::VqMatrix& a, const kernels::VqMatrix& b) {
  const std::int64_t rows = a.n_rows;
  return a.dim == b.dim && a.n_codes == b.n_codes && a.index_bits == b.index_bits &&
         a.n_books == b.n_books && a.group == b.group &&
         same_bytes(a.codes, b.codes, rows * a.row_words() * 4) &&
         same_bytes(a.scales, b.scales, rows * a.n_groups() * 2) &&
         same_bytes(a.codebook, b.codebook, std::int64_t{4} * a.n_books * a.n_codes * a.dim);
}

bool same(const kernels::ScaledMatrix& a, const kernels::ScaledMatrix& b) {
  if (a.kind != b.kind || a.group != b.group) return false;
  const std::int64_t n = std::int64_t{a.n_rows} * a.n_cols,
                     n_scales = std::int64_t{a.n_rows} * a.n_groups();
  if (a.kind == kernels::ScaledMatrix::Kind::kFp8E4m3)
    return same_bytes(a.values, b.values, n) &&
           same_bytes(a.scales, b.scales,
                      std::int64_t{4} * ((a.n_rows + a.group - 1) / a.group) * a.n_groups());
  const int per_byte = a.kind == kernels::ScaledMatrix::Kind::kGptq4 ? 2 : 1;
  return same_bytes(a.values, b.values, n / per_byte) &&
         same_bytes(a.scales, b.scales, 2 * n_scales) &&
         same_bytes(a.zeros, b.zeros, n_scales / per_byte);
}

bool same(const Matrix& a, const Matrix& b) {
  if (a.codes.index() != b.codes.index()) return false;
  if (const auto* vq = std::get_if<kernels::VqMatrix>(&a.codes))
    return same(*vq, std::get<kernels::VqMatrix>(b.codes));
  if (const auto* scaled = std::get_if<kernels::ScaledMatrix>(&a.codes))
    return same(*scaled, std::get<kernels::ScaledMatrix>(b.codes));
  return a.dtype == b.dtype &&
         same_bytes(a.data, b.data,
                    static_cast<std::int64_t>(bytes_of(a.dtype)) * a.n_rows * a.n_cols);
}

Result<void> check_same_sizes(const LoadedModel& base, const LoadedModel& candidate) {
  const ModelConfig &b = base.config, &c = candidate.config;
  const struct {
    const char* name;
    int base, candidate;
  } sizes[] = {{"vocab_size", b.vocab, c.vocab},
               {"hidden_size", b.hidden, c.hidden},
               {"num_hidden_layers", b.n_layers, c.n_layers},
               {"num_attention_heads", b.n_heads, c.n_heads},
               {"q_lora_rank", b.q_lora, c.q_lora},
               {"kv_lora_rank", b.kv_lora, c.kv_lora},
               {"qk_nope_head_dim", b.qk_nope, c.qk_nope},
               {"qk_rope_head_dim", b.qk_rope, c.qk_rope},
               {"v_head_dim", b.v_head, c.v_head},
               {"intermediate_size", b.dense_intermediate, c.dense_intermediate},
               {"moe_intermediate_size", b.moe_intermediate, c.moe_intermediate},
               {"n_routed_experts", b.n_experts, c.n_experts},
               {"n_shared_experts", b.n_shared_experts, c.n_shared_experts},
               {"first_k_dense_replace", b.first_dense_layers, c.first_dense_layers},
               {"index_n_heads", b.index_n_heads, c.index_n_heads},
               {"index_head_dim", b.index_head_dim, c.index_head_dim}};
  for (const auto& size : sizes)
    if (size.base != size.candidate)
      return fail(
          "{} has {} {}, {} has {}: weights of one architecture cannot stand in another. Name two "
          "builds of one model.",
          base.info.model_dir, size.name, size.base, candidate.info.model_dir, size.candidate);
  if ((b.index_topk > 0) != (c.index_topk > 0) || b.indexer_full != c.indexer_full)
    return fail("{} and {} have their indexers at different layers: name two builds of one model.",
                base.info.model_dir, candidate.info.model_dir);
  return {};
}

bool same_settings(const ModelConfig& a, const ModelConfig& b) {
  return a.n_experts_per_token == b.n_experts_per_token && a.routed_scaling == b.routed_scaling &&
         a.norm_topk_prob == b.norm_topk_prob && a.n_groups == b.n_groups &&
         a.topk_groups == b.topk_groups && a.rms_eps == b.rms_eps && a.rope_theta == b.rope_theta &&
         a.rope_interleave == b.rope_interleave &&
         a.indexer_rope_interleave == b.indexer_rope_interleave && a.index_topk == b.index_topk;
}

}  // namespace

std::vector<std::string> WeightSite::path() const {
  std::vector<std::string> out;
  if (layer >= 0) out.push_back(fmt::format("layer {}", layer));
  constexpr const char* kNames[] = {"embedding", "lm_head",       "final norm", "config.json",
                                    "norms",     "attention",     "indexer",    "router",
                                    "dense MLP", "shared expert", "experts"};
  out.emplace_back(kNames[static_cast<std::size_t>(part)]);
  if (expert >= 0) out.push_back(fmt::format("expert {}", expert));
  if (!projection.empty()) out.push_back(projection);
  return out;
}

struct Mixture::Impl {
  std::shared_ptr<const LoadedModel> base, candidate;
  EngineOptions options;
  std::vector<std::size_t> place_of;  // of each differing site, in places_of; settings: none

  static constexpr std::size_t kSettings = static_cast<std::size_t>(-1);
};

Mixture::Mixture(std::shared_ptr<const Impl> impl, std::vector<WeightSite> sites, Engine base,
                 Engine candidate)
    : impl_(std::move(impl)),
      sites_(std::move(sites)),
      base_(std::move(base)),
      candidate_(std::move(candidate)) {}

Result<Mixture> Mixture::open(const std::filesystem::path& base_dir,
                              const std::filesystem::path& candidate_dir,
                              const EngineOptions& options) {
  auto impl = std::make_shared<Impl>();
  impl->options = options;
  ASSAY_TRY(impl->candidate, load_model(candidate_dir, options));
  ASSAY_TRY(impl->base, load_model(base_dir, options, impl->candidate.get()));
  ASSAY_TRY_VOID(check_same_sizes(*impl->base, *impl->candidate));
  ModelWeights a = impl->base->weights, b = impl->candidate->weights;
  const std::vector<Place> of_base = places_of(a), of_candidate = places_of(b);
  CHECK(of_base.size() == of_candidate.size());
  std::vector<WeightSite> sites;
  if (!same_settings(impl->base->config, impl->candidate->config)) {
    sites.push_back({.part = Part::kSettings});
    impl->place_of.push_back(Impl::kSettings);
  }
  for (std::size_t i = 0; i < of_base.size(); ++i) {
    if (same(*of_base[i].matrix, *of_candidate[i].matrix)) continue;
    sites.push_back(of_base[i].site);
    impl->place_of.push_back(i);
  }
  ASSAY_TRY(Engine base, Engine::over(impl->base, options));
  ASSAY_TRY(Engine candidate, Engine::over(impl->candidate, options));
  return Mixture(std::move(impl), std::move(sites), std::move(base), std::move(candidate));
}

Result<Engine> Mixture::mix(std::span<const int> chosen, Direction direction) const {
  const bool forwards = direction == Direction::kBaseIntoCandidate;
  const LoadedModel &to = forwards ? *impl_->candidate : *impl_->base,
                    &from = forwards ? *impl_->base : *impl_->candidate;
  ModelConfig config = to.config;
  ModelWeights weights = to.weights, donor = from.weights;
  weights.owned.insert(weights.owned.end(), donor.owned.begin(), donor.owned.end());
  const std::vector<Place> places = places_of(weights), donors = places_of(donor);
  Hasher hasher;
  hasher.update(to.info.fingerprint);
  hasher.update(from.info.fingerprint);
  for (const int i : chosen) {
    CHECK(i >= 0 && std::cmp_less(i, sites_.size())) << i << " of " << sites_.size();
    hasher.update_u64(static_cast<std::uint64_t>(i));
    const std::size_t place = impl_->place_of[static_cast<std::size_t>(i)];
    if (place == Impl::kSettings) {
      config = from.config;
      config.max_positions = to.config.max_positions;  // as info says
    } else {
      *places[place].matrix = *donors[place].matrix;
    }
  }
  ASSAY_TRY(auto backend, to.backend->with(config, weights));
  EngineInfo info = to.info;
  info.model_dir = fmt::format("{} with {} tensors of {}", to.info.model_dir, chosen.size(),
                               from.info.model_dir);
  info.fingerprint = hasher.hex();
  return Engine::over(std::make_shared<const LoadedModel>(
                          LoadedModel{.config = std::move(config),
                                      .checkpoints = {to.checkpoints[0], from.checkpoints[0]},
                                      .weights = std::move(weights),
                                      .backend = std::move(backend),
                                      .tokenizer = to.tokenizer,
                                      .chat_template = to.chat_template,
                                      .info = std::move(info)}),
                      impl_->options);
}

}  // namespace assay::engine
