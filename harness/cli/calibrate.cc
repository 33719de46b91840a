// assay calibrate: a calibration set from a model's own completions of a list of prompts.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <stop_token>

#include "base/file.h"
#include "base/plural.h"
#include "engine/text/corpus.h"
#include "harness/cli/at_least.h"
#include "harness/cli/engine_flags.h"
#include "harness/cli/own_output.h"
#include "harness/cli/progress.h"
#include "harness/cli/verb.h"
#include "harness/engine_target.h"

namespace assay::cli {
namespace {

struct Options {
  EngineFlags engine;
  std::string prompts, out;
  double temperature = 0;
  std::uint64_t seed = 0;
  int max_tokens = 2048, max_length = 0;
};

// Why a completion did not become a line.
struct Dropped {
  int unfinished = 0, unclosed = 0, too_long = 0, not_round_trip = 0;
  int total() const { return unfinished + unclosed + too_long + not_round_trip; }
};

// The reply as text that encodes to the same ids, or nothing.
std::optional<std::string> reply_text(const harness::Reply& reply, const text::CorpusLine& line,
                                      const text::Tokenizer& tokenizer,
                                      const harness::TokenRoles& roles, Dropped& dropped) {
  std::vector<int> ids = reply.ids;
  if (reply.finish != "stop") {
    ++dropped.unfinished;
    return std::nullopt;
  }
  ids.pop_back();  // the stop token belongs to the next turn
  if (line.thinking && roles.think_close &&
      std::count(ids.begin(), ids.end(), *roles.think_close) != 1) {
    ++dropped.unclosed;
    return std::nullopt;
  }
  const auto text = tokenizer.decode(ids);
  if (text) {
    const auto again = tokenizer.encode(*text);
    if (again && *again == ids) return *text;
  }
  ++dropped.not_round_trip;
  return std::nullopt;
}

// Whether `file` can be what this verb made of these prompts: replies to some of them, no others.
// Texts that others wrote have the same format.
bool is_set_of(const std::vector<text::CorpusLine>& prompts, const fs::path& file) {
  std::set<std::string> asked;
  for (const text::CorpusLine& line : prompts) asked.insert(line.messages.dump());
  const auto lines = text::read_corpus(file);
  return lines && std::ranges::all_of(*lines, [&](const text::CorpusLine& line) {
           return !line.reply.empty() && asked.contains(line.messages.dump());
         });
}

// It is read before it is written, and written as plain text.
Result<void> check_out(const Options& o, const std::vector<text::CorpusLine>& prompts) {
  std::error_code ignored;
  if (fs::equivalent(o.prompts, o.out, ignored))
    return fail("--out {} is the file of --prompts: choose another", o.out);
  if (o.out.ends_with(".gz"))
    return fail("--out {}: the set is written as plain text: leave .gz out", o.out);
  return check_own_or_new(o.out, "calibration set of these prompts",
                          [&](const fs::path& file) { return is_set_of(prompts, file); });
}

Result<int> run(const Options& o) {
  ASSAY_TRY(std::vector<text::CorpusLine> lines, text::read_corpus(o.prompts));
  for (const text::CorpusLine& line : lines)
    if (line.messages.is_null())
      return fail("{}: text {} is a plain text, expected messages to answer", o.prompts, line.id);
  ASSAY_TRY_VOID(check_out(o, lines));
  EngineFlags flags = o.engine;
  flags.n_engines = harness::EngineTarget::n_engines(o.engine.n_threads, lines.size());
  ASSAY_TRY(engine::Engine e, load_engine(flags));
  harness::EngineTarget target(std::move(e), o.engine.n_threads);
  const engine::Engine& engine = target.engine();

  std::vector<harness::Request> requests;
  for (const text::CorpusLine& line : lines) {
    auto prompt = text::prompt_ids(line, engine.tokenizer(), engine.chat_template());
    if (!prompt) return fail("{}: text {}: {}", o.prompts, line.id, prompt.error().message);
    if (static_cast<int>(prompt->size()) >= engine.info().max_positions)
      return fail("{}: text {}: its prompt has {}, the model has {}", o.prompts, line.id,
                  counted(prompt->size(), "token"),
                  counted(engine.info().max_positions, "position"));
    harness::Request r;
    r.prompt = std::move(*prompt);
    r.sampling.temperature = o.temperature;
    r.seed = o.seed;
    r.stream = requests.size();
    r.max_tokens = o.max_tokens;
    requests.push_back(std::move(r));
  }

  const auto start = std::chrono::steady_clock::now();
  ProgressPrinter printer;
  harness::Progress progress;
  progress.n_total = static_cast<int>(requests.size());
  std::vector<std::optional<std::string>> replies(lines.size());
  Dropped dropped;
  std::optional<std::string> failed;
  const auto show = [&] {
    progress.elapsed_s =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    printer.show(progress);
  };
  const std::stop_source stop;
  const Result<void> asked = target.complete(
      requests,
      [&](std::size_t i, Result<harness::Reply> reply) {
        ++progress.n_done;
        if (!reply) {
          failed = fmt::format("{}: text {}: {}", o.prompts, lines[i].id, reply.error().message);
          return;
        }
        progress.n_tokens += static_cast<long>(reply->ids.size());
        replies[i] = reply_text(*reply, lines[i], engine.tokenizer(), target.roles(), dropped);
        const auto length = static_cast<int>(requests[i].prompt.size() + reply->ids.size());
        if (replies[i] && o.max_length > 0 && length > o.max_length) {
          ++dropped.too_long;
          replies[i].reset();
        }
        show();
      },
      [] {}, stop.get_token());
  ASSAY_TRY_VOID(asked);
  progress.finished = true;
  show();
  if (failed) return fail("{}", *failed);

  std::string out;
  std::map<std::string, int> kept;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (!replies[i]) continue;
    lines[i].reply = *replies[i];
    out += text::to_jsonl(lines[i]);
    ++kept[lines[i].lang];
  }
  if (out.empty())
    return fail(
        "{}: no completion can be kept, so nothing is written: of {}, {} have no end (--max-tokens "
        "is {}), {} do not close their thinking once, {} are too long, {} do not encode back",
        o.prompts, lines.size(), dropped.unfinished, o.max_tokens, dropped.unclosed,
        dropped.too_long, dropped.not_round_trip);
  ASSAY_TRY_VOID(write_file_atomic(o.out, out));
  fmt::print("{}: {} of {} kept", o.out, lines.size() - static_cast<std::size_t>(dropped.total()),
             counted(lines.size(), "completion"));
  for (const auto& [lang, n] : kept) fmt::print(", {} {}", n, lang);
  fmt::print(
      "\ndropped: {} without an end, {} whose thinking did not close once, {} too long, {} that do "
      "not encode back\n",
      dropped.unfinished, dropped.unclosed, dropped.too_long, dropped.not_round_trip);
  return kPass;
}

}  // namespace

