#include "harness/cli/measure.h"

#include <algorithm>
#include <chrono>
#include <stop_token>
#include <thread>

#include "harness/cli/calibration_overlap.h"
#include "harness/cli/engine_flags.h"
#include "harness/cli/progress.h"
#include "harness/divergence_result.h"
#include "harness/divergence_suite_run.h"
#include "harness/engine_target.h"
#include "harness/throughput_run.h"

namespace assay::cli {
namespace {

using namespace assay::harness;
using Clock = std::chrono::steady_clock;

// Asks for a stop when the user does.
class Watch {
 public:
  explicit Watch(const std::function<bool()>& interrupted)
      : thread_([this, &interrupted](const std::stop_token& done) {
          while (!done.stop_requested() && !stop_.stop_requested()) {
            if (interrupted()) stop_.request_stop();
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
          }
        }) {}
  std::stop_token token() const { return stop_.get_token(); }

 private:
  std::stop_source stop_;
  std::jthread thread_;  // last: it uses the source, and joins first
};

Result<std::optional<Json>> measure_throughput(const ThroughputSuite& suite, Profile profile,
                                               const RunOptions& options,
                                               const engine::Engine& engine,
                                               std::span<const Sample> samples,
                                               const std::stop_token& stop) {
  Bar bar("assay run: suite " + suite.head.name + ", by the clock");
  ThroughputHooks hooks;
  hooks.on_progress = [&](int n_done, int n_total) { bar.show(n_done, n_total); };
  hooks.stop = stop;
  ASSAY_TRY(const auto result,
            run_throughput(engine, suite.profiles.at(profile), options.threads, hooks));
  if (!result) return std::nullopt;
  std::optional<UsefulRate> useful;
  if (!samples.empty()) useful = useful_rate(samples);
  return to_json(*result, useful);
}

Result<engine::Engine> load(const RunOptions& options, const std::string& model,
                            const std::string& backend, std::size_t n_texts) {
  return load_engine({.model = model,
                      .backend = backend,
                      .kernel = backend == options.backend ? options.kernel : "",
                      .attention = options.attention,
                      .n_threads = 1,
                      .tensor_parallel = options.tensor_parallel,
                      .context = options.context,
                      .n_engines = EngineTarget::n_engines(options.threads, n_texts)});
}

// Adds what the candidate was calibrated with of the texts, if anything.
Result<std::optional<Json>> with_calibration(Result<std::optional<Json>> result,
                                             const DivergenceSuite& suite,
                                             const std::vector<text::CorpusLine>& lines,
                                             const engine::Engine& candidate) {
  if (!result || !*result) return result;
  ASSAY_TRY(const DivergenceBase judged, new_base(lines, candidate));
  Json calibration = calibration_overlap(candidate, judged.texts, suite.lines);
  if (!calibration.is_null()) (**result)["calibration"] = std::move(calibration);
  return result;
}

// `base`: a folder is a model, a file a captured base.
Result<std::optional<Json>> measure_divergence(const DivergenceSuite& suite, Profile profile,
                                               const RunOptions& options,
                                               const engine::Engine& engine,
                                               const std::stop_token& stop) {
  const DivergenceSettings& settings = suite.profiles.at(profile);
  Bar bar("assay run: suite " + suite.head.name + " against " + options.base);
  const TextHook hook = [&](int n_done, int n_total) { bar.show(n_done, n_total); };
  const std::vector<text::CorpusLine> lines = spread(suite.lines, settings.limit);
  if (fs::is_directory(options.base)) {
    const std::size_t n_texts = lines.size();
    ASSAY_TRY(const engine::Engine base, load(options, options.base, options.backend, n_texts));
    std::optional<engine::Engine> again;
    if (settings.n_noise_texts > 0) {
      ASSAY_TRY(again, load(options, options.base,
                            options.backend == "reference" ? "cpu" : "reference", n_texts));
    }
    return with_calibration(
        run_divergence(suite, settings,
                       {.loaded = &base, .loaded_again = again ? &*again : nullptr}, engine,
                       options.threads, hook, stop),
        suite, lines, engine);
  }
  ASSAY_TRY(const DivergenceBase base, read_base(options.base));
  return with_calibration(
      run_divergence(suite, settings, {.captured = &base}, engine, options.threads, hook, stop),
      suite, lines, engine);
}

Result<void> check_readable_base(const std::string& file) {
  ASSAY_TRY([[maybe_unused]] const DivergenceBase base, read_base(file));
  return {};
}

}  // namespace

Result<void> check_base(const std::vector<MeasureSuite>& suites, const RunOptions& options) {
  if (options.base.empty()) {
    // Of "all" it is left out, and on record as not run; named itself, it is asked for in vain.
    for (const MeasureSuite& suite : suites) {
      const std::string& name = head_of(suite).name;
      const bool named =
          std::find(options.suites.begin(), options.suites.end(), name) != options.suites.end();
      if (named && std::holds_alternative<DivergenceSuite>(suite))
        return fail("suite '{}' {}", name, kNoBase);
    }
    return {};
  }
  const bool used = std::any_of(suites.begin(), suites.end(), [](const MeasureSuite& suite) {
    return std::holds_alternative<DivergenceSuite>(suite);
  });
  if (!used)
    return fail("--base {}: no suite of this run compares with it. Ask for 'divergence' or 'all'.",
                options.base);
  if (const auto link = check_link(options.base); !link)
    return fail("--base {}", link.error().message);
  std::error_code ignored;
  if (!is_there(options.base))
    return fail(
        "--base {}: there is no such folder or file, expected a model's folder or a captured "
        "base (assay diverge MODEL --save-base FILE)",
        options.base);
  if (!fs::is_directory(options.base, ignored)) return check_readable_base(options.base);
  if (!fs::exists(fs::path(options.base) / "config.json", ignored))
    return fail("--base {}: expected a model's folder or a captured base, found no config.json",
                options.base);
  return {};
}

Result<std::optional<std::vector<Measurement>>> measure(const std::vector<MeasureSuite>& suites,
                                                        const RunOptions& options, Profile profile,
                                                        const engine::Engine& engine,
                                                        std::span<const Sample> samples,
                                                        const std::function<bool()>& interrupted) {
  const Watch watch(interrupted);
  std::vector<Measurement> out;
  for (const MeasureSuite& suite : suites) {
    const MeasureHead& head = head_of(suite);
    if (!supports(suite, profile)) {
      out.push_back({head, fmt::format("it has no profile {}", name_of(profile)), {}, 0});
      continue;
    }
    const auto start = Clock::now();
    const auto* throughput = std::get_if<ThroughputSuite>(&suite);
    if (!throughput && options.base.empty()) {
      out.push_back({head, std::string(kNoBase), {}, 0});
      continue;
    }
    const auto result = throughput ? measure_throughput(*throughput, profile, options, engine,
                                                        samples, watch.token())
                                   : measure_divergence(std::get<DivergenceSuite>(suite), profile,
                                                        options, engine, watch.token());
    const double wall_s = std::chrono::duration<double>(Clock::now() - start).count();
    if (!result) {  // what was asked before is not lost for it
      out.push_back({head, result.error().message, {}, wall_s});
    } else if (!*result) {
      return std::nullopt;
    } else {
      out.push_back({head, "", **result, wall_s});
    }
  }
  return out;
}

}  // namespace assay::cli
