#include "harness/cli/attribute_trial.h"

#include <algorithm>
#include <cmath>

#include "engine/sampler.h"
#include "harness/engine_target.h"

namespace assay::cli {

using harness::Asked;

bool is_right(const harness::Sample& sample) {
  const std::string_view of = harness::class_of(sample.outcome);
  return of == "correct" || of == "answered";  // answered: nobody judges more than that
}

bool Trial::all_right() const {
  return std::all_of(asked.begin(), asked.end(), [](const Asked& a) { return is_right(a.sample); });
}

namespace {

constexpr double kImpossible = -std::numeric_limits<double>::infinity();
// Logits of so many reply tokens are held at once.
constexpr std::size_t kForcedTokens = 64;

// Calls with the logits that precede each token of `reply`.
void for_each_row(engine::Engine& engine, std::span<const int> prompt, std::span<const int> reply,
                  const std::function<void(std::size_t, std::span<const float>)>& see) {
  if (reply.empty()) return;
  engine::Sequence s = engine.new_sequence(static_cast<int>(prompt.size() + reply.size()));
  engine::Sequence* batch[] = {&s};
  s.feed(prompt);
  while (s.n_pending() > 0) engine.step(batch);
  see(0, s.logits());
  s.keep_all_logits(true);
  const auto vocab = static_cast<std::size_t>(engine.info().vocab);
  for (std::size_t at = 0; at + 1 < reply.size();) {
    s.feed(reply.subspan(at, std::min(kForcedTokens, reply.size() - 1 - at)));
    while (s.n_pending() > 0) {
      engine.step(batch);
      for (std::size_t row = 0; row < static_cast<std::size_t>(s.n_logit_rows()); ++row)
        see(++at, s.logits().subspan(row * vocab, vocab));
    }
  }
}

std::size_t parting(const std::vector<int>& a, const std::vector<int>& b) {
  const auto at = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first;
  return static_cast<std::size_t>(at - a.begin());
}

}  // namespace

Result<std::optional<std::vector<Asked>>> Trials::ask(const engine::Engine& engine) const {
  ASSAY_TRY(engine::Engine shared, engine.share(1));
  harness::EngineTarget target(std::move(shared), n_threads_);
  return harness::ask(*plan_, items_, target, {.on_progress = {}, .interrupted = interrupted_});
}

Result<void> Trials::force(const engine::Engine& shared, Trial& trial) const {
  ASSAY_TRY(engine::Engine engine, shared.share(n_threads_));
  trial.margins.clear();
  trial.logprob = 0;
  for (std::size_t c = 0; c < items_.size(); ++c) {
    const std::vector<int>& reply = base_.asked[c].sample.ids;
    const std::vector<int>& rival = candidate_.asked[c].sample.ids;
    double margin = 0;
    for_each_row(
        engine, base_.asked[c].prompt, reply, [&](std::size_t at, std::span<const float> logits) {
          const auto token = static_cast<std::size_t>(reply[at]);
          const double logprob = static_cast<double>(logits[token]) - engine::logsumexp(logits);
          trial.logprob += std::isfinite(logprob) ? logprob : kImpossible;
          if (at == partings_[c] && at < rival.size())
            margin = static_cast<double>(logits[token]) -
                     static_cast<double>(logits[static_cast<std::size_t>(rival[at])]);
        });
    trial.margins.push_back(margin);
  }
  return {};
}

Result<std::optional<Trials>> Trials::begin(const engine::Mixture& mixture,
                                            const harness::Plan& plan,
                                            std::vector<harness::PlanItem> items, int n_threads,
                                            std::function<bool()> interrupted) {
  Trials t;
  t.mixture_ = &mixture;
  t.plan_ = &plan;
  t.items_ = std::move(items);
  t.n_threads_ = n_threads;
  t.interrupted_ = std::move(interrupted);
  for (const auto& [trial, engine] :
       {std::pair{&t.base_, &mixture.base()}, std::pair{&t.candidate_, &mixture.candidate()}}) {
    ASSAY_TRY(auto asked, t.ask(*engine));
    if (!asked) return std::nullopt;
    trial->asked = *std::move(asked);
  }
  for (std::size_t c = 0; c < t.items_.size(); ++c)
    t.partings_.push_back(parting(t.base_.asked[c].sample.ids, t.candidate_.asked[c].sample.ids));
  ASSAY_TRY_VOID(t.force(mixture.base(), t.base_));
  ASSAY_TRY_VOID(t.force(mixture.candidate(), t.candidate_));
  return t;
}

Result<std::optional<bool>> Trials::reverts(std::span<const int> sites) const {
  if (interrupted_()) return std::nullopt;
  ASSAY_TRY(const engine::Engine engine, mixture_->mix(sites));
  Trial trial;
  ASSAY_TRY(auto asked, ask(engine));
  if (!asked) return std::nullopt;
  trial.asked = *std::move(asked);
  return trial.all_right();
}

double Trials::recovery_of(double logprob) const {
  const double way = base_.logprob - candidate_.logprob;
  if (logprob == kImpossible) return 0;
  if (candidate_.logprob == kImpossible) return 1;
  return std::abs(way) > 1e-9 ? (logprob - candidate_.logprob) / way : 0;
}

Result<double> Trials::recovery(std::span<const int> sites) const {
  if (interrupted_()) return 0.0;
  ASSAY_TRY(const engine::Engine engine, mixture_->mix(sites));
  Trial trial;
  ASSAY_TRY_VOID(force(engine, trial));
  return recovery_of(trial.logprob);
}

Result<std::optional<Trial>> Trials::full(std::span<const int> sites,
                                          engine::Mixture::Direction direction) const {
  if (interrupted_()) return std::nullopt;
  ASSAY_TRY(const engine::Engine engine, mixture_->mix(sites, direction));
  Trial trial;
  ASSAY_TRY(auto asked, ask(engine));
  if (!asked) return std::nullopt;
  trial.asked = *std::move(asked);
  ASSAY_TRY_VOID(force(engine, trial));
  return trial;
}

}  // namespace assay::cli
