// assay attribute: which weights of the base make a broken case of the candidate right again.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <memory>

#include "base/file.h"
#include "base/shortened.h"
#include "base/suggest.h"
#include "engine/mixture.h"
#include "harness/attribution_result.h"
#include "harness/cli/at_least.h"
#include "harness/cli/attribute_trial.h"
#include "harness/cli/engine_flags.h"
#include "harness/cli/own_output.h"
#include "harness/cli/say.h"
#include "harness/cli/verb.h"
#include "harness/engine_target.h"
#include "harness/find_suites.h"

namespace assay::cli {
namespace {

using namespace assay::harness;

volatile std::sig_atomic_t interrupt_signal = 0;

// The first Ctrl-C ends the search in order; a second one ends the process at once.
void on_interrupt(int signal) {
  interrupt_signal = 1;
  std::signal(signal, SIG_DFL);
}
bool is_interrupted() { return interrupt_signal != 0; }

struct Options {
  EngineFlags engine;
  std::string base, candidate, suites_folder, out;
  std::vector<std::string> cases;
  std::uint64_t seed = 0;
  int max_tests = 500;
  bool json = false;
};

// Everything that the suites of these keys ask; of a bare id, that any suite does.
Result<Plan> plan_for(const Options& o) {
  std::vector<std::string> names;
  for (const std::string& written : o.cases) {
    const std::size_t slash = written.find('/');
    const std::string name = slash == std::string::npos ? "all" : written.substr(0, slash);
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  if (std::find(names.begin(), names.end(), "all") != names.end()) names = {"all"};
  ASSAY_TRY(FoundSuites found, find_suites(names, o.suites_folder));
  std::erase_if(found.suites, [](const Suite& suite) {
    return std::find(suite.profiles.begin(), suite.profiles.end(), Profile::kFull) ==
           suite.profiles.end();
  });
  PlanOptions options;
  options.profile = Profile::kFull;
  options.seed = o.seed;
  return make_plan(std::move(found.suites), options);
}

Result<PlanItem> find_item(const Plan& plan, const std::string& written) {
  std::vector<PlanItem> matches;
  std::vector<std::string> keys, known;
  for (const PlanItem& item : plan.items) {
    const std::string key = plan.key_of(item), &id = plan.case_of(item).id;
    known.push_back(written.find('/') == std::string::npos ? id : key);
    if (key != written && id != written) continue;
    matches.push_back(item);
    keys.push_back(key);
  }
  if (matches.size() == 1) return matches[0];
  if (matches.empty()) {
    const std::string near = nearest(written, known);
    return fail("--case: there is no case '{}'.{} samples.jsonl of a run holds suite, arm and id.",
                written, near.empty() ? "" : fmt::format(" Did you mean '{}'?", near));
  }
  return fail("--case: '{}' is asked in {} ways: {}. Name one.", written, keys.size(),
              shortened(keys));
}

// Why there is nothing to attribute; empty: there is.
std::string nothing_to_attribute(const engine::Mixture& mixture, const Trials& trials) {
  const auto &base = trials.base().asked, &candidate = trials.candidate().asked;
  for (std::size_t c = 0; c < base.size(); ++c) {
    const Sample &b = base[c].sample, &k = candidate[c].sample;
    if (!is_right(b))
      return fmt::format("{}: the base itself is not right ({}{})", b.key(), class_of(b.outcome),
                         b.error.empty() ? "" : ": " + b.error);
    if (base[c].prompt != candidate[c].prompt)
      return fmt::format(
          "{}: the two are asked in other tokens: their tokenizer or chat template differs, which "
          "comes before any weight",
          b.key());
    if (is_right(k))
      return fmt::format("{}: the candidate is right as well ({})", k.key(), class_of(k.outcome));
  }
  if (mixture.differing().empty())
    return "the two models have the same weights and settings, to the bit";
  return "";
}

AttributionEvidence evidence(std::string model, const Trial& trial, const Trials& trials) {
  AttributionEvidence out{.model = std::move(model)};
  for (std::size_t c = 0; c < trial.asked.size(); ++c) {
    const Sample& s = trial.asked[c].sample;
    out.answers.push_back({s.key(), s.answer, std::string(class_of(s.outcome)), trial.margins[c]});
  }
  out.all_right = trial.all_right();
  out.logprob = trial.logprob;
  out.recovery = trials.recovery_of(trial.logprob);
  return out;
}

std::vector<AttributionCase> describe(const Trials& trials, const engine::Engine& engine) {
  std::vector<AttributionCase> out;
  for (std::size_t c = 0; c < trials.base().asked.size(); ++c) {
    const Sample &b = trials.base().asked[c].sample, &k = trials.candidate().asked[c].sample;
    const std::size_t at = trials.partings()[c];
    const auto text = [&](const std::vector<int>& ids) {
      return at < ids.size()
                 ? engine.tokenizer().decode(std::span(ids).subspan(at, 1)).value_or("?")
                 : std::string();
    };
    out.push_back(
        {b.key(), b.question, b.expected, static_cast<int>(at), text(b.ids), text(k.ids)});
  }
  return out;
}

Result<Attribution> search(const std::vector<SitePath>& paths, const Trials& trials,
                           int max_tests) {
  int n = 0;
  return attribute(
      paths,
      {.reverts = [&](std::span<const int> sites) -> Result<std::optional<bool>> {
         ASSAY_TRY(const std::optional<bool> right, trials.reverts(sites));
         if (right)
           say("  test {}: {} of the base's tensors: {}\n", ++n, sites.size(),
               *right ? "right" : "wrong");
         return right;
       },
       .recovery = [&](std::span<const int> sites) { return trials.recovery(sites); },
       .on_level = [](std::string_view level,
                      std::size_t n_groups) { say("by {}: {} groups\n", level, n_groups); }},
      max_tests);
}

Result<void> add_evidence(AttributionReport& report, const Trials& trials) {
  report.evidence.push_back(evidence("base", trials.base(), trials));
  report.evidence.push_back(evidence("candidate", trials.candidate(), trials));
  if (!report.attribution.reverts) return {};
  using Direction = engine::Mixture::Direction;
  for (const auto& [name, direction] :
       {std::pair{"candidate with the base's", Direction::kBaseIntoCandidate},
        std::pair{"base with the candidate's", Direction::kCandidateIntoBase}}) {
    ASSAY_TRY(const auto trial, trials.full(report.attribution.sites, direction));
    if (trial) report.evidence.push_back(evidence(name, *trial, trials));
  }
  return {};
}

Result<int> run(const Options& o) {
  if (!o.out.empty())
    ASSAY_TRY_VOID(check_own_json(o.out, "JSON of assay attribute", [](const Json& json) {
      return json.contains("reverts") && json.contains("evidence");
    }));
  ASSAY_TRY(const Plan plan, plan_for(o));
  std::vector<PlanItem> items;
  for (const std::string& written : o.cases) {
    ASSAY_TRY(const PlanItem item, find_item(plan, written));
    items.push_back(item);
  }
  EngineFlags flags = o.engine;
  flags.n_engines =  // of each mixture
      1 + harness::EngineTarget::n_engines(o.engine.n_threads, items.size());
  ASSAY_TRY(const engine::EngineOptions engine_opts, engine_options(flags));
  ASSAY_TRY(const engine::Mixture mixture, engine::Mixture::open(o.base, o.candidate, engine_opts));
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  say("assay attribute: {} tensors differ; asking both models\n", mixture.differing().size());
  ASSAY_TRY(const std::optional<Trials> begun,
            Trials::begin(mixture, plan, items, o.engine.n_threads, is_interrupted));
  if (!begun) {
    say("assay attribute: interrupted before both models had answered\n");
    return kInterrupted;
  }
  const Trials& trials = *begun;

  AttributionReport report{.base = o.base, .candidate = o.candidate};
  report.cases = describe(trials, mixture.base());
  report.n_sites = static_cast<int>(mixture.differing().size());
  const std::string nothing = nothing_to_attribute(mixture, trials);
  if (nothing.empty()) {
    std::vector<SitePath> paths;
    for (const engine::WeightSite& site : mixture.differing()) paths.push_back(site.path());
    ASSAY_TRY(report.attribution, search(paths, trials, o.max_tests));
    report.found = names_of(paths, report.attribution.sites);
  }
  ASSAY_TRY_VOID(add_evidence(report, trials));
  report.interrupted = is_interrupted();

  Json json = to_json(report);
  json["nothing_to_attribute"] = nothing.empty() ? Json() : Json(nothing);
  if (!o.out.empty()) ASSAY_TRY_VOID(write_file_atomic(o.out, json.dump(2) + "\n"));
  if (o.json) {
    fmt::print("{}\n", json.dump(2));
  } else if (nothing.empty()) {
    fmt::print("{}", render_attribution(report, ::isatty(STDOUT_FILENO) != 0));
  }
  if (!nothing.empty()) say("assay attribute: nothing to attribute: {}\n", nothing);
  if (report.interrupted) return kInterrupted;
  return report.attribution.reverts ? kPass : kInvalid;
}

}  // namespace

const Verb attribute_verb{
    .name = "attribute",
    .summary = "Which weights of a base make a broken case of a candidate right again",
    .examples =
        "  assay attribute BF16 VQ --case arithmetic/direct/add-001-ja\n"
        "      by layer, part, expert and projection, the smallest set found and its evidence\n"
        "  assay attribute BF16 VQ --case arithmetic/direct/add-001-ja --case facts/direct/x\n"
        "      what mends both at once\n"
        "  assay attribute LAST NEW --case facts/direct/x --json --out why.json\n\n"
        "The base must be right in the case and the candidate wrong, as `assay run` asks it.\n"
        "Exit codes: 0 found, 2 could not run, 3 nothing to attribute (or not to weights),\n"
        "            130 interrupted: what was found so far is printed.",
    .setup = [](CLI::App& app) -> Action {
      auto o = std::make_shared<Options>();
      o->suites_folder = ASSAY_SUITES_DIR;
      app.add_option("base", o->base, "Folder of the model that is right")
          ->required()
          ->type_name("BASE");
      app.add_option("candidate", o->candidate, "Folder of the model that is wrong")
          ->required()
          ->type_name("CANDIDATE");
      app.add_option("--case", o->cases,
                     "SUITE/ARM/CASE as in samples.jsonl, or a case's id (repeat: all must mend)")
          ->required()
          ->allow_extra_args(false)
          ->type_name("ID");
      app.add_option("--seed", o->seed, "Seed of the run (default 0)")
          ->check(any_seed())
          ->type_name("N");
      app.add_option("--suites", o->suites_folder, "Folder of the suites")->type_name("DIR");
      app.add_option("--max-tests", o->max_tests, "Replies before the search ends with what it has")
          ->check(at_least(1))
          ->capture_default_str();
      app.add_option("--out", o->out, "Write the JSON to this file too")->type_name("FILE");
      add_compute_flags(app, o->engine);
      app.add_flag("--json", o->json, "Print JSON");
      return [o] { return run(*o); };
    }};

}  // namespace assay::cli
