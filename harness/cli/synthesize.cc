// assay synthesize: random weights in a model's shape, to be clocked before the model is here.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>

#include "base/file.h"
#include "base/json.h"
#include "base/plural.h"
#include "base/size_text.h"
#include "engine/synthetic.h"
#include "harness/cli/at_least.h"
#include "harness/cli/command_line.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/say.h"
#include "harness/cli/verb.h"

namespace assay::cli {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string config, out, tokenizer;
  int n_layers = 0, n_threads = 0;
  std::uint64_t seed = 0;
  bool json = false;
};

// Beside the config if it is there; else micro-glm's, whose vocabulary is a small one.
Result<fs::path> tokenizer_folder(const Options& o) {
  if (!o.tokenizer.empty()) return fs::path(o.tokenizer);
  std::error_code ignored;
  const fs::path given = o.config,
                 beside = fs::is_directory(given, ignored) ? given : given.parent_path(),
                 bundled = fs::path(ASSAY_GOLDEN_DIR) / "micro-glm" / "model";
  if (is_there(beside / "tokenizer.json")) return beside;
  if (is_there(bundled / "tokenizer.json")) return bundled;
  return fail(
      "there is no tokenizer.json beside {}, and none at {}: name a folder that has one, "
      "and a chat template, with --tokenizer",
      o.config, bundled.string());
}

std::string size_of(std::int64_t n_bytes) { return size_text(static_cast<double>(n_bytes)); }

Result<int> run(const Options& o) {
  ASSAY_TRY(const fs::path tokenizer, tokenizer_folder(o));
  const auto start = std::chrono::steady_clock::now();
  watch_interrupts();
  const auto summary = engine::synthesize(
      o.config, tokenizer, o.out,
      {.n_layers = o.n_layers,
       .seed = o.seed,
       .n_threads = o.n_threads,
       .stop = interrupted,
       .on_note = [](const std::string& note) { say("assay synthesize: {}\n", note); },
       .on_file =
           [](int n, int of, std::int64_t n_bytes) {
             say("assay synthesize: file {} of {}, {}\n", n, of, size_of(n_bytes));
           }});
  if (!summary && interrupted()) {
    say("assay synthesize: interrupted, and nothing of {} is left\n", o.out);
    return kInterrupted;
  }
  ASSAY_TRY(const engine::SyntheticSummary made, summary);
  const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (made.n_left_dense > 0)
    say("assay synthesize: {} have widths that the 1.71-bit release's forms do not divide, and are "
        "in bf16: the folder is larger and slower than a release would be\n",
        counted(made.n_left_dense, "projection"));
  if (o.json) {
    std::puts(Json{{"out", o.out},
                   {"n_layers", made.n_layers},
                   {"of_layers", made.of_layers},
                   {"n_files", made.n_files},
                   {"n_bytes", made.n_bytes},
                   {"n_left_dense", made.n_left_dense},
                   {"seconds", s}}
                  .dump(2)
                  .c_str());
    return kPass;
  }
  fmt::print(
      "{}: random weights in the shape of {} of {} layers, {} in {}, {:.1f} s\n"
      "  assay bench --model {}    how fast it is here\n",
      o.out, made.n_layers, made.of_layers, size_of(made.n_bytes), counted(made.n_files, "file"), s,
      shell_quoted(o.out));
  return kPass;
}

}  // namespace

const Verb synthesize_verb{
    .name = "synthesize",
    .summary =
        "Random weights in a model's shape: how fast would it be here, before it is downloaded?",
    .examples =
        "  assay synthesize docs/shapes/glm-5.2/config.json --layers 7 --out /tmp/shape\n"
        "  assay bench --model /tmp/shape --backend cuda --context 20000 --depth 0,16000\n"
        "      the first 7 of GLM-5.2's 78 layers (3 dense, 4 sparse), as the 1.71-bit release is\n"
        "      stored, 14 GB, and how fast they are\n"
        "  assay synthesize BUILD/config.json --layers 11 --out /tmp/build\n"
        "      stored as that build's quantization_config says: only its config.json is needed\n\n"
        "A whole model's time is that of two counts of layers, extended (docs/performance.md,\n"
        "\"GLM-5.2's shape\"). The folder is a checkpoint like any other and is named for what it "
        "is by\n"
        "whatever reads it: what such a model says means nothing.\n",
    .setup = [](CLI::App& app) -> Action {
      auto o = std::make_shared<Options>();
      app.add_option("config", o->config,
                     "A config.json of the glm_moe_dsa family, or a folder with one; without a "
                     "quantization_config modules are stored as the 1.71-bit release has them")
          ->required();
      app.add_option("--out", o->out, "Folder to make; must not be there, or be empty")->required();
      app.add_option("-l,--layers", o->n_layers, "The first so many of its layers (0: all)")
          ->check(at_least(0))
          ->capture_default_str();
      app.add_option("--seed", o->seed, "Of all values")->check(any_seed())->capture_default_str();
      app.add_option("--tokenizer", o->tokenizer,
                     "Folder with tokenizer.json and chat template to copy (default: beside the "
                     "config, else the bundled model's)");
      app.add_option("-t,--threads", o->n_threads, "Threads (0: every usable core)")
          ->check(thread_count())
          ->capture_default_str();
      app.add_flag("--json", o->json, "Print JSON");
      return [o] { return run(*o); };
    }};

}  // namespace assay::cli
