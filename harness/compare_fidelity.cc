#include "harness/compare_fidelity.h"

#include <algorithm>
#include <cmath>

#include "base/figure.h"
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

// Whether that run's model is the very base that the other was measured against.
bool is_base_of(const Json& base_run, const Json& candidate) {
  const std::string model = base_run.value("identity", Json::object()).value("model", "");
  return !model.empty() && model == candidate.at("result").at("base").value("fingerprint", "");
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
  for (const auto& [name, result] : {std::pair{"baseline", &b}, {"candidate", &c}})
    if (!result->contains("texts"))
      return fmt::format(
          "the {} was measured by an earlier assay, which kept no figure of each text: measure it "
          "again",
          name);
  const Json &of_base = b.at("texts"), &of_candidate = c.at("texts");
  bool same = of_base.size() == of_candidate.size();
  for (std::size_t i = 0; same && i < of_base.size(); ++i)
    same = of_base[i].at("id") == of_candidate[i].at("id") &&
           of_base[i].at("n_positions") == of_candidate[i].at("n_positions");
  if (!same) return "they were measured on different texts";
  if (is_lower_bound(b) != is_lower_bound(c))
    return "one was measured against a captured base, whose KLD is a lower bound";
  return "";
}

bool have_same_size(const Json& base, const Json& candidate) {
  const auto bytes = [](const Json& result) {
    const Json& model = result.at("candidate");
    return model.value("active_bytes", 0.0) + model.value("routed_bytes", 0.0);
  };
  const double b = bytes(base), c = bytes(candidate);
  return b > 0 && std::abs(c - b) <= kSameSize * b;
}

// What a KLD is measured to where no noise floor was.
constexpr double kSmallestKld = 1e-9;

// Fills difference, ratio and p from the texts of that language in both, which are the same ones.
void set_against(FidelityRow& row, const Json& base_texts, const Json& candidate_texts) {
  const double noise = std::max(row.noise_floor.value_or(kSmallestKld), 1e-12);
  std::vector<double> grown, log_ratio, n_positions;
  std::vector<int> text;
  double sum = 0, n = 0;
  for (std::size_t i = 0; i < base_texts.size(); ++i) {
    if (row.language != "all" && base_texts[i].at("lang") != row.language) continue;
    const double b = base_texts[i].at("kld").get<double>(),
                 c = candidate_texts[i].at("kld").get<double>();
    // Rounding can leave a KLD of −1e-17.
    log_ratio.push_back(std::log((std::max(c, 0.0) + noise) / (std::max(b, 0.0) + noise)));
    text.push_back(static_cast<int>(text.size()));
    grown.push_back(c - b);
    n_positions.push_back(base_texts[i].at("n_positions").get<double>());
    sum += grown.back() * n_positions.back();
    n += n_positions.back();
  }
  if (text.empty()) return;
  // Of a mean over positions, with texts as clusters (the sandwich of a ratio of sums).
  const double mean = sum / n, n_texts = static_cast<double>(text.size());
  double squares = 0;
  for (std::size_t i = 0; i < text.size(); ++i)
    squares += std::pow(n_positions[i] * (grown[i] - mean) / n, 2);
  row.difference = Estimate{.value = mean, .error = std::nullopt};
  if (n_texts > 1) row.difference->error = std::sqrt(squares * n_texts / (n_texts - 1));
  const ClusteredValue typical = clustered_value(log_ratio, text);
  const double ratio = std::exp(typical.mean.estimate);
  row.ratio = typical.known ? Interval{ratio, std::exp(typical.mean.lo), std::exp(typical.mean.hi)}
                            : Interval{ratio, ratio, ratio};
  const SignedRank test = wilcoxon_signed_rank(log_ratio);
  row.p = test.p;
  // Texts without a difference say nothing, but might have: any n texts can give 2^(1 - n).
  row.least_p = std::min(test.least_p, std::exp2(1 - n_texts));
}

std::string sentence(const FidelityRow& row) {
  return fmt::format(
      "fidelity{}: the typical text is {} times as far from the base (mean KLD {:.2g}, was "
      "{:.2g} nats; p = {:.2g} after Holm)",
      row.language == "all" ? "" : " in " + row.language, figure(row.ratio->estimate, 2, 4),
      row.candidate->value, row.base->value, row.p_holm);
}

