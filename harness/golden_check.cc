#include "harness/golden_check.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "harness/runner.h"
#include "harness/spread.h"

namespace assay::harness {
namespace {

// A reply of the golden with the prompt that this build of assay makes for it.
struct AskedReply {
  const GoldenReply* golden = nullptr;
  GivenReply given;
};

std::string key_difference(const Golden& golden, const Json& identity) {
  for (const auto& [part, value] : golden.identity.items())
    if (identity.value(part, Json()) != value)
      return fmt::format("its {} is {}, this run's {}", part, value.dump(),
                         identity.value(part, Json()).dump());
  return "";
}

std::string suite_difference(const Golden& golden, const Plan& plan) {
  for (const Json& was : golden.suites) {
    const std::string name = was.at("name").get<std::string>();
    const auto is = std::find_if(plan.suites.begin(), plan.suites.end(),
                                 [&](const Suite& suite) { return suite.name == name; });
    if (is == plan.suites.end()) continue;
    if (was.at("version") != is->version)
      return fmt::format("it was made with version {} of suite {}, this is version {}",
                         was.at("version").dump(), name, is->version);
    for (const Arm& arm : is->arms)
      if (was.at("arms").contains(arm.name) && was["arms"][arm.name] != arm.sampling->to_json())
        return fmt::format("{}/{} was sampled with {}, and is with {} now", name, arm.name,
                           was["arms"][arm.name].dump(), arm.sampling->to_json().dump());
  }
  return "";
}

// The golden's replies that the plan asks for, their prompts checked, as far as the target's
// positions hold them: a shorter --context is no change of what is computed.
Result<std::vector<AskedReply>> asked_of(const Golden& golden, const Plan& plan,
                                         const Target& target) {
  std::vector<AskedReply> out;
  for (const PlanItem& item : plan.items) {
    const std::string key = plan.key_of(item);
    const auto found = golden.replies.find(key);
    if (found == golden.replies.end()) continue;
    ASSAY_TRY(PlannedPrompt prompt, prompt_of(plan, item, target));
    if (prompt.hash != found->second.prompt_hash)
      return fail("the prompt of {} is another one now", key);
    if (prompt.ids.size() + found->second.ids.size() >
        static_cast<std::size_t>(target.max_positions()))
      continue;
    out.push_back({&found->second, {std::move(prompt.ids), found->second.ids}});
  }
  return out;
}

constexpr const char* kAcceptAgain =
    "If that is meant, look at what changes and accept it: assay accept RUN";

// How far the golden's two most likely tokens have moved towards or away from each other.
std::optional<double> margin_change(const GoldenReply& golden, int position,
                                    const StepFigures& now) {
  const auto top = golden.top.find(position);
  if (top == golden.top.end()) return std::nullopt;
  const auto logprob_of = [&](int id) -> std::optional<double> {
    for (const TopToken& t : now.top)
      if (t.id == id) return t.logprob;
    return std::nullopt;
  };
  const auto first = logprob_of(top->second[0].id), second = logprob_of(top->second[1].id);
  if (!first || !second) return std::nullopt;
  return (*first - *second) - golden.margin_at(position);
}

}  // namespace

void check_reply(const GoldenReply& golden, std::span<const StepFigures> now, GoldenCheck& check) {
  GoldenDivergence divergence;
  bool same = true;
  for (std::size_t i = 0; i < golden.ids.size(); ++i) {
    const int position = static_cast<int>(i);
    const double change = static_cast<double>(now[i].logprob) - golden.logprobs[i];
    const int was = golden.top1_at(position), is = now[i].top[0].id;
    // The golden's figures are rounded: half a unit of a change may be that.
    const double moved = std::abs(change) - GoldenReply::kLogprobUnit / 2;
    const double limit = check.noise.logprob;
    const bool tie = was != is && golden.margin_over(position, is) < check.noise.margin;
    check.n_ties += tie;
    check.max_logprob_change = std::max(check.max_logprob_change, std::abs(change));
    if (const auto change_of_margin = margin_change(golden, position, now[i]))
      check.max_margin_change = std::max(check.max_margin_change, std::abs(*change_of_margin));
    same = same && was == is && moved <= 0;
    const bool other_token = was != is && !tie;
    if (!other_token && moved <= limit) continue;
    ++divergence.n_positions;
    // Another token says more than a moved probability, and the first of them the most.
    if (divergence.n_positions > 1 && (divergence.other_token || !other_token)) continue;
    divergence.key = golden.key;
    divergence.position = position;
    divergence.other_token = other_token;
    divergence.was = was;
    divergence.is = is;
    divergence.margin = golden.margin_at(position);
    divergence.logprob_change = change;
  }
  ++check.n_replies;
  check.n_positions += static_cast<long>(golden.ids.size());
  check.n_same += same;
  if (divergence.n_positions > 0) check.divergences.push_back(std::move(divergence));
}

Result<std::vector<fs::path>> find_goldens(const fs::path& root, const Json& identity) {
  std::vector<fs::path> out;
  std::error_code error;
  if (!fs::is_directory(root, error))
    return fail("{}: expected a folder of goldens (MODEL/runs/NAME), or one golden's, found {}",
                root.string(), fs::exists(root, error) ? "a file" : "nothing");
  if (fs::exists(root / "golden.json", error)) return std::vector{root};
  for (const auto& model : fs::directory_iterator(root, error)) {
    if (!fs::is_directory(model.path() / "runs", error)) continue;
    for (const auto& run : fs::directory_iterator(model.path() / "runs", error)) {
      if (!run.is_directory()) continue;
      ASSAY_TRY(const Json head, read_golden_head(run.path()));
      if (head.value("identity", Json::object()).value("model", "") == identity.value("model", "-"))
        out.push_back(run.path());
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

GoldenCheck check_golden(const Golden& golden, const std::string& folder, const Plan& plan,
                         Target& target, const std::stop_token& stop,
                         const std::function<void(int n_done, int n_total)>& on_done) {
  GoldenCheck check;
  check.name = golden.name;
  check.folder = folder;
  const Json identity = target.identity();
  check.reason = key_difference(golden, identity);
  if (check.reason.empty()) check.reason = suite_difference(golden, plan);
  const std::string backend = identity.value("backend", "");
  if (const auto noise = golden.noise.find(backend); noise != golden.noise.end())
    check.noise = noise->second;
  else if (check.reason.empty())
    check.reason = fmt::format(
        "it has no noise floor of the backend {}: measure one with assay accept RUN "
        "--noise-backend {}",
        backend, backend);
  if (!check.reason.empty()) return check;
  auto asked = asked_of(golden, plan, target);
  if (!asked) {
    check.reason = asked.error().message + ". " + kAcceptAgain;
    return check;
  }
  check.n_left_out = static_cast<int>(golden.replies.size() - asked->size());
  std::vector<GivenReply> given;
  given.reserve(asked->size());
  for (AskedReply& one : *asked) given.push_back(std::move(one.given));
  std::vector<std::vector<StepFigures>> figures(given.size());
  int n_done = 0;
  const Result<void> scored = target.score(
      given,
      [&](std::size_t i, Result<std::vector<StepFigures>> steps) {
        ++n_done;
        if (steps) {
          figures[i] = *std::move(steps);
        } else if (check.reason.empty()) {
          check.reason = fmt::format("{}: {}", (*asked)[i].golden->key, steps.error().message);
        }
        if (on_done) on_done(n_done, static_cast<int>(given.size()));
      },
      stop);
  if (!scored) check.reason = scored.error().message;
  if (!check.reason.empty() || stop.stop_requested()) return check;
  for (std::size_t i = 0; i < given.size(); ++i)
    check_reply(*(*asked)[i].golden, figures[i], check);
  for (GoldenDivergence& d : check.divergences) {
    d.was_text = target.decode(std::span(&d.was, 1));
    d.is_text = target.decode(std::span(&d.is, 1));
  }
  return check;
}

Result<void> measure_noise(Golden& golden, const Plan& plan, Target& other, int n_replies,
                           const std::function<void(int n_done, int n_total)>& on_done) {
  ASSAY_TRY(const std::vector<AskedReply> all, asked_of(golden, plan, other));
  if (all.empty()) return fail("none of the golden's replies is asked by these suites");
  std::vector<const GoldenReply*> chosen;
  std::vector<GivenReply> given;
  for (const AskedReply& one : spread_over(all, static_cast<std::size_t>(std::max(1, n_replies)))) {
    chosen.push_back(one.golden);
    given.push_back(one.given);
  }
  GoldenCheck check;
  Result<void> failed;
  int n_done = 0;
  const Result<void> scored =
      other.score(given,
                  [&](std::size_t i, Result<std::vector<StepFigures>> steps) {
                    if (steps) {
                      check_reply(*chosen[i], *steps, check);
                    } else if (failed) {
                      failed = fail("{}: {}", chosen[i]->key, steps.error().message);
                    }
                    if (on_done) on_done(++n_done, static_cast<int>(given.size()));
                  },
                  {});
  ASSAY_TRY_VOID(scored);
  ASSAY_TRY_VOID(failed);
  const NoiseFloor floor = {
      .logprob = kNoiseFactor * std::max(check.max_logprob_change, GoldenReply::kLogprobUnit),
      .margin = kNoiseFactor * std::max(check.max_margin_change, GoldenReply::kLogprobUnit),
      .n_positions = check.n_positions};
  // Of some replies the largest change may be smaller than what was measured of more before.
  NoiseFloor& kept = golden.noise[other.identity().value("backend", "")];
  kept = {.logprob = std::max(kept.logprob, floor.logprob),
          .margin = std::max(kept.margin, floor.margin),
          .n_positions = std::max(kept.n_positions, floor.n_positions)};
  if (const std::string own = golden.made.value("backend", ""); !golden.noise.contains(own))
    golden.noise[own] = floor;
  return {};
}

void add_goldens(Verdict& verdict, std::span<const GoldenCheck> checks) {
  const bool was_invalid = verdict.state == VerdictState::kInvalid;
  // A departure first: it is one whatever another golden cannot say.
  std::vector<const GoldenCheck*> ordered;
  for (const bool comparable : {true, false})
    for (const GoldenCheck& check : checks)
      if (check.reason.empty() == comparable) ordered.push_back(&check);
  for (const GoldenCheck* one : ordered) {
    const GoldenCheck& check = *one;
    if (!check.reason.empty()) {
      verdict.problems.push_back(
          fmt::format("{} {}: {}", kGoldenNotComparable, check.folder, check.reason));
      if (verdict.state == VerdictState::kRegression) continue;
      verdict.state = VerdictState::kInvalid;
      verdict.summary = "The build of assay cannot be held against the model's golden.";
    } else if (check.diverged()) {
      const GoldenDivergence& d = check.divergences.front();
      const std::string what =
          d.other_token
              ? fmt::format("'{}' instead of '{}', which led by {:.2g} nats (noise floor {:.2g})",
                            d.is_text, d.was_text, d.margin, check.noise.margin)
              : fmt::format("log p('{}') moved by {:.2g} nats (noise floor {:.2g})", d.was_text,
                            d.logprob_change, check.noise.logprob);
      std::string sentence = fmt::format(
          "{} of {} replies of the golden {} are computed otherwise now; the first, {} at token "
          "{}: {}",
          check.divergences.size(), check.n_replies, check.name, d.key, d.position, what);
      if (was_invalid) {
        verdict.problems.push_back(std::move(sentence));
        continue;
      }
      add_regression(verdict, std::move(sentence));
      verdict.summary +=
          fmt::format(" This build of assay departs from the golden {}.", check.name);
    }
  }
}

Json to_json(const GoldenCheck& check) {
  Json divergences = Json::array();
  for (const GoldenDivergence& d : check.divergences)
    divergences.push_back({{"key", d.key},
                           {"position", d.position},
                           {"other_token", d.other_token},
                           {"was", d.was},
                           {"is", d.is},
                           {"was_text", d.was_text},
                           {"is_text", d.is_text},
                           {"margin", d.margin},
                           {"logprob_change", d.logprob_change},
                           {"n_positions", d.n_positions}});
  const char* state = !check.reason.empty() ? "not_comparable"
                      : check.diverged()    ? "diverged"
                                            : "pass";
  return {{"name", check.name},
          {"folder", check.folder},
          {"state", state},
          {"reason", check.reason},
          {"noise_floor",
           {{"logprob", check.noise.logprob},
            {"margin", check.noise.margin},
            {"n_positions", check.noise.n_positions}}},
          {"n_replies", check.n_replies},
          {"n_same", check.n_same},
          {"n_positions", check.n_positions},
          {"n_ties", check.n_ties},
          {"n_left_out", check.n_left_out},
          {"max_logprob_change", check.max_logprob_change},
          {"max_margin_change", check.max_margin_change},
          {"divergences", std::move(divergences)}};
}

}  // namespace assay::harness
