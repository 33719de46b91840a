#include "harness/compare_fidelity.h"

#include <algorithm>
#include <cmath>

#include "base/hypothesis.h"

namespace assay::harness {
namespace {

// The result of the divergence that a run measured; null: none.
const Json* divergence_of(const Json& run) {
  if (!run.contains("measurements")) return nullptr;
  for (const Json& m : run.at("measurements"))
    if (m.at("measure") == "divergence" && m.at("state") == "measured") return &m;
  return nullptr;
}

const Json* group_of(const Json& result, const std::string& language) {
  for (const Json& g : result.at("groups"))
    if (g.at("lang") == language && g.at("part") == "all") return &g;
  return nullptr;
}

Estimate kld_of(const Json& group) {
  const Json& mean = group.at("kld").at("mean");
  Estimate out{.value = mean.at("value").get<double>(), .error = std::nullopt};
  if (!mean.at("error").is_null()) out.error = mean.at("error").get<double>();
  return out;
}

// The noise floor of that language, or of all texts together.
std::optional<double> noise_of(const Json& result, const std::string& language) {
  const Json& noise = result.at("noise_floor");
  if (noise.is_null()) return std::nullopt;
  if (noise.contains("groups"))
    if (const Json* group = group_of(noise, language)) return kld_of(*group).value;
  return noise.at("kld").at("mean").at("value").get<double>();
}

bool is_lower_bound(const Json& result) {
  return result.at("groups").front().at("kld_coarsening").is_null();
}

// Why the two figures cannot be set against each other.
std::string reason_of(const Json* base, const Json* candidate) {
  if (base == nullptr || candidate == nullptr)
    return fmt::format("the {} has no divergence measured (assay run divergence --base MODEL)",
                       base == nullptr ? "baseline" : "candidate");
  const Json &b = base->at("result"), &c = candidate->at("result");
  if (base->at("hash") != candidate->at("hash")) return "the suites differ";
  if (b.at("base").value("fingerprint", "") != c.at("base").value("fingerprint", ""))
    return "they were measured against different bases";
  if (b.at("groups").front().at("n_positions") != c.at("groups").front().at("n_positions"))
    return "they were measured on different texts";
  if (is_lower_bound(b) != is_lower_bound(c))
    return "one was measured against a captured base, whose KLD is a lower bound";
  return "";
}

void judge(FidelityRow& row) {
  const double grown = row.difference->value;
  const bool large = grown >= kFidelityFloor * row.base->value;
  const bool beyond_noise = grown > row.noise_floor.value_or(0);
  if (row.p_holm < kAlpha && grown > 0 && large && beyond_noise) row.verdict = RowVerdict::kWarn;
}

}  // namespace

Fidelity compare_fidelity(const Json& base_run, const Json& candidate_run) {
  const Json *base = divergence_of(base_run), *candidate = divergence_of(candidate_run);
  Fidelity out;
  if (base == nullptr && candidate == nullptr) return out;
  out.reason = reason_of(base, candidate);
  const Json& any = (candidate != nullptr ? candidate : base)->at("result");
  for (const Json& group : any.at("groups")) {
    if (group.at("part") != "all") continue;
    FidelityRow row;
    row.language = group.at("lang").get<std::string>();
    row.n_texts = group.at("n_texts").get<int>();
    for (const auto& [from, into] : {std::pair{base, &row.base}, {candidate, &row.candidate}}) {
      if (from == nullptr) continue;
      const Json& result = from->at("result");
      if (const Json* found = group_of(result, row.language)) *into = kld_of(*found);
      if (const auto noise = noise_of(result, row.language))
        row.noise_floor = std::max(row.noise_floor.value_or(0), *noise);
    }
    const bool both = row.base && row.candidate && row.base->error && row.candidate->error;
    if (out.reason.empty() && both) {
      const double error = std::hypot(*row.base->error, *row.candidate->error);
      row.difference = Estimate{.value = row.candidate->value - row.base->value, .error = error};
      if (error > 0 && row.n_texts > 1)
        row.p = student_t_p(row.difference->value / error, row.n_texts - 1);
    }
    out.rows.push_back(std::move(row));
  }
  std::vector<double> p;
  for (const FidelityRow& row : out.rows) p.push_back(row.p);
  const std::vector<double> adjusted = holm(p);
  for (std::size_t i = 0; i < out.rows.size(); ++i) {
    FidelityRow& row = out.rows[i];
    row.p_holm = adjusted[i];
    if (!row.difference) continue;
    judge(row);
    if (row.verdict == RowVerdict::kWarn)
      out.warnings.push_back(
          fmt::format("fidelity{}: mean KLD to the base grew from {:.4f} to {:.4f} nats (p = "
                      "{:.2g} after Holm)",
                      row.language == "all" ? "" : " in " + row.language, row.base->value,
                      row.candidate->value, row.p_holm));
  }
  return out;
}

Json to_json(const Fidelity& fidelity) {
  const auto estimate = [](const std::optional<Estimate>& e) -> Json {
    if (!e) return nullptr;
    return {{"value", e->value}, {"error", e->error ? Json(*e->error) : Json()}};
  };
  Json rows = Json::array();
  for (const FidelityRow& r : fidelity.rows)
    rows.push_back({{"language", r.language},
                    {"n_texts", r.n_texts},
                    {"base", estimate(r.base)},
                    {"candidate", estimate(r.candidate)},
                    {"noise_floor", r.noise_floor ? Json(*r.noise_floor) : Json()},
                    {"difference", estimate(r.difference)},
                    {"p", r.p},
                    {"p_holm", r.p_holm},
                    {"verdict", name_of(r.verdict)}});
  return {{"rows", std::move(rows)}, {"reason", fidelity.reason}};
}

}  // namespace assay::harness