const Verb calibrate_verb{
    .name = "calibrate",
    .summary = "A calibration set: the model's own completions of a prompt list",
    .examples =
        "  python3 golden/micro-glm/calibration/make_prompts.py /tmp\n"
        "  assay calibrate --model golden/micro-glm/model --prompts /tmp/prompts-ja.jsonl \\\n"
        "      --out ja.jsonl\n"
        "      how the bundled set was made; completions that do not end, or whose thinking does\n"
        "      not close, are left out. Format: docs/formats/corpus.md\n",
    .setup = [](CLI::App& app) -> Action {
      auto o = std::make_shared<Options>();
      add_engine_flags(app, o->engine);
      app.add_option("--prompts", o->prompts, "Prompts, one JSON object a line")->required();
      app.add_option("--out", o->out, "Where the set is written")->required();
      app.add_option("--temperature", o->temperature, "0 is greedy")
          ->check(at_least(0))
          ->capture_default_str();
      app.add_option("--seed", o->seed, "Of sampling")->check(any_seed())->capture_default_str();
      app.add_option("--max-tokens", o->max_tokens, "Of a reply")
          ->check(at_least(1))
          ->capture_default_str();
      app.add_option("--max-length", o->max_length,
                     "Leave out texts of more tokens, prompt included (0: none)")
          ->check(at_least(0))
          ->capture_default_str();
      return [o] { return run(*o); };
    }};

}  // namespace assay::cli