void judge(Fidelity& out) {
  // The most rows k of which each could reach kAlpha / k: they are the family.
  const auto n_able = [&](std::ptrdiff_t k) {
    return std::count_if(out.rows.begin(), out.rows.end(), [&](const FidelityRow& row) {
      return row.ratio && row.least_p < kAlpha / static_cast<double>(k);
    });
  };
  std::ptrdiff_t k = 1;
  while (n_able(k) > k) ++k;
  std::vector<double> p;
  for (FidelityRow& row : out.rows) {
    row.can_tell = row.ratio && row.least_p < kAlpha / static_cast<double>(k);
    if (row.can_tell) p.push_back(row.p);
  }
  const std::vector<double> adjusted = holm(p);
  std::size_t next = 0;
  for (FidelityRow& row : out.rows) {
    if (!row.can_tell) continue;
    row.p_holm = adjusted[next++];
    row.would_show = kFidelityFloor;
    if (row.ratio->hi > row.ratio->estimate) {
      const double n = row.n_texts - 1;
      const double error =
          std::log(row.ratio->hi / row.ratio->estimate) / student_t_quantile(0.95, n);
      const double level = 1 - kAlpha / static_cast<double>(k);
      row.would_show = std::max(kFidelityFloor, std::exp(student_t_quantile(level, n) * error));
    }
    if (row.p_holm >= kAlpha || row.ratio->estimate < kFidelityWarns) continue;
    const bool far = row.ratio->estimate >= kFidelityFloor;
    row.verdict = far && out.same_size ? RowVerdict::kRegression : RowVerdict::kWarn;
    if (row.verdict == RowVerdict::kRegression) {
      out.regressions.push_back(sentence(row));
    } else {
      out.warnings.push_back(sentence(row) + (far ? "; the two are not of one size" : ""));
    }
  }
}

}  // namespace

Fidelity compare_fidelity(const Json& base_run, const Json& candidate_run) {
  const Json *base = divergence_of(base_run), *candidate = divergence_of(candidate_run);
  Fidelity out;
  if (base == nullptr && candidate == nullptr) return out;
  const bool from_base =
      base == nullptr && candidate != nullptr && is_base_of(base_run, *candidate);
  out.reason = from_base
                   ? "the baseline is the base itself, whose distance is 0 by definition; how "
                     "far a build may be from it, no rule says"
                   : reason_of(base, candidate);
  const bool both = out.reason.empty();
  if (both) out.same_size = have_same_size(base->at("result"), candidate->at("result"));
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
    if (from_base) row.base = Estimate{.value = 0, .error = std::nullopt};
    if (both) set_against(row, base->at("result").at("texts"), candidate->at("result").at("texts"));
    out.rows.push_back(std::move(row));
  }
  judge(out);
  return out;
}

void add_fidelity(Verdict& verdict, const Fidelity& fidelity) {
  for (const std::string& s : fidelity.regressions)
    add_finding(verdict, VerdictState::kRegression, s);
  for (const std::string& s : fidelity.warnings) add_finding(verdict, VerdictState::kWarn, s);
}

void add_comparison(Verdict& verdict, const Comparison& comparison, const Fidelity& fidelity,
                    const Confirmation& confirmation, const ComparedRuns& whose) {
  add_fidelity(verdict, fidelity);
  const bool was_asked = comparison.n_pairs + comparison.n_not_run > 0;
  const bool is_judged = !fidelity.rows.empty() && fidelity.rows.front().ratio.has_value();
  if (was_asked || !is_judged) return add_comparison(verdict, comparison, "", confirmation, whose);
  const FidelityRow& all = fidelity.rows.front();
  verdict.summary += fmt::format(
      "{}Against the baseline the typical of {} texts is {} [{}, {}] times as far from "
      "the base",
      verdict.summary.empty() ? "" : " ", all.n_texts, figure(all.ratio->estimate, 2, 4),
      figure(all.ratio->lo, 2, 4), figure(all.ratio->hi, 2, 4));
  if (!all.can_tell) {
    verdict.summary += "; with so few texts no distance could have shown.";
    return add_finding(verdict, VerdictState::kInvalid,
                       "too few texts for a comparison: ask more (--profile)");
  }
  verdict.summary += fidelity.same_size ? fmt::format("; {} times would have been called.",
                                                      figure(*all.would_show, 2, 4))
                                        : "; builds of unequal size are only warned of.";
}

Json to_json(const Fidelity& fidelity) {
  const auto estimate = [](const std::optional<Estimate>& e) -> Json {
    if (!e) return nullptr;
    return {{"value", e->value}, {"error", e->error ? Json(*e->error) : Json()}};
  };
  Json rows = Json::array();
  for (const FidelityRow& r : fidelity.rows)
    rows.push_back(
        {{"language", r.language},
         {"n_texts", r.n_texts},
         {"base", estimate(r.base)},
         {"candidate", estimate(r.candidate)},
         {"noise_floor", r.noise_floor ? Json(*r.noise_floor) : Json()},
         {"difference", estimate(r.difference)},
         {"ratio",
          r.ratio ? Json{{"estimate", r.ratio->estimate}, {"lo", r.ratio->lo}, {"hi", r.ratio->hi}}
                  : Json()},
         {"can_tell", r.can_tell},
         {"would_show", r.would_show ? Json(*r.would_show) : Json()},
         {"p", r.p},
         {"p_holm", r.p_holm},
         {"verdict", name_of(r.verdict)}});
  return {
      {"rows", std::move(rows)}, {"reason", fidelity.reason}, {"same_size", fidelity.same_size}};
}

}  // namespace assay::harness
