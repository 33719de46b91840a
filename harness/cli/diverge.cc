// assay diverge: how far a candidate's distributions are from a base's, on the same texts.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>

#include "base/file.h"
#include "harness/cli/at_least.h"
#include "harness/cli/engine_flags.h"
#include "harness/cli/progress.h"
#include "harness/cli/verb.h"
#include "harness/divergence_run.h"
#include "harness/table.h"

namespace assay::cli {
namespace {

using harness::DivergenceBase;
using harness::DivergenceSummary;
using harness::Estimate;
using harness::ScoredPosition;

struct Options {
  EngineFlags engine;  // model is the base or the candidate in turn
  std::vector<std::string> models;
  std::string texts, base, save_base, out, noise_backend, noise_kernel;
  int limit = 0, n_noise_texts = 12;
  bool json = false;
  std::vector<const CLI::Option*> of_new_base;  // what a captured base has settled
};

class Progress {
 public:
  explicit Progress(const char* what) { fmt::print(stderr, "{}\n", what); }
  harness::TextHook hook() {
    return [this](int n_done, int n_total) {
      progress_.n_done = n_done;
      progress_.n_total = n_total;
      progress_.elapsed_s =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
      progress_.finished = n_done == n_total;
      printer_.show(progress_);
    };
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  harness::Progress progress_;
  ProgressPrinter printer_;
};

Result<engine::Engine> load(const EngineFlags& flags, const std::string& model) {
  EngineFlags of = flags;
  of.model = model;
  return load_engine(of);
}

Json identity(const engine::Engine& e) {
  const engine::EngineInfo& i = e.info();
  return {{"dir", i.model_dir},
          {"fingerprint", i.fingerprint},
          {"tokenizer", e.tokenizer().fingerprint()},
          {"backend", i.backend},
          {"kernel", i.kernel},
          {"attention", i.attention}};
}

// The base against itself in another arithmetic: what is below this is no news. The figures of all
// positions, and every group's in "groups"; null if it is not asked for.
Result<Json> noise_floor(const Options& o, const engine::Engine& base, const std::string& model,
                         const std::vector<DivergenceBase::Text>& texts) {
  if (o.n_noise_texts == 0) return Json();
  EngineFlags other = o.engine;
  other.backend = !o.noise_backend.empty()          ? o.noise_backend
                  : o.engine.backend == "reference" ? "cpu"
                                                    : "reference";
  other.kernel = o.noise_kernel;
  auto loaded = load(other, model);
  if (!loaded) return fail("noise floor: {}", loaded.error().message);
  const engine::Engine again = std::move(*loaded);
  const engine::EngineInfo &a = base.info(), &b = again.info();
  if (a.backend == b.backend && a.kernel == b.kernel)
    return fail(
        "noise floor: the base would be compared with itself on the same backend {} and kernel {}: "
        "name others with --noise-backend and --noise-kernel, or measure none with --noise-texts 0",
        a.backend, a.kernel);
  std::vector<DivergenceBase::Text> some;
  const auto n = std::min<std::size_t>(texts.size(), static_cast<std::size_t>(o.n_noise_texts));
  for (std::size_t i = 0; i < n; ++i) some.push_back(texts[i * texts.size() / n]);
  const bool is_other_kernel = a.backend == b.backend;
  Progress progress(is_other_kernel ? "noise floor: the base against itself with another kernel"
                                    : "noise floor: the base against itself on another backend");
  ASSAY_TRY(const auto positions,
            harness::diverge_texts(base, again, some, o.engine.n_threads, progress.hook()));
  const std::vector<DivergenceSummary> summaries = harness::summarise(positions);
  Json out = to_json(summaries.front());  // all × all
  const auto name = [&](const engine::EngineInfo& i) {
    return is_other_kernel ? i.backend + " " + i.kernel : i.backend;
  };
  out["between"] = {name(a), name(b)};
  out["groups"] = Json::array();
  for (const DivergenceSummary& s : summaries) out["groups"].push_back(to_json(s));
  return out;
}

// "± ?" where the error is not known, which is not an error of 0.
std::string error_of(const Estimate& e) { return e.error ? fmt::format("{:.2g}", *e.error) : "?"; }
std::string shown(const Estimate& e) { return fmt::format("{:.4g} ± {}", e.value, error_of(e)); }

Estimate percent(Estimate e) {
  e.value *= 100;
  if (e.error) *e.error *= 100;
  return e;
}

void print_table(const std::vector<DivergenceSummary>& summaries) {
  fmt::print("\n  {:<5} {:<9} {:>6} {:>9}  {:<20} {:<20} {:<18} {:<20} {}\n", "lang", "part",
             "texts", "positions", "KLD mean (nats)", "KLD 99 %", "same top-1 (%)", "RMS Δp (%)",
             "perplexity ratio");
  for (const DivergenceSummary& s : summaries) {
    const Estimate top1 = percent(s.top1_agreement);
    fmt::print("  {:<5} {:<9} {:>6} {:>9}  {:<20} {:<20} {:<18} {:<20} {}\n", s.lang, s.part,
               s.n_texts, s.n_positions, shown(s.kld_mean), shown(s.kld_p99),
               fmt::format("{:.2f} ± {}", top1.value, error_of(top1)),
               shown(percent(s.delta_p_rms)),
               fmt::format("{:.5f} ± {}", s.perplexity_ratio.value, error_of(s.perplexity_ratio)));
  }
  const DivergenceSummary& all = summaries.front();
  fmt::print(
      "\n  all positions: KLD median {}, 90 % {}, 95 % {}, 99.9 % {}, largest of {} {:.4g}\n",
      shown(all.kld_median), shown(all.kld_p90), shown(all.kld_p95), shown(all.kld_p999),
      all.n_positions, all.kld_max.value);
  fmt::print("                 mean Δp {} %, perplexity {:.4f} → {:.4f}\n",
             shown(percent(all.delta_p_mean)), all.perplexity_base.value,
             all.perplexity_candidate.value);
}

struct Inputs {
  DivergenceBase base;
  std::vector<ScoredPosition> positions;
  Json candidate;
};

constexpr std::size_t kWorst = 20;
constexpr std::size_t kContextTokens = 12;

// Where the distributions are furthest apart, and what was being said there.
Result<Json> worst_positions(const Options& o, const Inputs& in) {
  std::vector<const ScoredPosition*> worst;
  for (const ScoredPosition& p : in.positions) worst.push_back(&p);
  const auto n = std::min(kWorst, worst.size());
  std::partial_sort(worst.begin(), worst.begin() + static_cast<std::ptrdiff_t>(n), worst.end(),
                    [](const auto* a, const auto* b) {
                      return std::pair(-a->d.kld, std::pair(a->text, a->token)) <
                             std::pair(-b->d.kld, std::pair(b->text, b->token));
                    });
  ASSAY_TRY(const text::Tokenizer tokenizer,
            text::Tokenizer::load(fs::path(o.models.back()) / "tokenizer.json"));
  Json out = Json::array();
  for (std::size_t i = 0; i < n; ++i) {
    const ScoredPosition& p = *worst[i];
    const DivergenceBase::Text& text = in.base.texts[static_cast<std::size_t>(p.text)];
    const std::span<const int> ids = text.ids;
    const auto at = static_cast<std::size_t>(p.token);
    const std::size_t n_before = std::min(at, kContextTokens);
    ASSAY_TRY(std::string before, tokenizer.decode(ids.subspan(at - n_before, n_before)));
    ASSAY_TRY(std::string next, tokenizer.decode(ids.subspan(at, 1)));
    out.push_back({{"text", text.id},
                   {"lang", p.lang},
                   {"part", p.part == harness::TextPart::kThinking ? "thinking" : "answer"},
                   {"token", p.token},
                   {"kld", p.d.kld},
                   {"nll_base", p.d.nll_base},
                   {"nll_candidate", p.d.nll_candidate},
                   {"before", std::move(before)},
                   {"next", std::move(next)}});
  }
  return out;
}

// Its noise floor is not measured yet.
Result<DivergenceBase> new_base(const Options& o, const engine::Engine& base) {
  ASSAY_TRY(std::vector<text::CorpusLine> lines, text::read_corpus(o.texts));
  if (o.limit > 0 &&
      static_cast<std::size_t>(o.limit) < lines.size()) {  // evenly, for every language
    std::vector<text::CorpusLine> some;
    for (std::size_t i = 0; i < static_cast<std::size_t>(o.limit); ++i)
      some.push_back(lines[i * lines.size() / static_cast<std::size_t>(o.limit)]);
    lines = std::move(some);
  }
  DivergenceBase out;
  out.vocab = base.info().vocab;
  out.model = identity(base);
  auto texts = harness::tokenize_texts(lines, base);
  if (!texts) return fail("{}: {}", o.texts, texts.error().message);
  out.texts = std::move(*texts);
  return out;
}

// A candidate with another tokenizer would be judged on other texts. Asked before the work begins.
Result<void> check_comparable(const DivergenceBase& base, const engine::Engine& candidate) {
  const std::string of_base = base.model.value("tokenizer", ""),
                    here = candidate.tokenizer().fingerprint();
  if (of_base != here)
    return fail(
        "the candidate's tokenizer ({}) is not the base's ({}): their tokens cannot be compared",
        here, of_base);
  return harness::check_lengths(base.texts, candidate);
}

Result<int> save_base(const Options& o) {
  ASSAY_TRY(const engine::Engine base, load(o.engine, o.models[0]));
  ASSAY_TRY(DivergenceBase out, new_base(o, base));
  ASSAY_TRY(out.noise_floor, noise_floor(o, base, o.models[0], out.texts));
  Progress progress("capturing the base");
  ASSAY_TRY_VOID(harness::capture(base, out.texts, o.engine.n_threads, progress.hook()));
  ASSAY_TRY_VOID(harness::write_base(o.save_base, out));
  std::size_t n = 0;
  for (const auto& t : out.texts) n += t.positions.size();
  fmt::print("{}: {} positions of {} texts, {:.2f} MiB\nnow: assay diverge --base {} CANDIDATE\n",
             o.save_base, n, out.texts.size(),
             static_cast<double>(fs::file_size(o.save_base)) / 0x1p20, o.save_base);
  return kPass;
}

Result<Inputs> compare(const Options& o) {
  Inputs in;
  if (!o.base.empty()) {
    ASSAY_TRY(in.base, harness::read_base(o.base));
    ASSAY_TRY(const engine::Engine candidate, load(o.engine, o.models[0]));
    ASSAY_TRY_VOID(check_comparable(in.base, candidate));
    in.candidate = identity(candidate);
    Progress progress("candidate");
    ASSAY_TRY(in.positions,
              harness::diverge_texts(in.base, candidate, o.engine.n_threads, progress.hook()));
    return in;
  }
  ASSAY_TRY(const engine::Engine base, load(o.engine, o.models[0]));
  ASSAY_TRY(const engine::Engine candidate, load(o.engine, o.models[1]));
  ASSAY_TRY(in.base, new_base(o, base));
  ASSAY_TRY_VOID(check_comparable(in.base, candidate));
  ASSAY_TRY(in.base.noise_floor, noise_floor(o, base, o.models[0], in.base.texts));
  in.candidate = identity(candidate);
  Progress progress("base and candidate");
  ASSAY_TRY(in.positions, harness::diverge_texts(base, candidate, in.base.texts, o.engine.n_threads,
                                                 progress.hook()));
  return in;
}

// Newlines made visible, and cut to `width` cells of a terminal: at its end, or at its beginning.
std::string one_line(std::string_view utf8, int width, bool keep_end) {
  std::vector<std::string> characters;
  for (std::size_t at = 0; at < utf8.size();) {
    std::size_t end = at + 1;
    while (end < utf8.size() && (static_cast<unsigned char>(utf8[end]) & 0xC0) == 0x80) ++end;
    const std::string_view c = utf8.substr(at, end - at);
    characters.emplace_back(c == "\n"                                                ? "⏎"
                            : c.size() == 1 && static_cast<unsigned char>(c[0]) < 32 ? " "
                                                                                     : c);
    at = end;
  }
  if (keep_end) std::reverse(characters.begin(), characters.end());
  std::size_t n = 0;
  for (int used = 0; n < characters.size(); ++n) {
    used += harness::display_width(characters[n]);
    if (used > width) break;
  }
  const bool is_cut = n < characters.size();
  characters.resize(n);
  if (is_cut) characters.emplace_back("…");
  if (keep_end) std::reverse(characters.begin(), characters.end());
  return fmt::format("{}", fmt::join(characters, ""));
}

void print_worst(const Json& worst) {
  constexpr std::size_t kShown = 5;
  constexpr int kBeforeWidth = 40, kNextWidth = 16;
  fmt::print("\n  furthest apart (KLD, where, text before → the token that follows there):\n");
  for (std::size_t i = 0; i < std::min(kShown, worst.size()); ++i) {
    const Json& w = worst[i];
    fmt::print("  {:>8.3g}  {:<10} {:<3} {:<8}  {} → {}\n", w["kld"].get<double>(),
               w["text"].get<std::string>(), w["lang"].get<std::string>(),
               w["part"].get<std::string>(),
               one_line(w["before"].get<std::string>(), kBeforeWidth, true),
               one_line(w["next"].get<std::string>(), kNextWidth, false));
  }
}

// What capturing the base costs, or may have cost.
void print_capture(const DivergenceSummary& all) {
  if (all.coarsening)
    fmt::print("  from a captured base (--save-base) mean KLD would read {:.3g} less\n",
               *all.coarsening);
  else
    fmt::print(
        "  the base is captured, its {} likeliest tokens and the rest as one, so KLD is a lower "
        "bound;\n  the part lumped together has mean mass {:.3g}, and mean KLD is at most {:.3g}\n",
        harness::BasePosition::kTop, all.tail_mass, all.kld_mean_at_most.value_or(0));
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
  const std::size_t n_models = o.base.empty() && o.save_base.empty() ? 2 : 1;
  if (o.models.size() != n_models)
    return fail(
        "{} model folder(s) given, expected {}: assay diverge BASE CANDIDATE, assay diverge BASE "
        "--save-base "
        "FILE, or assay diverge --base FILE CANDIDATE",
        o.models.size(), n_models);
  for (const std::string& file : {o.save_base, o.out})
    if (!file.empty()) ASSAY_TRY_VOID(check_writable(file));
  if (!o.save_base.empty()) return save_base(o);

  ASSAY_TRY(const Inputs in, compare(o));
  const std::vector<DivergenceSummary> summaries = harness::summarise(in.positions);
  Json out = {{"base", in.base.model},
              {"candidate", in.candidate},
              {"noise_floor", in.base.noise_floor},
              {"groups", Json::array()}};
  for (const DivergenceSummary& s : summaries) out["groups"].push_back(to_json(s));
  ASSAY_TRY(out["worst"], worst_positions(o, in));
  if (!o.out.empty()) ASSAY_TRY_VOID(write_file_atomic(o.out, out.dump(2) + "\n"));
  if (o.json) {
    std::puts(out.dump(2).c_str());
    return kPass;
  }
  fmt::print(
      "\n  KL(base ‖ candidate), teacher-forced on the reply tokens; ± is one standard error over "
      "texts (± ?: of one text, unknown)\n");
  fmt::print("  base       {}\n  candidate  {}\n", in.base.model.value("dir", ""),
             in.candidate.value("dir", ""));
  print_table(summaries);
  print_worst(out["worst"]);
  fmt::print("\n");
  print_capture(summaries.front());
  if (!in.base.noise_floor.is_null())
    fmt::print("  noise floor of the base ({} against {}): KLD mean {:.2g}, same top-1 {:.2f} %\n",
               in.base.noise_floor["between"][0].get<std::string>(),
               in.base.noise_floor["between"][1].get<std::string>(),
               in.base.noise_floor["kld"]["mean"]["value"].get<double>(),
               100 * in.base.noise_floor["top1_agreement"]["value"].get<double>());
  if (in.candidate.value("backend", "") == "cpu")
    fmt::print(
        "  decode against prefill: the same bits on this backend, so it has no noise of its own\n");
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
          app.add_option("--limit", o->limit, "Only so many of the texts (0: all)")
              ->check(at_least(0)));
      o->of_new_base.push_back(
          app.add_option("--noise-texts", o->n_noise_texts,
                         "Texts for the noise floor, the base against itself in another arithmetic "
                         "(0: none)")
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
