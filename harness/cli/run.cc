// assay run: suites in, one verdict out.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>

#include "base/plural.h"
#include "harness/cli/check_prompts.h"
#include "harness/cli/command_line.h"
#include "harness/cli/engine_flags.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/measure.h"
#include "harness/cli/own_output.h"
#include "harness/cli/plan_run.h"
#include "harness/cli/progress.h"
#include "harness/cli/report_files.h"
#include "harness/cli/run_options.h"
#include "harness/cli/say.h"
#include "harness/cli/verb.h"
#include "harness/compare_fidelity.h"
#include "harness/console.h"
#include "harness/divergence_result.h"
#include "harness/engine_target.h"
#include "harness/golden_check.h"
#include "harness/provenance.h"
#include "harness/run_folder.h"
#include "harness/step_counts.h"
#include "harness/verdict.h"

namespace assay::cli {
namespace {

using namespace assay::harness;

EngineFlags engine_flags(const RunOptions& options, std::size_t n_tasks) {
  return {.model = options.model,
          .backend = options.backend,
          .kernel = options.kernel,
          .attention = options.attention,
          .n_threads = 1,  // the workers share it with one thread each
          .tensor_parallel = options.tensor_parallel,
          .context = options.context,
          .n_engines = EngineTarget::n_engines(options.threads, n_tasks)};
}

// That the target is given at a time.
std::size_t most_tasks(const PlannedRun& planned) {
  std::size_t most = std::max(planned.plan.items.size(), planned.golden_plan.items.size());
  for (const MeasureSuite& suite : planned.measures) {
    const auto* divergence = std::get_if<DivergenceSuite>(&suite);
    if (divergence != nullptr && supports(suite, planned.plan.options.profile))
      most = std::max(most, spread(divergence->lines,
                                   divergence->profiles.at(planned.plan.options.profile).limit)
                                .size());
  }
  return most;
}

std::string default_out(const std::vector<std::string>& suites) {
  const std::string name =
      suites.size() == 1 ? fs::path(suites[0]).filename().string() : std::string("suites");
  return fmt::format("out/{}-{}", name.empty() ? "suite" : name, utc_now_for_path());
}

Result<std::optional<RunFolder>> read_baseline(const std::string& folder) {
  if (folder.empty()) return std::nullopt;
  return read_run(folder);
}

// What a run has beside its samples.
struct Measured {
  std::vector<Measurement> measurements;
  std::vector<SkippedSuite> skipped;
  std::vector<GoldenCheck> goldens;
  std::string golden_note = {};  // why the model is held to none
};

// The model's own goldens, by folder. Read before anything is asked: a broken one costs no run.
using Goldens = std::map<fs::path, Golden>;
Result<Goldens> read_goldens(const RunOptions& options, const EngineTarget& target,
                             std::string& note) {
  Goldens goldens;
  std::error_code ignored;
  const bool are_bundled = options.golden == ASSAY_GOLDEN_DIR;
  if (options.golden == "none" || (are_bundled && !fs::exists(options.golden, ignored)))
    return goldens;
  ASSAY_TRY(const auto folders, find_goldens(options.golden, target.identity()));
  for (const fs::path& folder : folders) {
    ASSAY_TRY(goldens[folder], read_golden(folder));
  }
  if (goldens.empty()) {
    note = fmt::format("no golden below {} is of this model", options.golden);
    say("assay run: {}; assay accept RUN --into DIR/MODEL/runs/NAME makes its first\n", note);
  }
  return goldens;
}

// As far as the run asks what they hold. `plan` has the suites' own samplers: a golden's tokens are
// given, whatever this run draws.
std::vector<GoldenCheck> check_goldens(const Goldens& goldens, const Plan& plan,
                                       EngineTarget& target) {
  std::vector<GoldenCheck> checks;
  for (const auto& [folder, golden] : goldens) {
    Bar bar("assay run: golden " + golden.name);
    std::stop_source stop;
    checks.push_back(
        check_golden(golden, folder.string(), plan, target, stop.get_token(), [&](int n, int of) {
          if (interrupted()) stop.request_stop();
          bar.show(n, of);
        }));
    if (interrupted()) break;
    if (checks.back().reason.empty() && checks.back().n_replies == 0) {
      say("assay run: golden {}: this run asks none of its replies\n", golden.name);
      checks.pop_back();
    }
  }
  return checks;
}

void add_baseline(Verdict& verdict, RunExtras& extras, const Plan& plan, const RunRecord& record,
                  const RunResult& result, const RunFolder& baseline, const EngineTarget& target) {
  const Json own = {{"plan", plan.to_json()},
                    {"provenance", {{"target", target.describe()}}},
                    {"measurements", extras.measurements}};
  const std::string reason = not_comparable(baseline.run, own, baseline.samples, result.samples);
  if (!reason.empty()) return add_comparison(verdict, {}, reason);
  const Comparison compared =
      compare(baseline.samples, result.samples, rules_of(baseline.run, own));
  const Fidelity fidelity = compare_fidelity(baseline.run, own);
  add_comparison(verdict, compared, fidelity, {},
                 {shell_quoted(baseline.folder), shell_quoted(record.folder().string())});
  extras.comparison = to_json(compared, [&](int id) {
    const int one[] = {id};
    return target.engine().tokenizer().decode(one).value_or("?");
  });
  extras.comparison["baseline"] = baseline.describe();
  if (!fidelity.rows.empty()) extras.comparison["fidelity"] = to_json(fidelity);
}

Json timings_of(const RunResult& result, const engine::Engine& engine) {
  Json timings = {{"wall_s", result.wall_s}, {"n_tokens", result.n_tokens}};
  if (const auto steps = engine.all_step_counts(); steps.n_all() > 0)
    timings["steps"] = harness::to_json(steps);
  return timings;
}

void print_run(const Json& run, const fs::path& report, bool as_json) {
  if (as_json) {
    fmt::print("{}\n", run.dump(1));
    return;
  }
  std::string compare;
  if (run.contains("comparison")) {
    const Json& was = run.at("comparison").at("baseline");
    const std::string folder = was.at("folder").get<std::string>();
    const auto is = read_run_json(folder);  // from another folder it may be none, or another one
    const bool is_there =
        is && is->value("samples", Json::object()).value("hash", "") == was.value("samples", "-");
    compare = compare_command(is_there ? folder : "BASE", report.parent_path().string());
  }
  fmt::print("{}", render_console(run, {::isatty(STDOUT_FILENO) != 0, report.string(), compare}));
}

Result<int> conclude(const Plan& plan, RunRecord& record, const RunResult& result,
                     const std::optional<RunFolder>& baseline, const EngineTarget& target,
                     const Measured& measured, bool as_json) {
  const auto n_measured = std::count_if(measured.measurements.begin(), measured.measurements.end(),
                                        [](const Measurement& m) { return m.reason.empty(); });
  Verdict verdict = judge(plan, result.samples, static_cast<int>(n_measured));
  RunExtras extras;
  add_goldens(verdict, measured.goldens);
  for (const GoldenCheck& check : measured.goldens) extras.goldens.push_back(to_json(check));
  extras.golden_note = measured.golden_note;
  for (const NeedleCell& cell : needle_grid(result.samples))
    extras.needle_grid.push_back(to_json(cell));
  for (const Measurement& m : measured.measurements) extras.measurements.push_back(to_json(m));
  if (baseline) add_baseline(verdict, extras, plan, record, result, *baseline, target);
  for (const auto& [name, reason] : measured.skipped)
    extras.skipped.push_back({{"suite", name}, {"reason", reason}});
  Json metrics = Json::array();
  for (const Group& group : summarise(result.samples)) metrics.push_back(to_json(group));
  ASSAY_TRY(const Json run, record.finish(result.samples, to_json(verdict), std::move(metrics),
                                          timings_of(result, target.engine()), std::move(extras)));
  ASSAY_TRY(const fs::path report, write_report_files(record.folder(), run, result.samples));
  print_run(run, report, as_json);
  return exit_code_of(verdict.state);
}

// Lines are in the order in which replies ended; a report is in that of the plan, which says whose
// steps it draws. Of a suite that is no longer there they stay as they are.
void put_as_planned(std::vector<Sample>& samples, const Json& recorded) {
  const auto options = merge_options(recorded, Json::object());
  const auto planned = options ? plan_run(*options) : tl::unexpected(options.error());
  if (!planned) return;
  const Plan& plan = planned->plan;
  std::map<std::string, std::size_t> place;
  for (const PlanItem& item : plan.items) place.emplace(plan.key_of(item), place.size());
  const auto place_of = [&](const Sample& sample) {
    const auto found = place.find(sample.key());
    return found == place.end() ? plan.items.size() : found->second;
  };
  std::ranges::stable_sort(samples, {}, place_of);
  for (Sample& sample : samples)
    if (const std::size_t i = place_of(sample); i < plan.items.size())
      sample.drawn = plan.suite_of(plan.items[i]).draw_steps;
}

// What was asked need not be asked again, and what was measured would come out otherwise. Of what
// is written about it only what is not there is written, or was not written since.
Result<int> show_finished(RunFolder finished, bool as_json) {
  say("assay run: {} is finished: nothing is asked or measured again. Against another run it is\n"
      "  judged by assay compare BASE {}\n",
      finished.folder, shell_quoted(finished.folder));
  const Json& verdict = finished.run.at("verdict");
  try {
    if (!has_report_files(finished.folder)) {
      put_as_planned(finished.samples, finished.run.value("options", Json::object()));
      ASSAY_TRY_VOID(write_report_files(finished.folder, finished.run, finished.samples));
    }
    print_run(finished.run, fs::path(finished.folder) / "report.html", as_json);
  } catch (const Json::exception&) {  // of before some figure was recorded
    fmt::print("{}\n  its record is older than the tables of today\n",
               verdict.at("summary").get<std::string>());
  }
  return verdict.at("exit_code").get<int>();
}

Result<int> run(const Json& given, const std::string& resume, bool as_json) {
  Json recorded = Json::object();
  std::string again;  // why a finished run goes on
  if (!resume.empty()) {
    if (given.contains("out"))
      return fail("--resume {} goes on in that folder: leave --out out", resume);
    ASSAY_TRY(const Json was, read_run_json(resume));
    if (was.value("status", "") == "complete") {
      Result<RunFolder> finished = read_run(resume);
      if (given.empty() && finished) return show_finished(*std::move(finished), as_json);
      again =
          finished ? "options are given, so" : "it is not whole (what is missing is asked again):";
    }
    recorded = was.value("options", Json::object());
    ASSAY_TRY_VOID(check_recorded_paths(resume, recorded, given));
  }
  ASSAY_TRY(const RunOptions options, merge_options(recorded, given));
  ASSAY_TRY(PlannedRun planned, plan_run(options));
  Plan& plan = planned.plan;
  for (const auto& [name, reason] : planned.skipped)
    say("assay run: suite {} is left out: it {}\n", name, reason);
  ASSAY_TRY(const std::optional<RunFolder> baseline, read_baseline(options.baseline));
  if (options.model.empty()) return fail("which model? Name its folder with --model DIR.");
  ASSAY_TRY_VOID(check_base(planned.measures, options));
  ASSAY_TRY(auto engine, load_engine(engine_flags(options, most_tasks(planned))));
  EngineTarget target(std::move(engine), options.threads);
  planned.golden_plan.leave_out_longer(target.max_positions());
  if (const int n = plan.leave_out_longer(target.max_positions()); n > 0) {
    planned.skipped.push_back(
        {"needle", fmt::format("has {} longer than the model's {} positions", counted(n, "sample"),
                               target.max_positions())});
    say("assay run: {} left out: longer than the model's {} positions\n",
        n == 1 ? "1 sample is" : fmt::format("{} samples are", n), target.max_positions());
    if (plan.items.empty()) return fail("nothing is left to ask: every prompt is longer than that");
  }
  ASSAY_TRY_VOID(check_prompts(plan, options, target));
  if (baseline) {
    const std::string reason = not_comparable(baseline->run, {{"plan", plan.to_json()}}, {}, {});
    if (!reason.empty()) {
      say("assay run: not comparable with {}: {}\n", baseline->folder, reason);
      return kInvalid;
    }
  }

  Goldens goldens;
  std::string golden_note;
  if (!plan.items.empty()) {
    ASSAY_TRY(goldens, read_goldens(options, target, golden_note));
  }

  const Json head = {{"options", to_json(options)},
                     {"plan", plan.to_json()},
                     {"identity", target.identity()},
                     {"provenance", make_provenance(command_line(), target.describe())}};
  fs::path folder = !resume.empty() ? resume : options.out;
  if (folder.empty()) {
    ASSAY_TRY(folder, make_own_folder(default_out(options.suites)));
  }
  ASSAY_TRY(RunRecord record,
            resume.empty() ? RunRecord::create(folder, head) : RunRecord::resume(folder, head));
  if (!again.empty())
    say("assay run: {} is finished, but {} goldens, measurements and timings are taken again\n",
        resume, again);
  const std::string n_samples =
      plan.items.empty() ? "" : counted(plan.items.size(), "sample") + ", ";
  say("assay run: {}profile {}, into {}\n", n_samples, options.profile, folder.string());

  watch_interrupts();
  ProgressPrinter printer;
  RunResult result;
  if (!plan.items.empty()) {
    ASSAY_TRY(result,
              run_plan(plan, target, record,
                       {[&](const Progress& progress) { printer.show(progress); }, interrupted}));
  }
  Measured measured{{}, std::move(planned.skipped), {}, std::move(golden_note)};
  if (!result.interrupted) {
    measured.goldens = check_goldens(goldens, planned.golden_plan, target);
    result.interrupted = interrupted();
  }
  if (!result.interrupted) {
    ASSAY_TRY(auto done, measure(planned.measures, options, plan.options.profile, target.engine(),
                                 result.samples, interrupted));
    result.interrupted = !done.has_value();
    if (done) measured.measurements = *std::move(done);
  }
  if (result.interrupted) {
    say("assay run: interrupted after {} of {}, which are kept. Continue with\n"
        "  assay run --resume {}\n",
        result.samples.size(), counted(plan.items.size(), "sample"), shell_quoted(folder.string()));
    return kInterrupted;
  }
  // With every sample on disk, all that can have failed is the writing of the summary.
  Result<int> code = conclude(plan, record, result, baseline, target, measured, as_json);
  if (!code)
    return fail("{} All {} samples are kept; continue with --resume {}.", code.error().message,
                result.samples.size(), shell_quoted(folder.string()));
  return code;
}

Action setup(CLI::App& app) {
  struct State {
    RunFlags flags;
    std::string resume;
    bool as_json = false;
  };
  const auto state = std::make_shared<State>();
  state->flags.add_to(app);
  app.add_option("--resume", state->resume,
                 "Continue the run in this folder with its recorded options")
      ->type_name("DIR");
  app.add_flag("--json", state->as_json, "Print run.json on stdout instead of tables");
  return [state] { return run(state->flags.given(), state->resume, state->as_json); };
}

}  // namespace

const Verb run_verb = {
    "run", "Put suites to a model and say whether something regressed",
    "  assay run arithmetic --model golden/micro-glm/model\n"
    "  assay run all --model DIR --profile nightly --out out/tonight\n"
    "  assay run arithmetic --model DIR --languages ja,zh --arms thinking --limit 20\n"
    "  assay run arithmetic --model VQ --baseline out/bf16    case by case against that run\n"
    "  assay run all --model VQ --base BF16 --profile nightly    divergence from that model too\n"
    "  assay run mgsm --model DIR --data ~/mgsm   public files that are not ours to bring along\n"
    "  assay run --resume out/tonight            continue after Ctrl-C, kill -9 or a full disk\n"
    "  assay run arithmetic --model DIR --json | jq .verdict\n\n"
    "Writes run.json, samples.jsonl, report.html, junit.xml and summary.md into the output "
    "folder.\n"
    "Exit codes: 0 pass, 1 regression, 2 could not run, 3 invalid or inconclusive,\n"
    "            130 interrupted.",
    &setup};

}  // namespace assay::cli
