// The only main(): parses the command line, runs one verb, turns its result into an exit code.
#include <fmt/format.h>

#include <csignal>
#include <exception>
#include <span>
#include <string>
#include <vector>

#include "base/suggest.h"
#include "harness/cli/missing_value.h"
#include "harness/cli/parse_error.h"
#include "harness/cli/process_job.h"
#include "harness/cli/say.h"
#include "harness/cli/verb.h"
#include "harness/version.h"

namespace assay::cli {
namespace {

constexpr std::string_view kAbout =
    "assay weighs a quantised GLM before you ship it: it asks the model questions, checks that\n"
    "thinking ends, and says in one verdict whether something regressed.";

constexpr std::string_view kFooter =
    "Start here:\n"
    "  assay run arithmetic --model golden/micro-glm/model\n"
    "  assay run --help                 every verb explains itself with examples\n\n"
    "Exit codes: 0 pass, 1 regression, 2 could not run, 3 invalid or inconclusive,\n"
    "            130 interrupted.";

// Of a verb that gives no verdict.
constexpr std::string_view kPlainCodes =
    "\nExit codes: 0 done, 2 could not run (one message says why), 130 interrupted.";

int report_error(std::string_view message) {
  say("assay: error: {}\n", message);
  return kCouldNotRun;
}

std::vector<std::string> verb_names() {
  std::vector<std::string> names;
  for (const Verb* verb : all_verbs()) names.emplace_back(verb->name);
  return names;
}

std::vector<std::string> flag_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

std::string command_of(const CLI::App& verb) { return fmt::format("assay {}", verb.get_name()); }

// What CLI11 could not place: its own message does not say what was meant.
int report_extras(const CLI::App& app, const CLI::ExtrasError& error) {
  for (const std::string& extra : app.remaining(true)) {
    const CLI::App* where = app.get_subcommands().empty() ? &app : app.get_subcommands().front();
    const std::string written = extra.substr(0, extra.find('='));
    const std::string command = where == &app ? "assay" : command_of(*where);
    if (written.starts_with("-"))
      return report_error(fmt::format("{}: unknown option '{}'.{} See {} --help.", command, written,
                                      suggestion(written, flag_names(*where)), command));
    return report_error(
        fmt::format("{}: unexpected argument '{}'. See {} --help.", command, extra, command));
  }
  return report_error(error.what());
}

int run(int argc, char** argv) {
  CLI::App app{std::string(kAbout), "assay"};
  app.footer(std::string(kFooter));
  app.set_version_flag("--version", version_text(), "Print version, commit and build");
  app.require_subcommand(0, 1);
  app.get_formatter()->column_width(34);

  struct Entry {
    CLI::App* sub;
    Action action;
  };
  std::vector<Entry> entries;
  for (const Verb* verb : all_verbs()) {
    CLI::App* sub = app.add_subcommand(std::string(verb->name), std::string(verb->summary));
    const bool has_codes = verb->examples.find("\nExit codes:") != std::string_view::npos;
    sub->footer(fmt::format("Examples:\n{}{}", verb->examples, has_codes ? "" : kPlainCodes));
    sub->get_formatter()->column_width(34);
    entries.push_back({sub, verb->setup(*sub)});
  }

  if (argc > 1 && argv[1][0] != '-') {
    const std::string written = argv[1];
    const std::vector<std::string> names = verb_names();
    if (std::find(names.begin(), names.end(), written) == names.end())
      return report_error(fmt::format("unknown command '{}'.{} See assay --help.", written,
                                      suggestion(written, names)));
  }
  for (const Entry& entry : entries) {
    if (argc < 2 || entry.sub->get_name() != argv[1]) continue;
    read_as_decimal(*entry.sub);
    const std::string wrong =
        missing_value(*entry.sub, std::span(argv, static_cast<std::size_t>(argc)).subspan(2));
    if (!wrong.empty()) return report_error(fmt::format("{}: {}", command_of(*entry.sub), wrong));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ExtrasError& error) {
    return report_extras(app, error);
  } catch (const CLI::Success& request) {  // --help, --version
    return app.exit(request);
  } catch (const CLI::ParseError& error) {
    const CLI::App& where = app.get_subcommands().empty() ? app : *app.get_subcommands().front();
    return report_error(fmt::format("{} See {} --help.", parse_error_text(where, error),
                                    &where == &app ? "assay" : command_of(where)));
  }
  for (const Entry& entry : entries) {
    if (!entry.sub->parsed()) continue;
    Result<int> code = entry.action();
    return code ? *code : report_error(code.error().message);
  }
  fmt::print("{}", app.help());
  return kCouldNotRun;
}

}  // namespace
}  // namespace assay::cli

int main(int argc, char** argv) {
  // A file beyond `ulimit -f` is then an error like a full disk: named, with what is finished kept.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    return assay::cli::in_process_job([&] { return assay::cli::run(argc, argv); });
  } catch (const std::exception& error) {  // memory ran out, or a library broke its word
    assay::cli::say("assay: error: {}\n", error.what());
    return assay::cli::kCouldNotRun;
  }
}
