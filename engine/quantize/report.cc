#include "engine/quantize/report.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "base/hypothesis.h"

namespace assay::engine {

ExpertBits expert_bits(const ModelWeights& weights, const Plan& plan, const Recipe& recipe,
                       const std::vector<Codebook>& used) {
  double n_weights = 0;
  ExpertBits sum;
  for (std::size_t l = 0; l < plan.tier.size(); ++l)
    for (std::size_t e = 0; e < plan.tier[l].size(); ++e) {
      const MlpWeights& w = weights.layers[l].experts[e];
      const std::array<const Matrix*, 3> projections = {&w.gate, &w.up, &w.down};
      for (std::size_t p = 0; p < projections.size(); ++p) {
        const Matrix& m = *projections[p];
        const Tier& tier = recipe.tiers[static_cast<std::size_t>(plan.tier[l][e][p])];
        const int row_bits = m.n_cols / tier.dim * tier.index_bits();
        const int n_words = (row_bits + 31) / 32;
        const int n_groups = (m.n_cols + recipe.group - 1) / recipe.group;
        n_weights += static_cast<double>(m.n_rows) * m.n_cols;
        sum.code += static_cast<double>(m.n_rows) * row_bits;
        sum.padding += static_cast<double>(m.n_rows) * (32 * n_words - row_bits);
        sum.scales += 16.0 * m.n_rows * n_groups;
      }
    }
  for (const Codebook& book : used) sum.codebooks += 16.0 * static_cast<double>(book.values.size());
  return {sum.code / n_weights, sum.padding / n_weights, sum.scales / n_weights,
          sum.codebooks / n_weights};
}

Json to_json(const ExpertBits& bits) {
  return {{"code", bits.code},
          {"padding", bits.padding},
          {"scales", bits.scales},
          {"codebooks", bits.codebooks},
          {"total", bits.total()}};
}

Json prediction_json(const Json& modules) {
  struct Errors {
    std::vector<double> predicted, measured;
    Json json() const {
      const auto sum = [](const std::vector<double>& v) {
        return std::accumulate(v.begin(), v.end(), 0.0);
      };
      const auto rho = rank_correlation(predicted, measured);
      return {{"n_modules", predicted.size()},
              {"spearman", rho ? Json(*rho) : Json()},
              {"measured_over_predicted", sum(measured) / std::max(sum(predicted), 1e-300)}};
    }
  };
  Errors all;
  std::map<std::string, Errors> by_projection, by_tier;
  for (const auto& [module, entry] : modules.items()) {
    if (entry.at("format") != "vq") continue;
    for (Errors* errors : {&all, &by_projection[module.substr(module.rfind('.') + 1)],
                           &by_tier[entry.at("tier").get<std::string>()]}) {
      errors->predicted.push_back(entry.at("predicted_error").get<double>());
      errors->measured.push_back(entry.at("relative_error").get<double>());
    }
  }
  const auto json_of = [](const std::map<std::string, Errors>& groups) {
    Json out = Json::object();
    for (const auto& [name, errors] : groups) out[name] = errors.json();
    return out;
  };
  return {
      {"all", all.json()}, {"projections", json_of(by_projection)}, {"tiers", json_of(by_tier)}};
}

}  // namespace assay::engine
