// assay compare: what regressed between two runs, how sure that is, and what would have shown.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <variant>

#include "engine/text/tokenizer.h"
#include "harness/cli/at_least.h"
#include "harness/cli/command_line.h"
#include "harness/cli/compare_models.h"
#include "harness/cli/own_output.h"
#include "harness/cli/say.h"
#include "harness/cli/verb.h"
#include "harness/compare_fidelity.h"
#include "harness/compare_table.h"
#include "harness/own_failures.h"
#include "harness/provenance.h"
#include "harness/releases_table.h"
#include "harness/table.h"
#include "harness/verdict.h"

namespace assay::cli {
namespace {

using namespace assay::harness;

struct Options {
  std::vector<std::string> runs;
  bool confirm = false, speed = false, json = false, every_row = false;
  int n_draws = kConfirmDraws, n_repetitions = 10;
  int n_flips = 5;
  std::string out, confirm_out;
};

bool on_terminal() { return ::isatty(STDOUT_FILENO) != 0; }

// Where the model of a run still lies, its tokens can be shown as text; else why they cannot.
struct Tokens {
  TokenText text;
  std::string why_none;
};

Tokens tokens_of(const RunFolder& run) {
  const std::string model = run.run.value("options", Json::object()).value("model", "");
  if (model.empty()) return {{}, fmt::format("{} names no model's folder", run.folder)};
  const fs::path file = fs::path(model) / "tokenizer.json";
  std::error_code ignored;
  if (!fs::exists(file, ignored))
    return {
        {},
        fmt::format("the model's tokenizer was not found at {}{}. {}",
                    fs::absolute(file, ignored).string(),
                    file.is_relative() ? fmt::format(" ({} has a relative path)", run.folder) : "",
                    file.is_relative() ? "Compare in the folder where that run was started"
                                       : "Put the model back, or a link to where it is now")};
  auto tokenizer = text::Tokenizer::load(file);
  if (!tokenizer) return {{}, tokenizer.error().message};
  if (tokenizer->fingerprint() != run.run.at("identity").value("tokenizer", ""))
    return {{}, fmt::format("{} is not the tokenizer of {} any more", file.string(), run.folder)};
  return {[tokenizer = *std::move(tokenizer)](int id) {
            const int one[] = {id};
            return tokenizer.decode(one).value_or("?");
          },
          ""};
}

// Of a record's flips.
bool names_tokens(const Json& comparison) {
  const Json& flips = comparison.at("flips");
  return std::any_of(flips.begin(), flips.end(), [](const Json& flip) {
    return !flip.value("base_token", Json()).is_null() ||
           !flip.value("candidate_token", Json()).is_null();
  });
}

std::string verdict_text(const Verdict& verdict, bool colour) {
  std::string upper(name_of(verdict.state));
  std::transform(upper.begin(), upper.end(), upper.begin(),
                 [](char c) { return static_cast<char>(c - 'a' + 'A'); });
  const Ink ink = verdict.state == VerdictState::kPass         ? Ink::kGood
                  : verdict.state == VerdictState::kRegression ? Ink::kBad
                                                               : Ink::kWarn;
  std::string out = fmt::format("  {}  {} (exit code {})\n", painted(upper, ink, colour),
                                headline(verdict), exit_code_of(verdict.state));
  for (const auto* list : {&verdict.problems, &verdict.warnings})
    for (const std::string& line : *list) out += fmt::format("    - {}\n", line);
  return out;
}

// Prints what came of it, as asked for, and keeps it.
Result<int> conclude(Json record, const std::string& text, const Verdict& verdict,
                     const Options& o) {
  record["format"] = 1;
  record["verdict"] = to_json(verdict);
  if (!o.out.empty()) ASSAY_TRY_VOID(write_file_atomic(o.out, record.dump(1) + "\n"));
  if (o.json)
    fmt::print("{}\n", record.dump(1, ' ', false, Json::error_handler_t::replace));
  else
    fmt::print("\n{}{}", text, verdict_text(verdict, on_terminal()));
  return exit_code_of(verdict.state);
}

void add_speed(Verdict& verdict, const Speed& speed) {
  for (const std::string& s : speed.regressions) add_finding(verdict, VerdictState::kRegression, s);
  for (const std::string& s : speed.warnings) add_finding(verdict, VerdictState::kWarn, s);
  for (const std::string& s : speed.inconclusive) add_finding(verdict, VerdictState::kInvalid, s);
}

Result<int> compare_benchmark_files(const Options& o) {
  if (o.confirm || o.speed)
    return fail("--confirm and --speed need the folders of runs, not files of benchmarks");
  std::vector<BenchmarkTimes> times;
  for (const std::string& file : o.runs) {
    ASSAY_TRY(const Json json, read_json(file));
    ASSAY_TRY(BenchmarkTimes one, parse_google_benchmark(json, file));
    times.push_back(std::move(one));
  }
  if (const std::string reason = not_comparable(times[0], times[1]); !reason.empty()) {
    say("assay compare: not comparable: {}\n", reason);
    return kInvalid;
  }
  const Speed speed = compare_benchmarks(times[0], times[1]);
  Verdict verdict;
  if (speed.rows.empty())
    return fail("{} and {} have no benchmark in common", o.runs[0], o.runs[1]);
  verdict.state = VerdictState::kPass;
  add_speed(verdict, speed);
  verdict.summary = fmt::format("{} of {} benchmarks are slower beyond their floor and chance.",
                                speed.regressions.size(), speed.rows.size());
  return conclude({{"speed", to_json(speed)}},
                  render_speed(to_json(speed), "from two files", on_terminal()), verdict, o);
}

Result<int> show_many(const std::vector<RunFolder>& runs, const Options& o) {
  if (o.confirm || o.speed)
    return fail("--confirm and --speed compare two runs, not {}", runs.size());
  std::vector<std::string> folders;
  for (const RunFolder& run : runs) folders.push_back(run.folder);
  const std::vector<std::string> names = names_apart(folders);
  std::vector<Release> releases;
  for (std::size_t i = 0; i < runs.size(); ++i) releases.push_back({names[i], &runs[i].run});
  const Json record = {{"format", 1}, {"releases", releases_json(releases)}};
  if (!o.out.empty()) ASSAY_TRY_VOID(write_file_atomic(o.out, record.dump(1) + "\n"));
  if (o.json)
    fmt::print("{}\n", record.dump(1));
  else
    fmt::print("\n{}\n  Shown side by side, not judged: assay compare BASE CANDIDATE judges two.\n",
               render_releases(releases, on_terminal()));
  return kPass;
}

// What both models of the runs said when they were asked for more.
struct Further {
  Confirmation second;
  std::string folder;  // of the second stage's draws
  std::optional<Speed> speed;
};

// The exit code instead, where there is no answer.
using Answer = std::variant<Further, int>;

int no_answer(const NoAnswer& none, std::string_view what) {
  if (none.reason.empty()) return kInterrupted;
  say("assay compare: cannot {}: {}\n", what, none.reason);
  return kInvalid;
}

Result<Answer> ask_models(const RunFolder& base, const RunFolder& candidate,
                          const Comparison& first, const Options& o) {
  Further out;
  if (o.confirm && first.needs_confirmation()) {
    out.folder = o.confirm_out;
    if (out.folder.empty()) {
      ASSAY_TRY(const fs::path own, make_own_folder("out/confirm-" + utc_now_for_path()));
      out.folder = own.string();
    }
    ASSAY_TRY(auto asked, ask_again(base, candidate, first, o.n_draws, out.folder));
    if (const auto* none = std::get_if<NoAnswer>(&asked)) return no_answer(*none, "confirm");
    out.second = std::get<Confirmation>(std::move(asked));
  }
  if (o.speed) {
    ASSAY_TRY(auto clocked, clock_in_turns(base, candidate, o.n_repetitions));
    if (const auto* none = std::get_if<NoAnswer>(&clocked)) return no_answer(*none, "clock");
    out.speed = std::get<Speed>(std::move(clocked));
  }
  return out;
}

Result<int> judge_two(const RunFolder& base, const RunFolder& candidate, const Options& o) {
  const Comparison first =
      compare(base.samples, candidate.samples, rules_of(base.run, candidate.run));
  ASSAY_TRY(const Answer answer, ask_models(base, candidate, first, o));
  if (const int* code = std::get_if<int>(&answer)) return *code;
  const auto& [second, folder, speed] = std::get<Further>(answer);
  const Comparison compared = settled(first, second);
  const Fidelity fidelity = compare_fidelity(base.run, candidate.run);

  Verdict verdict;
  verdict.state = VerdictState::kPass;
  if (speed) add_speed(verdict, *speed);
  add_comparison(verdict, compared, fidelity, second,
                 {shell_quoted(base.folder), shell_quoted(candidate.folder)});
  add_own_failures(verdict, base.run, candidate.run);

  const Tokens tokens = tokens_of(candidate);
  Json comparison = to_json(compared, tokens.text);
  if (!tokens.text && names_tokens(comparison))
    say("assay compare: tokens are shown by number (#18): {}\n", tokens.why_none);
  comparison["baseline"] = base.describe();
  if (second.state != ConfirmationState::kNotNeeded) {
    comparison["confirmation"] = to_json(second);
    comparison["confirmation"]["folder"] = folder;
  }
  if (!fidelity.rows.empty()) comparison["fidelity"] = to_json(fidelity);
  std::string text =
      fmt::format("  base       {}\n  candidate  {}\n\n", base.folder, candidate.folder) +
      render_comparison(comparison, {on_terminal(), static_cast<std::size_t>(o.n_flips),
                                     o.every_row, compare_command(base.folder, candidate.folder)});
  Json record = {{"candidate", candidate.describe()}, {"comparison", std::move(comparison)}};
  if (speed) {
    record["speed"] = to_json(*speed);
    text += render_speed(record["speed"], "in turns", on_terminal());
  }
  return conclude(std::move(record), text, verdict, o);
}

Result<int> compare_runs(const Options& o) {
  if (o.runs.size() < 2)
    return fail("what with what? Name at least two folders of runs: assay compare BASE CANDIDATE");
  if (!o.out.empty())
    ASSAY_TRY_VOID(check_own_json(o.out, "record of assay compare", [](const Json& json) {
      return json.contains("format") && !json.contains("plan") &&
             (json.contains("verdict") || json.contains("releases"));
    }));
  std::error_code ignored;
  const auto n_files = std::count_if(o.runs.begin(), o.runs.end(), [&](const std::string& run) {
    return fs::is_regular_file(run, ignored);
  });
  if (n_files == 2 && o.runs.size() == 2) return compare_benchmark_files(o);
  if (n_files > 0)
    return fail("expected folders of runs, or two files of Google Benchmark, got {} files of {}",
                n_files, o.runs.size());
  std::vector<RunFolder> runs;
  for (const std::string& folder : o.runs) {
    ASSAY_TRY(RunFolder run, read_run(folder));
    runs.push_back(std::move(run));
  }
  for (const RunFolder& run : runs) {
    if (run.complete()) continue;
    say("assay compare: {} is not finished: continue it with assay run --resume {}\n", run.folder,
        shell_quoted(run.folder));
    return kInvalid;
  }
  for (const RunFolder& run : runs) {
    const RunFolder& base = runs.front();  // the plans decide; of the samples only the prompts
    const std::string reason = not_comparable(base.run, run.run, base.samples, run.samples);
    if (reason.empty()) continue;
    say("assay compare: {} is not comparable with {}: {}\n", run.folder, base.folder, reason);
    return kInvalid;
  }
  if (runs.size() > 2) return show_many(runs, o);
  if (fs::equivalent(runs[0].folder, runs[1].folder, ignored))
    say("assay compare: both are the run in {}: that a run is like itself shows nothing\n",
        runs[0].folder);
  return judge_two(runs[0], runs[1], o);
}

Action setup(CLI::App& app) {
  const auto o = std::make_shared<Options>();
  app.add_option("run", o->runs,
                 "Folders of runs, the base first; or two files of Google Benchmark")
      ->type_name("RUN");
  app.add_flag("--confirm", o->confirm,
               "Ask what is suspected again, with fresh draws on both models, and decide on those");
  app.add_option("--draws", o->n_draws, "Fresh draws per case and model (default 4)")
      ->type_name("N")
      ->check(at_least(1));
  app.add_option("--confirm-out", o->confirm_out,
                 "Folder for the fresh draws (default: out/confirm-<UTC>)")
      ->type_name("DIR");
  app.add_flag("--speed", o->speed, "Clock decode of both models in turns on this machine");
  app.add_option("--repetitions", o->n_repetitions, "Of each model with --speed (default 10)")
      ->type_name("N")
      ->check(at_least(kLeastRepetitions));
  app.add_option("--flips", o->n_flips, "Changed samples shown in full (default 5; 0: all)")
      ->type_name("N")
      ->check(at_least(0));
  app.add_flag("--rows", o->every_row, "Every row of the table, not only those that changed");
  app.add_flag("--json", o->json, "Print the record on stdout instead of tables");
  app.add_option("--out", o->out, "Also write the record to this file")->type_name("FILE");
  return [o] { return compare_runs(*o); };
}

}  // namespace

const Verb compare_verb = {
    "compare", "Say what regressed between two runs, case by case, and how sure that is",
    "  assay compare out/bf16 out/vq\n"
    "  assay compare out/bf16 out/vq --flips 0            every sample that changed\n"
    "  assay compare out/last out/tonight --confirm       decide what draws left open\n"
    "  assay compare out/last out/tonight --speed         clock both models in turns\n"
    "  assay compare out/v1 out/v2 out/v3                 releases side by side\n"
    "  assay compare base.json new.json                   two files of Google Benchmark, made\n"
    "      with --benchmark_repetitions=9 --benchmark_out=FILE\n"
    "  assay compare out/bf16 out/vq --json | jq .verdict\n\n"
    "Both runs need the same suites, options and prompts; models and machines may differ.\n"
    "Exit codes: 0 pass or warn, 1 regression, 2 could not run, 3 not comparable or inconclusive,\n"
    "            130 interrupted.",
    &setup};

}  // namespace assay::cli
