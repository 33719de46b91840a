// assay bench: how fast is this model on this machine, and how far from the roof?
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <utility>

#include "base/plural.h"
#include "base/size_text.h"
#include "base/stats.h"
#include "engine/engine.h"
#include "harness/cli/bench_roof.h"
#include "harness/cli/command_line.h"
#include "harness/cli/engine_flags.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/say.h"
#include "harness/cli/verb.h"
#include "harness/step_counts.h"

namespace assay::cli {
namespace {

using engine::Engine;
using engine::Sequence;

struct Options {
  EngineFlags engine;
  std::vector<int> n_prompt = {512}, n_decode = {128}, depth = {0};
  int repetitions = 5;
  bool json = false;
};

struct Measurement {
  std::string name;            // "pp512", "tg128", "tg128 @ d4096"
  std::string roof;            // what the next is of
  std::vector<double> per_s;   // tokens per second, one a repetition
  std::vector<double> roof_s;  // the same at the roof, measured right beside that repetition
  // Decode on a host: of a plain read of the same bytes from where a token finds them.
  std::vector<double> share_of_reads = {};
  Json bytes = nullptr;  // of a token, where a GPU decodes

  std::vector<double> share() const {
    std::vector<double> out;
    for (std::size_t i = 0; i < per_s.size(); ++i) out.push_back(per_s[i] / roof_s[i]);
    return out;
  }
  // One repetition has none.
  std::string spread() const {
    return per_s.size() < 2 ? "–" : fmt::format("{:.1f}", scaled_mad(per_s));
  }
  Json to_json() const {
    Json out = {{"test", name},
                {"tokens_per_s", per_s},
                {"median", median(per_s)},
                {"mad", per_s.size() < 2 ? Json() : Json(scaled_mad(per_s))},
                {"roof", roof},
                {"roof_tokens_per_s", roof_s},
                {"share_of_roof", share()},
                {"median_share", median(share())}};
    if (!share_of_reads.empty()) {
      out["share_of_token_reads"] = share_of_reads;
      out["median_share_of_token_reads"] = median(share_of_reads);
    }
    if (!bytes.is_null()) out["token_bytes"] = bytes;
    return out;
  }
};

// Fixed ids, the same for every model of one vocabulary: what is measured must not depend on what a
// model says, and two builds must be asked to route the same tokens. Special tokens sit at the end
// of the vocabulary and are left out.
std::vector<int> token_trace(int n, int vocab) {
  std::vector<int> ids;
  for (int i = 0; i < n; ++i)
    ids.push_back(static_cast<int>((static_cast<std::int64_t>(i) * 7919 + 13) % (vocab / 2)));
  return ids;
}

void run_all(Engine& e, Sequence& s) {
  Sequence* batch[] = {&s};
  while (s.n_pending() > 0) e.step(batch);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double prefill_seconds(Engine& e, std::span<const int> ids) {
  Sequence s = e.new_sequence(static_cast<int>(ids.size()));
  s.feed(ids);
  const auto start = std::chrono::steady_clock::now();
  run_all(e, s);
  return seconds_since(start);
}

double decode_seconds(Engine& e, const Sequence& at_depth, std::span<const int> ids) {
  Sequence s = at_depth.fork(at_depth.n_tokens() + 1 + static_cast<int>(ids.size()));
  s.feed(ids.first(1));  // a host's cache grows here, which is not what decode costs
  run_all(e, s);
  const auto start = std::chrono::steady_clock::now();
  for (const int& id : ids) {
    s.feed(std::span(&id, 1));
    s.ask({});  // as a greedy reply's step does
    run_all(e, s);
  }
  return seconds_since(start);
}

// Of the weights, from where the file's pages are to where the backend reads them.
double load_bytes_per_s(const engine::EngineInfo& e) {
  return static_cast<double>(e.weight_bytes) / e.layout_s;
}
Json load_of(const engine::EngineInfo& e) {
  return {{"weights_s", e.layout_s},
          {"weight_bytes", e.weight_bytes},
          {"bytes_per_s", load_bytes_per_s(e)}};
}
void print_load(const Engine& e) {
  const engine::EngineInfo& i = e.info();
  if (i.weight_bytes > 0)
    fmt::print("weights: {:.1f} MB laid out in {:.2f} s, {}/s\n",
               static_cast<double>(i.weight_bytes) / 1e6, i.layout_s,
               size_text(load_bytes_per_s(i)));
  if (!i.memory.is_planned()) return;
  fmt::print("memory: {}\nsteps: {}\n", i.memory.text(),
             harness::step_counts_text(harness::to_json(e.step_counts())));
}

Result<Measurement> bench_prefill(Engine& e, Roof& roof, int n, int repetitions) {
  Measurement m{.name = fmt::format("pp{}", n), .roof = roof.prefill_text()};
  const auto ids = token_trace(n, e.info().vocab);
  prefill_seconds(e, ids);  // warm-up
  for (int i = 0; i < repetitions; ++i) {
    ASSAY_TRY(const double peak, roof.prefill_per_s(n));
    m.roof_s.push_back(peak);
    m.per_s.push_back(n / prefill_seconds(e, ids));
  }
  return m;
}

Result<Measurement> bench_decode(Engine& e, Roof& roof, int n, int depth, int repetitions) {
  const int first = std::max(1, depth);
  Measurement m{.name = depth == 0 ? fmt::format("tg{}", n) : fmt::format("tg{} @ d{}", n, depth)};
  Sequence at_depth = e.new_sequence(first);
  at_depth.feed(token_trace(first, e.info().vocab));
  run_all(e, at_depth);
  const auto ids = token_trace(n, e.info().vocab);
  decode_seconds(e, at_depth, ids);  // warm-up
  for (int i = 0; i < repetitions; ++i) {
    // The first token clocked sees what was read, the one that grew the cache, and itself.
    ASSAY_TRY(const DecodeRoof peak, roof.decode_per_s(first + 2, n));
    m.roof_s.push_back(peak.per_s);
    m.roof = peak.text;
    m.bytes = peak.bytes;
    m.per_s.push_back(n / decode_seconds(e, at_depth, ids));
    if (peak.token_reads_per_s > 0)
      m.share_of_reads.push_back(m.per_s.back() / peak.token_reads_per_s);
  }
  return m;
}

// A test is clocked once, however often it is asked for.
void drop_repeated(const char* flag, std::vector<int>& list) {
  std::vector<int> once;
  for (const int n : list)
    if (std::find(once.begin(), once.end(), n) == once.end())
      once.push_back(n);
    else
      say("assay bench: {} {} is given twice, and clocked once\n", flag, n);
  list = std::move(once);
}

Result<int> bench(Options o) {
  drop_repeated("--prompt", o.n_prompt);
  drop_repeated("--decode", o.n_decode);
  drop_repeated("--depth", o.depth);
  if (o.repetitions < 1) return fail("--repetitions is {}, expected at least 1", o.repetitions);
  const auto is_none = [](const std::vector<int>& n) {
    return std::all_of(n.begin(), n.end(), [](int tokens) { return tokens == 0; });
  };
  if (is_none(o.n_prompt) && is_none(o.n_decode))
    return fail("--prompt and --decode are both 0: nothing is left to clock. Ask for one of them");
  const EndAtInterrupt ends(
      fmt::format(
          "assay bench: interrupted. Nothing is kept: the figures are of all tests together. "
          "To begin again:\n    {}\n",
          command_line()),
      {});
  ASSAY_TRY(Engine e, load_engine(o.engine));
  for (const auto& [flag, list] :
       {std::pair{"--prompt", &o.n_prompt}, {"--decode", &o.n_decode}, {"--depth", &o.depth}})
    for (const int n : *list)
      if (n < 0 || n >= e.info().max_positions)
        return fail(
            "{} {}: {} tokens asked for, expected 0 to {} (less than the {} positions of {})", flag,
            n, n, e.info().max_positions - 1, e.info().max_positions,
            o.engine.context > 0 ? "--context" : "the model");
  for (const int n : o.n_decode)
    for (const int d : o.depth)
      if (n + 1 + std::max(1, d) > e.info().max_positions)
        return fail("{} tokens at depth {} do not fit into the model's {} positions", n, d,
                    e.info().max_positions);
  const engine::CacheRoom room = e.cache_room();
  for (const int n : o.n_decode)
    for (const int d : o.depth)
      if (room.taken_by(std::max(1, d)) + room.taken_by(std::max(1, d) + 1 + n) > room.n_tokens)
        return fail(
            "{} tokens at depth {}, forked off a sequence of that depth, do not fit into the "
            "engine's caches of {} tokens: decode at a lesser --depth, or on a larger GPU",
            n, d, room.n_tokens);
  ASSAY_TRY(Roof roof, Roof::of(e));
  std::vector<Measurement> all;
  for (const int n : o.n_prompt) {
    if (n == 0) continue;
    ASSAY_TRY(Measurement m, bench_prefill(e, roof, n, o.repetitions));
    all.push_back(std::move(m));
  }
  for (const int d : o.depth)
    for (const int n : o.n_decode) {
      if (n == 0) continue;
      ASSAY_TRY(Measurement m, bench_decode(e, roof, n, d, o.repetitions));
      all.push_back(std::move(m));
    }

  if (o.json) {
    Json out = {{"engine", e.info().to_json()},
                {"load", load_of(e.info())},
                {"repetitions", o.repetitions},
                {"tests", Json::array()}};
    if (e.info().memory.is_planned()) out["steps"] = harness::to_json(e.step_counts());
    for (const Measurement& m : all) out["tests"].push_back(m.to_json());
    std::puts(out.dump(2).c_str());
    return 0;
  }
  fmt::print("{}  {} {} ({}), {}, {} attention, {}\n", e.info().model_dir, e.info().backend,
             e.info().kernel, e.info().model_type, counted(e.info().n_threads, "thread"),
             e.info().attention, counted(o.repetitions, "repetition"));
  print_load(e);
  fmt::print("\n{:<16} {:>12} {:>9} {:>9}  {}\n", "test", "tokens/s", "± MAD", "of roof", "roof");
  for (const Measurement& m : all) {
    fmt::print("{:<16} {:>12.1f} {:>9} {:>8.0f}%  {}\n", m.name, median(m.per_s), m.spread(),
               100 * median(m.share()), m.roof);
    if (!m.share_of_reads.empty())
      fmt::print("{:<16} {:>12} {:>9} {:>8.0f}%  {}\n", "", "", "", 100 * median(m.share_of_reads),
                 "the same read with experts drawn from all weights, as a token's are");
  }
  fmt::print("\n{} The roof is {}, measured beside every repetition in this process.\n",
             o.repetitions == 1
                 ? "One repetition, which has no spread: ask for more with --repetitions."
                 : "Median and scaled median absolute deviation.",
             roof.of_text());
  return 0;
}

}  // namespace

const Verb bench_verb{
    .name = "bench",
    .summary = "Prefill and decode speed, with the roof of what computes (CPU or GPU) beside it",
    .examples =
        "  assay bench --model golden/micro-glm/model\n"
        "      prefill of 512 tokens (pp512) and decode of 128 (tg128), 5 repetitions each\n"
        "  assay bench --model M --prompt 512,16384 --decode 64 --depth 0,4096,16000 --json\n"
        "      long prompts, decode at three context depths, for a machine to read\n",
    .setup = [](CLI::App& app) -> Action {
      auto o = std::make_shared<Options>();
      add_engine_flags(app, o->engine);
      app.add_option("-p,--prompt", o->n_prompt, "Prompt lengths to prefill, in tokens (0: none)")
          ->delimiter(',')
          ->capture_default_str();
      app.add_option("-n,--decode", o->n_decode, "Tokens to decode (0: none)")
          ->delimiter(',')
          ->capture_default_str();
      app.add_option("-d,--depth", o->depth, "Context depths to decode at, in tokens")
          ->delimiter(',')
          ->capture_default_str();
      app.add_option("-r,--repetitions", o->repetitions, "Repetitions of each test")
          ->capture_default_str();
      app.add_flag("--json", o->json, "Print JSON");
      return [o] { return bench(*o); };
    }};

}  // namespace assay::cli
