// assay quantize: a bf16 checkpoint to a mixed-bit VQ checkpoint.
#include "engine/quantize/quantize.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <memory>

#include "base/memory.h"
#include "base/plural.h"
#include "base/suggest.h"
#include "engine/checkpoint/checkpoint.h"
#include "harness/cli/at_least.h"
#include "harness/cli/calibration_texts.h"
#include "harness/cli/command_line.h"
#include "harness/cli/engine_flags.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/say.h"
#include "harness/cli/stage_progress.h"
#include "harness/cli/verb.h"

namespace assay::cli {
namespace {

struct Options {
  std::string model, out, recipe = "ja-1.71", calibration, compensate;
  double bits = 0;
  std::vector<std::string> tiers, settings;
  std::string uniform;
  bool naive = false, naive_down = false, scalar = false, json = false;
  int spine_bits = 0, n_threads = 0, limit = 0;
  std::uint64_t seed = 0;
};

// Each setting once, and by a name that there is.
Result<void> set_all(const std::vector<std::string>& assignments, engine::Recipe& recipe) {
  std::vector<std::string> known;
  for (const engine::SettingText& s : engine::recipe_settings()) known.push_back(s.name);
  std::map<std::string, std::string> given;
  for (const std::string& assignment : assignments) {
    const std::string name = assignment.substr(0, assignment.find('='));
    if (std::find(known.begin(), known.end(), name) == known.end())
      return fail("--set {}: unknown setting '{}'.{} assay quantize --help lists them all",
                  assignment, name, suggestion(name, known));
    if (const auto [before, is_new] = given.try_emplace(name, assignment); !is_new)
      return fail("--set {} and --set {}: one setting, given twice. Leave one out", before->second,
                  assignment);
    ASSAY_TRY_VOID(recipe.set(assignment));
  }
  return {};
}

Result<engine::Recipe> recipe_of(const Options& o) {
  ASSAY_TRY(engine::Recipe r, engine::named_recipe(o.recipe));
  if (o.bits > 0) r.bits = o.bits;
  if (o.scalar) r.tiers = engine::scalar_tiers();
  if (!o.tiers.empty()) {
    ASSAY_TRY(r.tiers, engine::tiers_named(o.tiers));
  }
  if (!o.uniform.empty()) {
    ASSAY_TRY(r.tiers, engine::tiers_named({o.uniform}));
    if (o.bits > 0)
      return fail("--uniform {} beside --bits {}: one tier has bits of its own. Leave one out",
                  o.uniform, o.bits);
    r.bits = r.tiers.front().bits();
  }
  if (o.naive) r.compensate_gate_up = r.compensate_down = false;
  if (o.naive_down) r.compensate_down = false;
  if (o.spine_bits != 0) {
    if (o.spine_bits != 4 && o.spine_bits != 8 && o.spine_bits != 16)
      return fail("--spine-bits is {}, expected 4, 8 or 16", o.spine_bits);
    r.attention_bits = r.kv_a_bits = r.dense_mlp_bits = r.shared_expert_bits = r.lm_head_bits =
        o.spine_bits;
  }
  ASSAY_TRY_VOID(set_all(o.settings, r));
  r.seed = o.seed;
  return r;
}

class StagePrinter {
 public:
  explicit StagePrinter(const engine::ModelConfig& config)
      : progress_(config.n_layers, config.first_dense_layers) {}
  void show(std::string_view stage, int done, int total) {
    say("{}", progress_.line(stage, done, total, seconds()));
    std::fflush(stderr);
  }

 private:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  StageProgress progress_;
};

// What the process held when a layer was done, and at most since the one before:
// docs/quantisation.md holds it against arithmetic.
class MemoryLog {
 public:
  explicit MemoryLog(int n_layers) : n_layers_(n_layers) {}
  void begin() { is_of_layer_ = reset_peak_memory(); }
  void note(std::string_view stage, int layer, bool print) {
    const auto use = memory_use();
    if (!use) {  // where there is no /proc the work goes on all the same
      if (is_known_) say("no figures of memory: {}\n", use.error().message);
      is_known_ = false;
      return;
    }
    layers_.push_back({{"stage", stage},
                       {"layer", layer},
                       {"resident_bytes", use->resident_bytes},
                       {"mapped_bytes", use->mapped_bytes},
                       {"peak_bytes", use->peak_bytes},
                       {"peak_is_of_layer", is_of_layer_}});
    peak_bytes_ = std::max(peak_bytes_, use->peak_bytes);
    if (print)
      say("{:<12} {} done: {:.1f} MiB resident, {:.1f} of it mapped files; peak {:.1f}\n", stage,
          layer_text(layer), mib(use->resident_bytes), mib(use->mapped_bytes),
          mib(use->peak_bytes));
  }
  const Json& layers() const { return layers_; }
  std::int64_t peak_bytes() const { return peak_bytes_; }
  static double mib(std::int64_t n_bytes) { return static_cast<double>(n_bytes) / 0x1p20; }

