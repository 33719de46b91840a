#include "harness/metrics.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace assay::harness {
namespace {

// "ja"; crossed: "en.en.ja", haystack, needle and question.
std::string languages_of(const Json& recipe) {
  const auto haystack = recipe.at("haystack_language").get<std::string>(),
             needle = recipe.at("needle_language").get<std::string>(),
             question = recipe.at("question_language").get<std::string>();
  return haystack == needle && needle == question ? question
                                                  : haystack + "." + needle + "." + question;
}

Quantiles quantiles_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  return {static_cast<int>(values.size()), nearest_rank(values, 0.5), nearest_rank(values, 0.9),
          values.back()};
}

Group summarise_one(Group group, std::span<const Sample* const> samples) {
  group.n = static_cast<int>(samples.size());
  group.accuracy = rate_of(GateMetric::kAccuracy, samples);
  group.closed = rate_of(GateMetric::kClosed, samples);
  group.stopped = rate_of(GateMetric::kStopped, samples);
  group.error = rate_of(GateMetric::kError, samples);
  group.answered = rate_of(GateMetric::kAnswered, samples);
  group.language_right = rate_of(GateMetric::kLanguage, samples);
  group.no_loop = rate_of(GateMetric::kNoLoop, samples);
  std::vector<double> thinking;
  std::vector<Thought> thoughts;
  long n_thinking = 0, n_hesitations = 0;
  int n_judged = 0;
  for (const Sample* s : samples) {
    ++group.classes[std::string(class_of(s->outcome))];
    ++group.termination[std::string(name_of(s->outcome.termination))];
    group.n_tokens += static_cast<long>(s->ids.size());
    if (!s->ran()) continue;
    ++group.finish[s->finish];
    if (s->outcome.termination == Termination::kClosed) {
      ++group.n_answered;
      n_judged += looks_at(GateMetric::kAccuracy, *s);
    }
    const bool open = s->outcome.termination == Termination::kNoClose ||
                      s->outcome.termination == Termination::kEosInThink || s->forced_close;
    if (open)
      ++group.n_thinking_censored;
    else
      thinking.push_back(s->n_thinking_tokens);
    thoughts.push_back({s->n_thinking_tokens, !open});
    n_thinking += s->n_thinking_tokens;
    n_hesitations += s->n_hesitations;
    group.n_forced += s->forced_close;
    group.n_reached += s->reached;
    group.n_reasked += s->reask.has_value();
    group.n_reask_correct += s->reask && s->reask->correctness == Correctness::kCorrect;
  }
  if (n_thinking > 0) {
    group.hesitations_per_1k =
        1000.0 * static_cast<double>(n_hesitations) / static_cast<double>(n_thinking);
    group.thinking_survival = survival(thoughts, kSurvivalTokens);
  }
  if (n_judged > 0) group.accuracy_answered = static_cast<double>(group.accuracy.n_true) / n_judged;
  group.thinking_tokens = quantiles_of(std::move(thinking));
  return group;
}

}  // namespace

bool looks_at(GateMetric metric, const Sample& s) {
  if (metric == GateMetric::kError) return true;
  if (!s.ran()) return false;
  if (metric == GateMetric::kAccuracy) return s.scoring != Scoring::kNone;
  if (metric == GateMetric::kLanguage) return s.language_right.has_value();
  return true;
}

bool holds(GateMetric metric, const Sample& s) {
  switch (metric) {
    case GateMetric::kAccuracy:
      return s.outcome.correctness == Correctness::kCorrect;
    case GateMetric::kClosed:
      return s.outcome.termination != Termination::kNoClose && !s.forced_close &&
             s.outcome.termination != Termination::kEosInThink && s.n_stray_tags == 0;
    case GateMetric::kStopped:
      return s.finish == "stop";
    case GateMetric::kError:
      return !s.ran() && s.finish != "non_finite";  // NaN is a regression of its own: see verdict.h
    case GateMetric::kAnswered:
      return s.outcome.termination == Termination::kClosed;
    case GateMetric::kLanguage:
      return s.language_right.value_or(false);
    case GateMetric::kNoLoop:
      return s.outcome.degeneration == Degeneration::kNone ||
             s.outcome.degeneration == Degeneration::kLanguageDrift;
  }
  return false;
}

