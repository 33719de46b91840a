#include "harness/metrics.h"

#include <algorithm>

namespace assay::harness {
namespace {

bool holds(GateMetric metric, const Sample& s) {
  switch (metric) {
    case GateMetric::kAccuracy:
      return s.outcome.correctness == Correctness::kCorrect;
    case GateMetric::kClosed:
      return s.outcome.termination != Termination::kNoClose &&
             s.outcome.termination != Termination::kEosInThink && s.n_stray_tags == 0;
    case GateMetric::kStopped:
      return s.finish == "stop";
    case GateMetric::kError:
      return !s.ran() && s.finish != "non_finite";  // NaN is a regression of its own: see verdict.h
  }
  return false;
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
  std::vector<double> thinking;
  for (const Sample* s : samples) {
    ++group.classes[std::string(class_of(s->outcome))];
    ++group.termination[std::string(name_of(s->outcome.termination))];
    group.n_tokens += static_cast<long>(s->ids.size());
    if (!s->ran()) continue;
    ++group.finish[s->finish];
    if (s->outcome.termination == Termination::kClosed) ++group.n_answered;
    if (s->outcome.termination == Termination::kNoClose ||
        s->outcome.termination == Termination::kEosInThink)
      ++group.n_thinking_censored;
    else
      thinking.push_back(s->n_thinking_tokens);
  }
  if (group.n_answered > 0)
    group.accuracy_answered = static_cast<double>(group.accuracy.n_true) / group.n_answered;
  group.thinking_tokens = quantiles_of(std::move(thinking));
  return group;
}

}  // namespace

Rate rate_of(GateMetric metric, std::span<const Sample* const> samples) {
  std::vector<double> scores;
  std::vector<int> clusters;
  std::map<std::string, int> cluster_ids;
  Rate rate;
  for (const Sample* s : samples) {
    if (metric != GateMetric::kError && !s->ran()) continue;
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
            {"n_censored", g.n_thinking_censored}}},
          {"n_tokens", g.n_tokens}};
}

}  // namespace assay::harness