 private:
  std::string layer_text(int layer) const {
    return layer == n_layers_ ? "what is in no layer"
                              : fmt::format("layer {} (of 0 to {})", layer, n_layers_ - 1);
  }

  int n_layers_;
  Json layers_ = Json::array();
  std::int64_t peak_bytes_ = 0;
  bool is_known_ = true, is_of_layer_ = false;
};

void print_samples(const Json& report) {
  int least = std::numeric_limits<int>::max(), n_experts = 0, n_rare = 0;
  const int shrinkage = report["recipe"]["shrinkage"].get<int>();
  for (const Json& layer : report["samples_per_expert"])
    for (const Json& n : layer) {
      least = std::min(least, n.get<int>());
      n_rare += n.get<int>() < shrinkage;
      ++n_experts;
    }
  fmt::print(
      "  calibration {} tokens; the rarest of {} experts saw {}; {} saw fewer than {} and lean on "
      "their layer\n",
      report["calibration"]["n_tokens"].get<long>(), n_experts, least, n_rare, shrinkage);
}

void print_errors(const Json& report) {
  struct Sum {
    double error = 0;
    int n = 0;
  };
  std::map<std::string, Sum> by_kind;
  for (const auto& [module, entry] : report["modules"].items()) {
    const std::string format = entry["format"];
    const std::string kind =
        format == "vq" ? fmt::format("experts' {}, tier {}", module.substr(module.rfind('.') + 1),
                                     entry["tier"].get<std::string>())
                       : "spine, " + format;
    by_kind[kind].error += entry["relative_error"].get<double>();
    ++by_kind[kind].n;
  }
  fmt::print("\n  {:<32} {:>8}  {}\n", "form", "modules", "output error ‖(W−Q)X‖² / ‖WX‖², mean");
  for (const auto& [kind, sum] : by_kind)
    fmt::print("  {:<32} {:>8}  {:.4f}\n", kind, sum.n, sum.error / sum.n);
}

// How well the plan knew where errors would be.
void print_prediction(const Json& prediction) {
  const auto line = [](const std::string& what, const Json& of) {
    fmt::print("  {:<32} {:>8}  {:>5}  {:.2f}\n", what, of["n_modules"].get<int>(),
               of["spearman"].is_null() ? "?" : fmt::format("{:.2f}", of["spearman"].get<double>()),
               of["measured_over_predicted"].get<double>());
  };
  fmt::print("\n  {:<32} {:>8}  {:>5}  {}\n", "errors of experts' modules", "modules", "rank",
             "measured ÷ predicted   (rank: correlation of the two)");
  line("all", prediction["all"]);
  for (const auto& [projection, of] : prediction["projections"].items()) line(projection, of);
  for (const auto& [tier, of] : prediction["tiers"].items()) line("tier " + tier, of);
}

// What the plan was told that encoding leaves of its errors.
void print_kept(const Json& kept, int n_experts) {
  fmt::print("\n  kept of predicted errors, measured on {} experts a layer\n", n_experts);
  for (const auto& [projection, of_tiers] : kept["all"].items()) {
    std::string line;
    for (const auto& [tier, share] : of_tiers.items())
      line += fmt::format("  tier {} {:.2f}", tier, share.get<double>());
    fmt::print("  {:<32}{}\n", projection, line);
  }
}

std::string next_steps(const Options& o) {
  return fmt::format("\nnow: assay inspect {}\n     assay diverge {} {}\n", o.out, o.model, o.out);
}

void print_report(const Options& o, const engine::QuantizeReport& report, const MemoryLog& memory) {
  const Json& bits = report.json["expert_bits"];
  fmt::print(
      "\n{}: {:.2f} MiB of files (assay inspect counts tensors alone, without the files' "
      "headers)\n",
      o.out, MemoryLog::mib(report.n_bytes));
  fmt::print(
      "  expert weights: {:.3f} bits of code + {:.3f} of padding + {:.3f} of scales + {:.3f} of "
      "codebooks = {:.3f}\n",
      bits["code"].get<double>(), bits["padding"].get<double>(), bits["scales"].get<double>(),
      bits["codebooks"].get<double>(), bits["total"].get<double>());
  if (const int n = report.json["n_mtp_layers_left_out"].get<int>(); n > 0)
    fmt::print("  {} multi-token-prediction layer(s) of the original are left out\n", n);
  print_samples(report.json);
  print_errors(report.json);
  if (const Json& plan = report.json["allocation"]; plan.contains("kept"))
    print_kept(plan["kept"], report.json["recipe"]["kept_sample"].get<int>());
  print_prediction(report.json["allocation"]["prediction"]);
  if (!memory.layers().empty())
    fmt::print(
        "  memory: at most {:.1f} MiB resident{}\n", MemoryLog::mib(memory.peak_bytes()),
        report.is_resumed ? " in this process, which went on with an earlier one's work" : "");
  fmt::print("{}", next_steps(o));
}

struct Asked {
  engine::QuantizeInput input;
  engine::ModelConfig config;
};
Result<Asked> asked_of(const Options& o) {
  if (o.out.empty()) return fail("OUT is empty: name the folder to make");
  ASSAY_TRY_VOID(engine::check_output(o.out));
  engine::QuantizeInput in;
  in.model = o.model;
  in.out = o.out;
  ASSAY_TRY(in.recipe, recipe_of(o));
  if (const auto fits = in.recipe.check(); !fits)
    return fail("{}. Choose others with --bits, --tiers or --set", fits.error().message);
  // Before its parts are missed by name.
  ASSAY_TRY(const engine::Checkpoint checkpoint, engine::Checkpoint::open(o.model));
  warn_of_misspelt_keys(o.model, engine::misspelt_in_files(o.model, checkpoint.config()));
  in.calibration = o.calibration.empty() ? default_calibration(o.recipe) : o.calibration;
  ASSAY_TRY(in.texts, read_calibration(in.calibration, o.model, o.limit));
  in.calibration = fs::path(in.calibration).filename().string();
  in.n_threads = o.n_threads;
  return Asked{std::move(in), checkpoint.config()};
}

// An expert with `shrinkage` tokens is believed by half, the rest is its layer's Hessian.
void warn_of_few_tokens(const engine::QuantizeInput& in, const engine::ModelConfig& c) {
  std::int64_t n = 0;
  for (const engine::CalibrationText& t : in.texts) n += static_cast<std::int64_t>(t.ids.size());
  const double share = static_cast<double>(c.n_experts_per_token) / c.n_experts;
  const double of_expert = static_cast<double>(n) * share;
  if (of_expert >= in.recipe.shrinkage) return;
  say("warning: {} has {} in {}, of which an expert sees {:.0f} on average ({} of {} "
      "experts a token). With fewer than {:g} (setting shrinkage) it is quantised more by its "
      "layer's Hessian than by its own: {:.0f} tokens at least are recommended. assay calibrate "
      "makes a set\n",
      in.calibration, counted(n, "token"), counted(in.texts.size(), "text"), of_expert,
      c.n_experts_per_token, c.n_experts, in.recipe.shrinkage,
      std::ceil(in.recipe.shrinkage / share));
}

std::string settings_help() {
  std::string out = "\nSettings, --set NAME=VALUE (default): what\n";
  for (const engine::SettingText& s : engine::recipe_settings())
    out += fmt::format("  {:<22} {} ({}): {}\n", s.name, s.range, s.standard, s.meaning);
  return out;
}

std::string_view without_full_stop(std::string_view text) {
  if (text.ends_with('.')) text.remove_suffix(1);
  return text;
}

Result<int> run(const Options& o) {
  ASSAY_TRY(Asked asked, asked_of(o));
  engine::QuantizeInput& in = asked.input;
  warn_of_few_tokens(in, asked.config);
  StagePrinter printer(asked.config);
  MemoryLog memory(asked.config.n_layers);
  bool has_begun = false;
  in.on_progress = [&](std::string_view stage, int done, int total) {
    if (!has_begun) watch_interrupts();  // before, nothing is made that a signal could leave behind
    has_begun = true;
    if (!o.json) printer.show(stage, done, total);
  };
  in.on_layer = [&](std::string_view stage, int layer) {
    memory.note(stage, layer, !o.json);
    memory.begin();
  };
  in.interrupted = interrupted;
  if (!o.json)  // at 1.5 TB that takes a while
    say("reading {} once for its values, once for its fingerprint; nothing is made yet\n", o.model);
  memory.begin();
  const auto made = engine::quantize(in);
  if (!made && has_begun)
    return fail("{}. What is finished is kept in {}: the same command goes on from there",
                without_full_stop(made.error().message), o.out);
  if (!made) return tl::unexpected(made.error());
  const engine::QuantizeReport& report = *made;
  if (!report.interrupted_at.empty()) {
    say("assay quantize: interrupted with {}; {} keeps what is finished. Run the same command "
        "again to go on:\n    {}\n  What begins anew: {}.\n",
        report.interrupted_at, o.out, command_line(), report.in_hand);
    return kInterrupted;
  }
  if (report.is_finished_before) {
    if (o.json)
      std::puts(report.json.dump(2).c_str());
    else
      fmt::print("{} is finished already, from this model, calibration and settings: {}\n{}", o.out,
                 report.has_restored_config ? "its config.json was missing and is made again"
                                            : "nothing is done",
                 next_steps(o));
    return kPass;
  }
  if (o.json) {
    Json out = report.json;
    out["memory"] = memory.layers();  // not in quantisation.json, which any run makes the same
    std::puts(out.dump(2).c_str());
    return kPass;
  }
  print_report(o, report, memory);
  return kPass;
}

}  // namespace

const Verb quantize_verb{
    .name = "quantize",
    .summary = "A bf16 checkpoint to a ~1.7-bit vector-quantised one, with error compensation",
    .examples =
        "  assay quantize golden/micro-glm/model out/vq --bits 1.71\n"
        "      the recipe ja-1.71: tiers of 1, 1.5, 2 and 3 bits by sensitivity, GPTQ feedback\n"
        "  assay quantize M OUT --recipe arith-1.86        its predecessor: down_proj without "
        "feedback\n"
        "  assay quantize M OUT --calibration mine.jsonl   your own texts "
        "(docs/formats/corpus.md)\n"
        "  assay quantize M OUT --naive                    ablation: nearest codewords\n"
        "  assay quantize M OUT --scalar --bits 1.85       ablation: scalar quantisation, same "
        "feedback\n"
        "  assay quantize M OUT --set kept_sample=2        tiers by what encoding leaves of the "
        "errors "
        "predicted,\n"
        "      measured on 2 experts a layer\n"
        "  assay quantize M OUT --set temper=0 --set damping=0.05   other settings of the recipe\n"
        "      interrupted, killed? The same command goes on after the last finished piece\n",
    .setup = [](CLI::App& app) -> Action {
      auto o = std::make_shared<Options>();
      app.add_option("model", o->model, "bf16 checkpoint folder")->required();
      app.add_option("out", o->out, "Folder to make")->required();
      app.add_option("--recipe", o->recipe, "ja-1.71 or arith-1.86: settings and calibration set")
          ->capture_default_str();
      app.add_option("--bits", o->bits,
                     "Code bits per expert weight, on average over all experts, from the smallest "
                     "to the largest tier's, so 1 to 3; scales, codebooks and "
                     "padding come on top, the spine has bits of its own (default: the recipe's)")
          ->check(between(1.0, 3.0));
      app.add_option("--calibration", o->calibration,
                     "Texts for the Hessians (default: the recipe's bundled set)");
      app.add_option("--limit", o->limit, "Only the first so many texts (0: all)")
          ->check(at_least(0));
      app.add_option("--tiers", o->tiers, "Tiers to choose from: 1, 1.5, 2, 3, s1, s2, s3")
          ->delimiter(',');
      app.add_option("--uniform", o->uniform, "Ablation: one tier for every expert projection");
      app.add_flag("--naive", o->naive, "Ablation: no error feedback");
      app.add_flag("--naive-down", o->naive_down, "Ablation: no error feedback in down_proj");
      app.add_flag("--scalar", o->scalar, "Ablation: scalar tiers of 1, 2 and 3 bits");
      app.add_option("--spine-bits", o->spine_bits,
                     "All of the spine in 4, 8 or 16 bits (default: the recipe's mix)");
      app.add_option("--set", o->settings,
                     "NAME=VALUE: any other setting of the recipe, as listed below");
      app.add_option("--seed", o->seed, "Of the codebooks")
          ->check(any_seed())
          ->capture_default_str();
      app.add_option("-t,--threads", o->n_threads, "Threads (0: every usable core)")
          ->check(thread_count());
      app.add_flag("--json", o->json, "Print the report as JSON");
      app.footer(app.get_footer() + settings_help());
      return [o] { return run(*o); };
    }};

}  // namespace assay::cli
