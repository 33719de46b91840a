// assay diverge: how far a candidate's distributions are from a base's, on the same texts.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <set>
#include <system_error>

#include "base/file.h"
#include "base/plural.h"
#include "harness/cli/at_least.h"
#include "harness/cli/calibration_overlap.h"
#include "harness/cli/command_line.h"
#include "harness/cli/engine_flags.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/own_output.h"
#include "harness/cli/progress.h"
#include "harness/cli/say.h"
#include "harness/cli/verb.h"
#include "harness/divergence_result.h"
#include "harness/divergence_table.h"
#include "harness/engine_target.h"
#include "harness/step_counts.h"

namespace assay::cli {
namespace {

using harness::DivergenceBase;

struct Options {
  EngineFlags engine;  // model is the base or the candidate in turn
  std::vector<std::string> models;
  std::string texts, base, save_base, out, noise_backend, noise_kernel;
  int limit = 0, n_noise_texts = 12;
  bool json = false;
  std::vector<const CLI::Option*> of_new_base;  // what a captured base has settled
};

harness::TextHook hook_of(Bar& bar) {
  return [&bar](int n_done, int n_total) { bar.show(n_done, n_total); };
}

Result<engine::Engine> load(const EngineFlags& flags, const std::string& model,
                            std::size_t n_texts) {
  EngineFlags of = flags;
  of.model = model;
  of.n_engines =
      harness::EngineTarget::n_engines(flags.n_threads, n_texts);  // one to a text in hand
  return load_engine(of);
}

// Null if it is not asked for.
Result<Json> noise_floor(const Options& o, const engine::Engine& base, const std::string& model,
                         const std::vector<DivergenceBase::Text>& texts) {
  if (o.n_noise_texts == 0) return Json();
  EngineFlags other = o.engine;
  other.backend = !o.noise_backend.empty()          ? o.noise_backend
                  : o.engine.backend == "reference" ? "cpu"
                                                    : "reference";
  other.kernel = o.noise_kernel;
  auto loaded =
      load(other, model, std::min(texts.size(), static_cast<std::size_t>(o.n_noise_texts)));
  if (!loaded) return fail("noise floor: {}", loaded.error().message);
  const engine::Engine again = std::move(*loaded);
  const engine::EngineInfo &a = base.info(), &b = again.info();
  if (a.backend == b.backend && a.kernel == b.kernel)
    return fail(
        "noise floor: the base would be compared with itself on the same backend {} and kernel {}: "
        "name others with --noise-backend and --noise-kernel, or measure none with --noise-texts 0",
        a.backend, a.kernel);
  Bar bar(a.backend == b.backend ? "noise floor: the base against itself with another kernel"
                                 : "noise floor: the base against itself on another backend");
  return harness::noise_floor(base, again, texts, o.n_noise_texts, o.engine.n_threads,
                              hook_of(bar));
}

Result<Json> decode_noise(const Options& o, const DivergenceBase& base,
                          const engine::Engine& candidate) {
  std::optional<Bar> bar;
  if (!candidate.info().prefill_equals_decode && o.n_noise_texts > 0)
    bar.emplace("the candidate's decode against its prefill");
  return harness::decode_against_prefill(candidate, base.texts, o.n_noise_texts, o.engine.n_threads,
                                         bar ? hook_of(*bar) : harness::TextHook());
}

using Lines = std::vector<text::CorpusLine>;

void say_languages_left_out(const std::vector<text::CorpusLine>& all,
                            const std::vector<text::CorpusLine>& chosen) {
  std::set<std::string> left_out;
  for (const text::CorpusLine& line : all) left_out.insert(line.lang);
  for (const text::CorpusLine& line : chosen) left_out.erase(line.lang);
  if (!left_out.empty())
    say("--limit {} is fewer than the languages: no text in {}\n", chosen.size(),
        fmt::join(left_out, ", "));
}

Lines chosen_of(const Lines& file, int limit) {
  Lines chosen = harness::spread_by_language(file, limit);
  say_languages_left_out(file, chosen);
  return chosen;
}

// Its noise floor is not measured yet.
Result<DivergenceBase> new_base(const Options& o, const Lines& lines, const engine::Engine& base) {
  auto out = harness::new_base(lines, base);
  if (!out) return fail("{}: {}", o.texts, out.error().message);
  return out;
}

Result<int> save_base(const Options& o) {
  ASSAY_TRY(const Lines file, text::read_corpus(o.texts));
  const Lines lines = chosen_of(file, o.limit);
  ASSAY_TRY(const engine::Engine base, load(o.engine, o.models[0], lines.size()));
  ASSAY_TRY(DivergenceBase out, new_base(o, lines, base));
  ASSAY_TRY(out.noise_floor, noise_floor(o, base, o.models[0], out.texts));
  Bar bar("capturing the base");
  ASSAY_TRY_VOID(harness::capture(base, out.texts, o.engine.n_threads, hook_of(bar)));
  ASSAY_TRY_VOID(harness::write_base(o.save_base, out));
  std::size_t n = 0;
  for (const auto& t : out.texts) n += t.positions.size();
  fmt::print("{}: {} of {}, {:.2f} MiB\nnow: assay diverge --base {} CANDIDATE\n", o.save_base,
             counted(n, "position"), counted(out.texts.size(), "text"),
             static_cast<double>(fs::file_size(o.save_base)) / 0x1p20, o.save_base);
  return kPass;
}

// And how the candidate's steps ran, if it counts them, and what it was calibrated with of the
// texts.
Result<Json> result_of(const DivergenceBase& base, const engine::Engine& candidate,
                       const std::vector<harness::ScoredPosition>& positions, Json decode,
                       Json calibration) {
  ASSAY_TRY(Json out, harness::divergence_result(base, candidate, positions, std::move(decode)));
  if (!calibration.is_null()) out["calibration"] = std::move(calibration);
  if (const auto steps = candidate.all_step_counts(); steps.n_all() > 0)
    out["steps"] = harness::to_json(steps);
  return out;
}

Result<Json> compare(const Options& o) {
  if (!o.base.empty()) {
    ASSAY_TRY(const DivergenceBase base, harness::read_base(o.base));
    ASSAY_TRY(const engine::Engine candidate, load(o.engine, o.models[0], base.texts.size()));
    ASSAY_TRY_VOID(harness::check_comparable(base, candidate));
    Json calibration = calibration_overlap(candidate, base.texts, {});
    ASSAY_TRY(Json decode, decode_noise(o, base, candidate));
    Bar bar("candidate");
    ASSAY_TRY(const auto positions,
              harness::diverge_texts(base, candidate, o.engine.n_threads, hook_of(bar)));
    return result_of(base, candidate, positions, std::move(decode), std::move(calibration));
  }
  ASSAY_TRY(const Lines file, text::read_corpus(o.texts));
  const Lines lines = chosen_of(file, o.limit);
  ASSAY_TRY(const engine::Engine base, load(o.engine, o.models[0], lines.size()));
  ASSAY_TRY(const engine::Engine candidate, load(o.engine, o.models[1], lines.size()));
  ASSAY_TRY(DivergenceBase said, new_base(o, lines, base));
  ASSAY_TRY_VOID(harness::check_comparable(said, candidate));
  Json calibration = calibration_overlap(candidate, said.texts, file);
  ASSAY_TRY(said.noise_floor, noise_floor(o, base, o.models[0], said.texts));
  ASSAY_TRY(Json decode, decode_noise(o, said, candidate));
  Bar bar("base and candidate");
  ASSAY_TRY(const auto positions,
            harness::diverge_texts(base, candidate, said.texts, o.engine.n_threads, hook_of(bar)));
  return result_of(said, candidate, positions, std::move(decode), std::move(calibration));
}

std::string interrupted_words(const Options& o) {
  return fmt::format("{}assay diverge: interrupted. Nothing is kept: {}. To begin again:\n    {}\n",
                     ::isatty(STDERR_FILENO) != 0 ? "\n" : "",  // off the bar's line
                     o.save_base.empty()
                         ? "the figures are of all texts together"
                         : fmt::format("{} is written when all texts are read", o.save_base),
                     command_line());
}

Result<int> run(const Options& o) {
  if (!o.base.empty() && !o.save_base.empty())
    return fail(
        "--base and --save-base exclude each other: one reads a captured base, one makes it");
  for (const CLI::Option* option : o.of_new_base)
    if (!o.base.empty() && option->count() > 0)
      return fail(
          "{} is for capturing a base, and --base {} holds the texts and the noise floor that it "
          "was "
          "captured with: leave it out, or capture again with --save-base",
          option->get_name(), o.base);
  if (!o.base.empty() && !(o.noise_backend + o.noise_kernel).empty())
    return fail(
        "--noise-backend and --noise-kernel are for measuring the noise floor, and --base {} holds "
        "the one that was measured when it was captured: leave them out",
        o.base);
  for (const std::string& model : o.models)
    if (std::error_code ignored; o.base.empty() && fs::is_regular_file(model, ignored)) {
      const std::string& other = o.models[&model == &o.models.front() ? o.models.size() - 1 : 0];
      return fail(
          "{} is a file, expected a model's folder. A captured base is named with --base: "
          "assay diverge --base {} {}",
          model, shell_quoted(model), o.models.size() == 2 ? shell_quoted(other) : "CANDIDATE");
    }
  const std::size_t n_models = o.base.empty() && o.save_base.empty() ? 2 : 1;
  if (o.models.size() != n_models)
    return fail(
        "{} model folder(s) given, expected {}: assay diverge BASE CANDIDATE, assay diverge BASE "
        "--save-base "
        "FILE, or assay diverge --base FILE CANDIDATE",
        o.models.size(), n_models);
  if (!o.save_base.empty()) ASSAY_TRY_VOID(harness::check_no_other_file(o.save_base));
  if (!o.out.empty())
    ASSAY_TRY_VOID(check_own_json(o.out, "JSON of assay diverge", [](const Json& json) {
      return json.contains("groups") && json.contains("noise_floor");
    }));
  std::vector<fs::path> half_written;
  for (const std::string& file : {o.save_base, o.out})
    if (!file.empty()) {
      ASSAY_TRY_VOID(check_writable(file));
      half_written.push_back(temporary_of(file));
    }
  const EndAtInterrupt ends(interrupted_words(o), half_written);
  if (!o.save_base.empty()) return save_base(o);

  ASSAY_TRY(const Json out, compare(o));
  if (!o.out.empty()) ASSAY_TRY_VOID(write_file_atomic(o.out, out.dump(2) + "\n"));
  if (o.json) {
    std::puts(out.dump(2).c_str());
    return kPass;
  }
  fmt::print("\n{}", harness::render_divergence(out, ::isatty(STDOUT_FILENO) != 0));
  if (out.contains("steps"))
    fmt::print("  the candidate's steps: {}\n", harness::step_counts_text(out["steps"]));
  return kPass;
}

}  // namespace

const Verb diverge_verb{
    .name = "diverge",
    .summary = "KL divergence, top-1 agreement and perplexity of a candidate against its base",
    .examples =
        "  assay diverge golden/micro-glm/model golden/micro-glm/vq-1.71\n"
        "      per language, in thinking and in answers, with the base's noise floor\n"
        "  assay diverge BASE --save-base base.div      capture once what a large base says …\n"
        "  assay diverge --base base.div CANDIDATE      … and compare without it\n"
        "  assay diverge BASE CANDIDATE --texts mine.jsonl --json   (docs/formats/corpus.md)\n",
    .setup = [](CLI::App& app) -> Action {
      auto o = std::make_shared<Options>();
      o->texts = std::string(ASSAY_SUITES_DIR) + "/divergence/texts.jsonl.gz";
      app.add_option("models", o->models, "Base and candidate folders")->required()->expected(1, 2);
      o->of_new_base.push_back(
          app.add_option("--texts", o->texts,
                         "Chats with their replies, or texts, one JSON object a line")
              ->capture_default_str());
      app.add_option("--save-base", o->save_base,
                     "Capture the base's distributions into this file");
      app.add_option("--base", o->base, "A captured base with its texts, instead of its folder");
      o->of_new_base.push_back(
          app.add_option("--limit", o->limit,
                         "Only so many of the texts, of each language in turn (0: all)")
              ->check(at_least(0)));
      o->of_new_base.push_back(
          app.add_option(
                 "--noise-texts", o->n_noise_texts,
                 "Texts for the noise floor, the base against itself in another arithmetic, "
                 "and for the candidate's decode against its prefill where a kernel does "
                 "not promise the same bits (0: none)")
              ->check(at_least(0))
              ->capture_default_str());
      app.add_option("--noise-backend", o->noise_backend,
                     "Backend of the noise floor (default: reference, and cpu where the base runs "
                     "on reference); reference is scalar, too slow for a large base");
      app.add_option("--noise-kernel", o->noise_kernel,
                     "Kernel of the noise floor. Those of cpu promise the same bits, so cpu avx512 "
                     "against cpu avx2 checks that promise and should say 0");
      app.add_option("--out", o->out, "Write the JSON to this file too");
      add_compute_flags(app, o->engine);
      app.add_flag("--json", o->json, "Print JSON");
      return [o] { return run(*o); };
    }};

}  // namespace assay::cli