Rate rate_of(GateMetric metric, std::span<const Sample* const> samples) {
  std::vector<double> scores;
  std::vector<int> clusters;
  std::map<std::string, int> cluster_ids;
  Rate rate;
  for (const Sample* s : samples) {
    if (!looks_at(metric, *s)) continue;
    const bool yes = holds(metric, *s);
    rate.n_true += yes;
    scores.push_back(yes ? 1 : 0);
    const auto id = static_cast<int>(cluster_ids.size());
    clusters.push_back(cluster_ids.emplace(s->suite + "/" + s->cluster, id).first->second);
  }
  const ClusteredMean mean = clustered_mean(scores, clusters);
  rate.n = mean.n_samples;
  rate.n_clusters = mean.n_clusters;
  rate.value = mean.mean;
  return rate;
}

std::vector<SurvivalPoint> survival(std::span<const Thought> thoughts, std::span<const int> at) {
  std::vector<Thought> sorted(thoughts.begin(), thoughts.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const Thought& a, const Thought& b) { return a.n_tokens < b.n_tokens; });
  std::vector<SurvivalPoint> points;
  double share = 1, greenwood = 0;
  std::size_t i = 0;
  for (const int t : at) {
    // Every length up to t at which a reply closed takes its part of those that had come so far.
    while (i < sorted.size() && sorted[i].n_tokens <= t) {
      const std::size_t first = i;
      int n_closed = 0;
      for (; i < sorted.size() && sorted[i].n_tokens == sorted[first].n_tokens; ++i)
        n_closed += sorted[i].closed;
      if (n_closed == 0) continue;
      const auto at_risk = static_cast<double>(sorted.size() - first);
      share *= 1 - n_closed / at_risk;
      if (n_closed < at_risk) greenwood += n_closed / (at_risk * (at_risk - n_closed));
    }
    SurvivalPoint point{t, static_cast<int>(sorted.size() - i), share, share, share};
    if (share > 0 && share < 1) {
      constexpr double kZ = 1.959963984540054;
      const double width = kZ * std::sqrt(greenwood) / std::abs(std::log(share));
      point.lo = std::pow(share, std::exp(width));
      point.hi = std::pow(share, std::exp(-width));
    } else {  // Greenwood's variance is 0 where all or none closed, and says nothing: Wilson's
      const auto n = static_cast<int>(sorted.size());
      (share == 1 ? point.lo : point.hi) = share == 1 ? wilson(n, n).lo : wilson(0, n).hi;
    }
    points.push_back(point);
    // Nobody is left to look at: what comes later is not known.
    if (i == sorted.size()) break;
  }
  return points;
}

std::vector<NeedleCell> needle_grid(std::span<const Sample> samples) {
  std::vector<NeedleCell> cells;
  const auto add = [&](const Sample& s, const std::string& kind) {
    const int n_tokens = s.recipe.at("n_tokens").get<int>();
    const double depth = s.recipe.at("depth").get<double>();
    const std::string languages = languages_of(s.recipe);
    auto cell = std::find_if(cells.begin(), cells.end(), [&](const NeedleCell& c) {
      return c.suite == s.suite && c.arm == s.arm && c.language == languages && c.kind == kind &&
             c.n_tokens == n_tokens && c.depth == depth;
    });
    if (cell == cells.end()) {
      NeedleCell fresh;
      fresh.suite = s.suite;
      fresh.arm = s.arm;
      fresh.language = languages;
      fresh.kind = kind;
      fresh.n_tokens = n_tokens;
      fresh.depth = depth;
      cell = cells.insert(cells.end(), std::move(fresh));
    }
    ++cell->n;
    cell->n_correct += s.outcome.correctness == Correctness::kCorrect;
    cell->n_reasked += s.reask.has_value();
    cell->n_reask_correct += s.reask && s.reask->correctness == Correctness::kCorrect;
  };
  for (const Sample& s : samples) {
    if (s.scoring != Scoring::kNeedle || !s.ran() || !s.recipe.is_object()) continue;
    if (s.gated) add(s, "");
    add(s, s.kind);
  }
  for (NeedleCell& cell : cells) cell.value = wilson(cell.n_correct, cell.n);
  std::sort(cells.begin(), cells.end(), [](const NeedleCell& a, const NeedleCell& b) {
    return std::tie(a.suite, a.arm, a.kind, a.language, a.n_tokens, a.depth) <
           std::tie(b.suite, b.arm, b.kind, b.language, b.n_tokens, b.depth);
  });
  return cells;
}

