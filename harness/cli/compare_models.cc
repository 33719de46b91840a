#include "harness/cli/compare_models.h"

#include <chrono>
#include <stop_token>
#include <thread>

#include "base/plural.h"
#include "harness/cli/command_line.h"
#include "harness/cli/engine_flags.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/plan_run.h"
#include "harness/cli/progress.h"
#include "harness/cli/run_options.h"
#include "harness/cli/say.h"
#include "harness/engine_target.h"
#include "harness/provenance.h"
#include "harness/runner.h"
#include "harness/throughput_run.h"

namespace assay::cli {
namespace {

using namespace assay::harness;

// Of decode, what a reader waits for: short and some way into a context.
const ThroughputSettings kSpeedSettings = {
    .depths = {0, 256}, .batches = {1}, .n_decode = 48, .prefill = {}, .repetitions = 0};

Result<RunOptions> options_of(const RunFolder& run) {
  if (!run.run.contains("options"))
    return fail("{}: run.json has no options, so its model is not known", run.folder);
  return merge_options(run.run.at("options"), Json::object());
}

Result<engine::Engine> load(const RunOptions& options, const RunFolder& run, int n_engines) {
  if (options.model.empty())
    return fail("{}: the run names no model folder, so it was not the embedded engine", run.folder);
  auto engine = load_engine({.model = options.model,
                             .backend = options.backend,
                             .kernel = options.kernel,
                             .attention = options.attention,
                             .n_threads = 1,
                             .tensor_parallel = options.tensor_parallel,
                             .context = options.context,
                             .n_engines = n_engines});
  if (!engine)
    return fail("the model of {} (from its run.json): {}", run.folder, engine.error().message);
  return engine;
}

// What is not as it was when the run was made; empty: all is.
std::string changed_since(const RunFolder& run, const EngineTarget& target) {
  const Json &was = run.run.at("identity"), is = target.identity();
  for (const auto& [key, value] : is.items())
    if (was.value(key, Json()) != value)
      return fmt::format(
          "{} was recorded with {} {}, and {} has {} now: both models must be as they were when "
          "they "
          "are asked again, so give each build a folder of its own",
          run.folder, key, was.value(key, Json()).dump(), target.engine().info().model_dir,
          value.dump());
  return "";
}

using Asked = std::variant<std::vector<Sample>, NoAnswer>;

Result<Asked> ask(const RunFolder& run, std::span<const std::string> keys, int n_draws,
                  const fs::path& folder) {
  ASSAY_TRY(const RunOptions options, options_of(run));
  ASSAY_TRY(PlannedRun planned, plan_run(options));
  const std::size_t n_tasks = keys.size() * static_cast<std::size_t>(n_draws);
  ASSAY_TRY(auto engine, load(options, run, EngineTarget::n_engines(options.threads, n_tasks)));
  EngineTarget target(std::move(engine), options.threads);
  if (std::string changed = changed_since(run, target); !changed.empty())
    return NoAnswer{std::move(changed)};
  planned.plan.leave_out_longer(target.max_positions());
  if (planned.plan.to_json() != run.run.at("plan"))
    return NoAnswer{fmt::format(
        "the suites are not those of {} any more (its plan differs), so it cannot be asked again",
        run.folder)};
  const Plan again = confirmation_plan(std::move(planned.plan), keys, n_draws);
  Json head = {{"options", to_json(options)},
               {"plan", again.to_json()},
               {"identity", target.identity()},
               {"provenance", make_provenance(command_line(), target.describe())}};
  ASSAY_TRY(RunRecord record, RunRecord::create(folder, std::move(head)));
  say("assay compare: asking {} {} again, for {}\n", counted(keys.size(), "case"),
      counted(n_draws, "time"), run.folder);
  ProgressPrinter printer;
  ASSAY_TRY(RunResult result,
            run_plan(again, target, record,
                     {[&](const Progress& progress) { printer.show(progress); }, interrupted}));
  if (result.interrupted) return NoAnswer{};
  return std::move(result.samples);
}

}  // namespace

Result<std::variant<Confirmation, NoAnswer>> ask_again(const RunFolder& base,
                                                       const RunFolder& candidate,
                                                       const Comparison& first, int n_draws,
                                                       const fs::path& folder) {
  const auto keys = confirm_keys(first, base.samples, candidate.samples);
  watch_interrupts();
  ASSAY_TRY(Asked of_base, ask(base, keys, n_draws, folder / "base"));
  if (auto* none = std::get_if<NoAnswer>(&of_base)) return std::move(*none);
  ASSAY_TRY(Asked of_candidate, ask(candidate, keys, n_draws, folder / "candidate"));
  if (auto* none = std::get_if<NoAnswer>(&of_candidate)) return std::move(*none);
  return confirm(first, std::get<std::vector<Sample>>(of_base),
                 std::get<std::vector<Sample>>(of_candidate));
}

Result<std::variant<Speed, NoAnswer>> clock_in_turns(const RunFolder& base,
                                                     const RunFolder& candidate,
                                                     int n_repetitions) {
  ASSAY_TRY(const RunOptions base_options, options_of(base));
  ASSAY_TRY(const RunOptions candidate_options, options_of(candidate));
  const int n_engines = EngineTarget::n_engines(1);  // its own, and the one on the clock
  ASSAY_TRY(auto base_engine, load(base_options, base, n_engines));
  ASSAY_TRY(auto candidate_engine, load(candidate_options, candidate, n_engines));
  const EngineTarget base_target(std::move(base_engine), 1),
      candidate_target(std::move(candidate_engine), 1);
  for (const auto& [run, target] :
       {std::pair{&base, &base_target}, {&candidate, &candidate_target}})
    if (std::string changed = changed_since(*run, *target); !changed.empty())
      return NoAnswer{std::move(changed)};
  ThroughputSettings settings = kSpeedSettings;
  settings.repetitions = n_repetitions;
  watch_interrupts();
  std::stop_source stop;
  ProgressPrinter printer;
  Progress progress;
  const auto start = std::chrono::steady_clock::now();
  ThroughputHooks hooks;
  hooks.on_progress = [&](int n_done, int n_total) {
    progress.n_done = n_done;
    progress.n_total = n_total;
    progress.elapsed_s =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    progress.finished = n_done == n_total;
    printer.show(progress);
    if (interrupted()) stop.request_stop();
  };
  hooks.stop = stop.get_token();
  say("assay compare: clocking both models in turns\n");
  ASSAY_TRY(const auto pair,
            run_throughput_in_turns(base_target.engine(), candidate_target.engine(), settings,
                                    candidate_options.threads, hooks));
  if (!pair) return NoAnswer{};
  return compare_throughput(pair->base, pair->candidate);
}

}  // namespace assay::cli
