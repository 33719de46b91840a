// assay accept: a run's replies become the model's golden, after a look at what that changes.
#include <fmt/format.h>
#include <sys/wait.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <set>

#include "base/check.h"
#include "base/plural.h"
#include "base/suggest.h"
#include "harness/cli/at_least.h"
#include "harness/cli/command_line.h"
#include "harness/cli/engine_flags.h"
#include "harness/cli/progress.h"
#include "harness/cli/run_options.h"
#include "harness/cli/say.h"
#include "harness/cli/verb.h"
#include "harness/engine_target.h"
#include "harness/find_suites.h"
#include "harness/golden_check.h"
#include "harness/run_folder.h"

namespace assay::cli {
namespace {

using namespace assay::harness;

struct Options {
  std::string run, into, golden = ASSAY_GOLDEN_DIR, noise_backend = "reference";
  std::vector<std::string> cases;
  int n_noise_replies = 64;
  bool dry_run = false, drop = false, all = false;
};

constexpr std::size_t kManyDifferences = 20;

// What stands uncommitted in a folder; empty where there is nothing, or no repository. An error
// where git cannot say.
Result<std::string> uncommitted(const fs::path& folder) {
  const std::string command =
      fmt::format("LC_ALL=C git -C {} status --porcelain -- . 2>&1", shell_quoted(folder.string()));
  FILE* const pipe = ::popen(command.c_str(), "r");
  std::string out;
  char buffer[256];
  while (pipe != nullptr && std::fgets(buffer, sizeof buffer, pipe) != nullptr) out += buffer;
  const int status = pipe == nullptr ? -1 : ::pclose(pipe);
  if (status == 0) return out;
  if (out.find("not a git repository") != std::string::npos) return "";
  return fail(
      "{}: whether the suite is committed cannot be told, since git status ended with {}: {}",
      folder.string(), WIFEXITED(status) ? WEXITSTATUS(status) : status,
      out.empty() ? "it printed nothing" : out);
}

// The suites that the run asked, which must be what is committed now.
Result<std::vector<Suite>> clean_suites(const RunOptions& options, const Json& run) {
  ASSAY_TRY(const SuiteInputs inputs, to_suite_inputs(options));
  std::vector<Suite> suites;
  for (const Json& recorded : run.at("plan").at("suites")) {
    const std::string name = recorded.at("name").get<std::string>();
    const auto named =
        std::find_if(options.suites.begin(), options.suites.end(),
                     [&](const auto& s) { return s != name && fs::path(s).filename() == name; });
    const std::string what[] = {named == options.suites.end() ? name : *named};
    ASSAY_TRY(FoundSuites found, find_suites(what, options.suites_folder, inputs));
    if (found.suites.empty()) return fail("suite {} is no longer one of cases", name);
    Suite& suite = found.suites.front();
    if (suite.hash != recorded.at("hash"))
      return fail(
          "suite {} is not what the run asked: its files hash to {}, the run's to {}. Run it again "
          "first.",
          name, suite.hash, recorded.at("hash").get<std::string>());
    const fs::path folder =
        fs::is_directory(what[0]) ? fs::path(what[0]) : fs::path(options.suites_folder) / name;
    ASSAY_TRY(const std::string changes, uncommitted(folder));
    if (!changes.empty())
      return fail(
          "suite {} has changes that are not committed, so nobody else could repeat this golden:\n"
          "{}Commit them, run again, then accept.",
          name, changes);
    suites.push_back(std::move(suite));
  }
  return suites;
}

Result<fs::path> golden_folder(const Options& o, const Json& identity) {
  if (!o.into.empty()) return fs::path(o.into);
  ASSAY_TRY(const auto found, find_goldens(o.golden, identity));
  if (found.size() == 1) return found.front();
  if (found.empty())
    return fail(
        "no golden below {} is of this model (fingerprint {}). To make its first one, say where: "
        "--into {}/MODEL/runs/NAME",
        o.golden, identity.value("model", ""), o.golden);
  std::string names;
  for (const fs::path& folder : found) names += "\n  --into " + folder.string();
  return fail("{} goldens are of this model; say which:{}", found.size(), names);
}

// Only the replies of `cases` from `now`, the others as they were.
Result<Golden> with_cases(const Golden& was, const Golden& now,
                          const std::vector<std::string>& cases) {
  for (const auto& [what, same] : {std::pair("identity", was.identity == now.identity),
                                   std::pair("profile", was.profile == now.profile)})
    if (!same)
      return fail(
          "--case: the run's {} is not the golden's, so its replies cannot stand side by "
          "side. Accept the whole run.",
          what);
  Golden out = was;
  Json amended = now.made;
  amended["cases"] = cases;
  out.made["amended"].push_back(std::move(amended));
  std::vector<std::string> known;
  for (const auto& [key, reply] : now.replies) known.push_back(key);
  for (const std::string& written : cases) {
    int n = 0;
    for (const auto& [key, reply] : now.replies) {
      const std::string id = key.substr(key.rfind('/') + 1);
      if (key != written && id != written && id.substr(0, id.find('#')) != written) continue;
      out.replies[key] = reply;
      ++n;
    }
    if (n == 0)
      return fail("--case: the run has no reply '{}'.{}", written, suggestion(written, known));
  }
  for (const Json& suite : now.suites) {
    const auto old = std::find_if(out.suites.begin(), out.suites.end(),
                                  [&](const Json& s) { return s.at("name") == suite.at("name"); });
    if (old == out.suites.end()) {
      out.suites.push_back(suite);
    } else if (*old != suite) {
      return fail(
          "--case: suite {} has another version or sampler than in the golden. Accept the "
          "whole run.",
          suite.at("name").get<std::string>());
    }
  }
  return out;
}

std::string line_of(const GoldenDifference& d, const Target& target) {
  using Kind = GoldenDifference::Kind;
  const auto text = [&](int id) {
    return id < 0 ? std::string("(ends)") : fmt::format("'{}'", target.decode(std::span(&id, 1)));
  };
  switch (d.kind) {
    case Kind::kNew:
      return fmt::format("  new      {}\n", d.key);
    case Kind::kGone:
      return fmt::format("  gone     {}\n", d.key);
    case Kind::kChanged:
      return fmt::format("  changed  {} at token {}: {} → {}{}\n", d.key, d.position, text(d.was),
                         text(d.is),
                         d.was < 0 ? "" : fmt::format(" (led by {:.2g} nats)", d.margin));
    case Kind::kFigures:
      return fmt::format("  figures  {}: the same tokens; log p moved by {:.2g} nats at most\n",
                         d.key, d.logprob_change);
  }
  return "";
}

void show(const std::vector<GoldenDifference>& all, std::size_t n_before, const Target& target,
          bool show_all) {
  using Kind = GoldenDifference::Kind;
  const auto n = [&](Kind kind) {
    return std::count_if(all.begin(), all.end(), [&](const auto& d) { return d.kind == kind; });
  };
  const auto n_new = n(Kind::kNew);
  fmt::print("{} changed, {} with other figures only, {} new, {} gone, {} the same\n",
             counted(n(Kind::kChanged), "reply", "replies"), n(Kind::kFigures), n_new,
             n(Kind::kGone),
             static_cast<std::ptrdiff_t>(n_before + static_cast<std::size_t>(n_new) - all.size()));
  std::size_t n_shown = 0;
  for (const Kind kind : {Kind::kChanged, Kind::kGone, Kind::kFigures, Kind::kNew})
    for (const GoldenDifference& d : all) {
      if (d.kind != kind) continue;
      if (!show_all && n_shown == kManyDifferences) {
        fmt::print("  … and {} more: see all with --all\n", all.size() - n_shown);
        return;
      }
      fmt::print("{}", line_of(d, target));
      ++n_shown;
    }
}

// `arithmetic` as EngineTarget::identity names it: "cpu", "cuda", "cuda/bf16".
Result<EngineTarget> load_target(const RunOptions& options, const std::string& arithmetic) {
  const std::size_t slash = arithmetic.find('/');
  const std::string backend = arithmetic.substr(0, slash);
  const bool runs_it = backend == options.backend && !options.kernel.starts_with("bf16");
  ASSAY_TRY(auto engine,
            load_engine({.model = options.model,
                         .backend = backend,
                         .kernel = slash != std::string::npos ? arithmetic.substr(slash + 1)
                                   : runs_it                  ? options.kernel
                                                              : "",
                         .attention = options.attention,
                         .n_threads = 1,
                         .tensor_parallel = options.tensor_parallel,
                         .context = options.context,
                         .n_engines = EngineTarget::n_engines(options.threads)}));
  return EngineTarget(std::move(engine), options.threads);
}

// Why a run's replies are no evidence; empty if they are. That the golden to be replaced cannot be
// compared is no reason: it is why one accepts.
std::string why_no_evidence(const std::string& folder, const Json& run) {
  if (run.value("status", "") != "complete")
    return fmt::format("{} is not finished: continue it with assay run --resume {}", folder,
                       shell_quoted(folder));
  const Json& verdict = run.at("verdict");
  if (verdict.at("state") != "invalid") return "";
  if (verdict.at("problems").empty())
    return fmt::format("{} is not valid, so its replies are no evidence; it does not say why",
                       folder);
  for (const Json& problem : verdict.at("problems"))
    if (!problem.get<std::string>().starts_with(kGoldenNotComparable))
      return fmt::format("{} is not valid, so its replies are no evidence: {}", folder,
                         problem.get<std::string>());
  return "";
}

Result<int> accept(const Options& o) {
  if (const char* ci = std::getenv("CI"); ci != nullptr && *ci != '\0')
    return fail(
        "goldens are never written in continuous integration (CI is set): accept at a desk, look "
        "at what changes, and commit it on its own");
  ASSAY_TRY(const RunFolder folder, read_run(o.run));
  const Json& run = folder.run;
  if (const std::string reason = why_no_evidence(o.run, run); !reason.empty()) {
    say("assay accept: {}\n", reason);
    return kInvalid;  // as of assay compare: nothing can be concluded from it
  }
  const Json overridden = run.at("options");
  for (std::string flag :
       {"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens"})
    if (const Json value = overridden.value(flag, Json()); !value.is_null()) {
      std::replace(flag.begin(), flag.end(), '_', '-');
      return fail("{} was made with --{} {}: a golden has the suites' own samplers", o.run, flag,
                  value.dump());
    }
  ASSAY_TRY(const RunOptions options, merge_options(run.at("options"), Json::object()));
  ASSAY_TRY(std::vector<Suite> suites, clean_suites(options, run));
  ASSAY_TRY(const PlanOptions plan_options, to_plan_options(options));
  ASSAY_TRY(const Plan plan, make_plan(std::move(suites), plan_options));
  ASSAY_TRY(Golden golden, make_golden(run, folder.samples));
  ASSAY_TRY(const fs::path into, golden_folder(o, run.at("identity")));
  golden.name = into.filename().string();

  ASSAY_TRY(EngineTarget target, load_target(options, o.noise_backend));
  for (const auto& [part, value] : golden.identity.items())
    if (target.identity().value(part, Json()) != value)
      return fail("{} is no longer what the run asked: its {} is {}, the run's {}. Run it again.",
                  options.model, part, target.identity().value(part, Json()).dump(), value.dump());
  Golden was;
  std::error_code ignored;
  if (fs::exists(into / "golden.json", ignored)) {
    ASSAY_TRY(was, read_golden(into));
    if (was.identity.value("model", "") != golden.identity.value("model", "-"))
      return fail("{} is the golden of another model (fingerprint {}, the run's {})", into.string(),
                  was.identity.value("model", ""), golden.identity.value("model", ""));
  }
  if (!o.cases.empty()) {
    if (was.replies.empty()) return fail("--case: there is no golden in {} yet", into.string());
    ASSAY_TRY(golden, with_cases(was, golden, o.cases));
  }
  fmt::print("golden {}\n", into.string());
  const auto differences = difference_of(was, golden);
  show(differences, was.replies.size(), target, o.all);
  const auto n_gone = std::count_if(differences.begin(), differences.end(), [](const auto& d) {
    return d.kind == GoldenDifference::Kind::kGone;
  });
  if (n_gone > 0 && !o.drop) {
    const std::string why = fmt::format(
        "{} of the golden's {} replies are not in {}, which asked less: accept single cases with "
        "--case, run again what the golden was made of ({}), or let them go with --drop",
        n_gone, was.replies.size(), o.run,
        was.made.value("command", "its command is not recorded"));
    return fail("{}{}", o.dry_run ? "it would be refused: " : "", why);
  }
  if (!differences.empty())
    for (const auto& [backend, floor] : was.noise)
      if (!golden.noise.contains(backend) && backend != o.noise_backend)
        fmt::print(
            "the noise floor of {} was of other replies and is dropped: measure it again with "
            "--noise-backend {}\n",
            backend, backend);
  // The same replies: floors of other backends hold, and the run that they are of is the first.
  if (differences.empty()) {
    golden.noise = was.noise;
    if (golden.suites == was.suites) golden.made = was.made;
  }
  Bar bar(fmt::format("noise floor of {} against {}", o.noise_backend,
                      golden.made.value("backend", "")));
  ASSAY_TRY_VOID(measure_noise(golden, plan, target, o.n_noise_replies,
                               [&](int n, int of) { bar.show(n, of); }));
  const NoiseFloor& noise = golden.noise.at(target.identity().at("backend").get<std::string>());
  fmt::print(
      "noise floor of {} against {}: log p {:.2g}, margin {:.2g} nats ({} × the largest of {} "
      "tokens)\n",
      o.noise_backend, golden.made.value("backend", ""), noise.logprob, noise.margin, kNoiseFactor,
      noise.n_positions);
  if (o.dry_run) {
    fmt::print("nothing is written (--dry-run)\n");
    return kPass;
  }
  ASSAY_TRY_VOID(write_golden(into, golden));
  fmt::print("written. Commit it on its own, and say why.\n");
  return kPass;
}

Action setup(CLI::App& app) {
  const auto o = std::make_shared<Options>();
  app.add_option("run", o->run, "Folder of a complete run")->required()->type_name("RUN");
  app.add_option("--case", o->cases, "Only these: a key, or a case's id")
      ->allow_extra_args(false)
      ->type_name("ID");
  app.add_option("--into", o->into, "The golden's folder (default: the one of the run's model)")
      ->type_name("DIR");
  app.add_option("--golden", o->golden, "Where goldens lie: a folder of <model>/runs/<name>")
      ->type_name("DIR");
  app.add_option(
         "--noise-backend", o->noise_backend,
         "The other arithmetic that the noise floor is measured with: a backend, or cuda/bf16")
      ->capture_default_str();
  app.add_option("--noise-replies", o->n_noise_replies, "Replies to measure it at")
      ->check(at_least(1))
      ->capture_default_str();
  app.add_flag("--drop", o->drop, "Let replies go that the golden has and the run has not");
  app.add_flag("--dry-run", o->dry_run, "Only show what would change");
  app.add_flag("--all", o->all, "Show every difference");
  return [o] { return accept(*o); };
}

}  // namespace

const Verb accept_verb = {
    "accept", "Make a run's replies the golden that its model is held to",
    "  assay run all --model DIR --profile quick --out out/new\n"
    "  assay accept out/new --dry-run          what would change\n"
    "  assay accept out/new --case add-001-ja  only this case\n"
    "  assay accept out/new --into golden/mine/runs/first    a model's first golden\n\n"
    "Refuses in continuous integration, and where a suite is not what the run asked, or not\n"
    "committed.\n"
    "Exit codes: 0 accepted, 2 could not, 3 the run is not finished or not valid.",
    &setup};

}  // namespace assay::cli