std::vector<Group> summarise(std::span<const Sample> samples) {
  struct Slot {
    Group group;
    int level;  // 0 total, 1 language, 2 kind, 3 both
    std::vector<const Sample*> samples;
  };
  std::vector<Slot> slots;
  std::vector<std::pair<std::string, std::string>> arms;
  for (const Sample& s : samples) {
    if (std::find(arms.begin(), arms.end(), std::pair{s.suite, s.arm}) == arms.end())
      arms.emplace_back(s.suite, s.arm);
    for (int level = 0; level < 4; ++level) {
      const std::string language = level % 2 == 1 ? s.language : "";
      const std::string kind = level >= 2 ? s.kind : "";
      const auto found = std::find_if(slots.begin(), slots.end(), [&](const Slot& slot) {
        const Group& g = slot.group;
        return g.suite == s.suite && g.arm == s.arm && g.language == language && g.kind == kind &&
               g.gated == s.gated && slot.level == level;
      });
      if (found != slots.end()) {
        found->samples.push_back(&s);
        continue;
      }
      Slot slot;
      slot.group.suite = s.suite;
      slot.group.arm = s.arm;
      slot.group.language = language;
      slot.group.kind = kind;
      slot.group.gated = s.gated;
      slot.level = level;
      slot.samples = {&s};
      slots.push_back(std::move(slot));
    }
  }
  std::vector<Group> groups;
  for (const auto& [suite, arm] : arms)
    for (const bool gated : {true, false})
      for (int level = 0; level < 4; ++level)
        for (const Slot& slot : slots)
          if (slot.group.suite == suite && slot.group.arm == arm && slot.group.gated == gated &&
              slot.level == level)
            groups.push_back(summarise_one(slot.group, slot.samples));
  return groups;
}

Json to_json(const Rate& rate) {
  return {{"n", rate.n},           {"n_clusters", rate.n_clusters},
          {"n_true", rate.n_true}, {"estimate", rate.value.estimate},
          {"lo", rate.value.lo},   {"hi", rate.value.hi}};
}

Json to_json(const Group& g) {
  Json survival = Json::array();
  for (const SurvivalPoint& p : g.thinking_survival)
    survival.push_back({{"n_tokens", p.n_tokens},
                        {"n_at_risk", p.n_at_risk},
                        {"share", p.share},
                        {"lo", p.lo},
                        {"hi", p.hi}});
  return {{"suite", g.suite},
          {"arm", g.arm},
          {"language", g.language},
          {"kind", g.kind},
          {"gated", g.gated},
          {"n", g.n},
          {"accuracy", to_json(g.accuracy)},
          {"closed", to_json(g.closed)},
          {"stopped", to_json(g.stopped)},
          {"error", to_json(g.error)},
          {"answered", to_json(g.answered)},
          {"language_right", to_json(g.language_right)},
          {"no_loop", to_json(g.no_loop)},
          {"n_answered", g.n_answered},
          {"accuracy_answered", g.accuracy_answered},
          {"classes", g.classes},
          {"finish", g.finish},
          {"termination", g.termination},
          {"thinking_tokens",
           {{"n", g.thinking_tokens.n},
            {"p50", g.thinking_tokens.p50},
            {"p90", g.thinking_tokens.p90},
            {"max", g.thinking_tokens.max},
            {"n_censored", g.n_thinking_censored},
            {"n_forced", g.n_forced},
            {"survival", std::move(survival)}}},
          {"n_reached", g.n_reached},
          {"hesitations_per_1k", g.hesitations_per_1k},
          {"reask", {{"n", g.n_reasked}, {"n_correct", g.n_reask_correct}}},
          {"n_tokens", g.n_tokens}};
}

Json to_json(const NeedleCell& c) {
  return {{"suite", c.suite},
          {"arm", c.arm},
          {"language", c.language},
          {"kind", c.kind},
          {"n_tokens", c.n_tokens},
          {"depth", c.depth},
          {"n", c.n},
          {"n_correct", c.n_correct},
          {"lo", c.value.lo},
          {"hi", c.value.hi},
          {"n_reasked", c.n_reasked},
          {"n_reask_correct", c.n_reask_correct}};
}

}  // namespace assay::harness
