#include "harness/throughput_run.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "base/check.h"
#include "base/rng.h"

namespace assay::harness {
namespace {

using engine::Engine;
using engine::Sequence;
using Clock = std::chrono::steady_clock;

double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

// The tokens that are fed: drawn from the tokenizer's ordinary ones, so that every build of a model
// reads the same and routes its experts alike. Stream 0 is the prompt; sequence b of a batch has
// stream b + 1, so that the sequences of a batch do not share their experts.
class TokenTrace {
 public:
  explicit TokenTrace(const Engine& e) {
    const text::Tokenizer& t = e.tokenizer();
    const std::vector<int>& stop = e.info().stop_ids;
    for (int id = 0; id < std::min(t.vocab_size(), e.info().vocab); ++id)
      if (t.has(id) && !t.is_special(id) && t.id_of(text::kThinkOpen) != id &&
          t.id_of(text::kThinkClose) != id && std::find(stop.begin(), stop.end(), id) == stop.end())
        ordinary_.push_back(id);
  }

  bool empty() const { return ordinary_.empty(); }

  std::vector<int> tokens(int stream, int first, int n) const {
    constexpr std::uint64_t kSeed = 0x7468726f75676870;
    std::vector<int> out;
    for (int i = 0; i < n; ++i) {
      const double u =
          uniform_at(kSeed, static_cast<std::uint64_t>(stream),
                     static_cast<std::uint64_t>(first) + static_cast<std::uint64_t>(i));
      out.push_back(ordinary_[static_cast<std::size_t>(u * static_cast<double>(ordinary_.size()))]);
    }
    return out;
  }

 private:
  std::vector<int> ordinary_;
};

// A row's next repetition; false: stopped, and nothing was noted.
class Bench {
 public:
  Bench(Engine& e, const TokenTrace& trace, const std::stop_token& stop)
      : engine_(e), trace_(trace), stop_(stop) {}

  // Reads the contexts that rows decode at, each going on from the one before.
  bool read_contexts(const std::vector<DecodeRow>& rows) {
    for (const DecodeRow& row : rows)
      if (row.reason.empty()) contexts_.emplace(row.depth, engine_.new_sequence());
    const Sequence* before = nullptr;
    for (auto& [depth, context] : contexts_) {
      if (before != nullptr) context = before->fork();
      const int n = context.n_tokens();
      context.feed(trace_.tokens(0, n, depth - n));
      if (!read(context)) return false;
      before = &context;
    }
    return true;
  }

  bool prefill(PrefillRow& row) {
    const std::vector<int> ids = trace_.tokens(0, 0, row.n_prompt);
    const auto start = Clock::now();
    Sequence s = engine_.new_sequence();
    s.feed(ids);
    if (!read(s)) return false;
    row.ttft_s.push_back(seconds(Clock::now() - start));
    return true;
  }

  bool decode(DecodeRow& row) {
    const auto n = static_cast<std::size_t>(row.batch);
    std::vector<Sequence> sequences;
    std::vector<Sequence*> batch;
    std::vector<std::vector<int>> ids;
    for (std::size_t b = 0; b < n; ++b) {
      sequences.push_back(contexts_.at(row.depth).fork());
      ids.push_back(trace_.tokens(static_cast<int>(b) + 1, row.depth, row.n_decode));
    }
    for (Sequence& s : sequences) batch.push_back(&s);
    DecodeRepetition out;
    Clock::time_point before;
    for (std::size_t i = 0; i < static_cast<std::size_t>(row.n_decode); ++i) {
      if (stop_.stop_requested()) return false;
      for (std::size_t b = 0; b < n; ++b) sequences[b].feed(std::span(&ids[b][i], 1));
      engine_.step(batch);
      for (const Sequence& s : sequences) CHECK(s.n_logit_rows() == 1) << s.n_logit_rows();
      const auto now = Clock::now();
      if (i > 0) out.intervals_s.push_back(seconds(now - before));
      before = now;
    }
    row.repetitions.push_back(std::move(out));
    return true;
  }

 private:
  // All that is pending; until then a sequence has no logits.
  bool read(Sequence& s) {
    Sequence* batch[] = {&s};
    while (s.n_pending() > 0) {
      if (stop_.stop_requested()) return false;
      engine_.step(batch);
    }
    return true;
  }

  Engine& engine_;
  const TokenTrace& trace_;
  std::stop_token stop_;
  std::map<int, Sequence> contexts_;  // by depth
};

Json facts(const Engine& e) {
  const engine::EngineInfo& i = e.info();
  return {{"model", i.fingerprint},
          {"tokenizer", e.tokenizer().fingerprint()},
          {"backend", i.backend},
          {"kernel", i.kernel},
          {"attention", i.attention},
          {"n_threads", i.n_threads},
          {"prefill_chunk", i.prefill_chunk},
          {"active_bytes", i.active_bytes}};
}

ThroughputResult rows_of(const ThroughputSettings& settings, const Engine& e) {
  ThroughputResult out{.engine = facts(e), .settings = settings, .decode = {}, .prefill = {}};
  const int n_positions = e.info().max_positions;
  for (const int n : settings.prefill) {
    PrefillRow row{.n_prompt = n, .reason = "", .ttft_s = {}};
    if (n >= n_positions)
      row.reason = fmt::format(
          "a prompt of {} leaves no room for a reply in the model's {} positions", n, n_positions);
    out.prefill.push_back(std::move(row));
  }
  for (const int depth : settings.depths)
    for (const int batch : settings.batches) {
      DecodeRow row{.depth = depth,
                    .batch = batch,
                    .n_decode = settings.n_decode,
                    .reason = "",
                    .repetitions = {}};
      if (depth > n_positions - settings.n_decode)
        row.reason = fmt::format("{} tokens at depth {} do not fit into the model's {} positions",
                                 settings.n_decode, depth, n_positions);
      out.decode.push_back(std::move(row));
    }
  return out;
}

// Caches, page tables and the clock of a machine at rest settle here and not in the first round.
bool warm_up(Bench& bench, const ThroughputResult& rows) {
  for (DecodeRow row : rows.decode) {
    row.n_decode = 2;
    if (row.reason.empty() && !bench.decode(row)) return false;
  }
  const PrefillRow* shortest = nullptr;
  for (const PrefillRow& row : rows.prefill)
    if (row.reason.empty() && (shortest == nullptr || row.n_prompt < shortest->n_prompt))
      shortest = &row;
  if (shortest == nullptr) return true;
  PrefillRow row = *shortest;
  return bench.prefill(row);
}

}  // namespace

Result<std::optional<ThroughputResult>> run_throughput(const Engine& engine,
                                                       const ThroughputSettings& settings,
                                                       int n_threads,
                                                       const ThroughputHooks& hooks) {
  Engine own = engine.share(n_threads);
  const TokenTrace trace(own);
  if (trace.empty())
    return fail(
        "{}: the tokenizer has no ordinary token that the model knows, expected text to feed",
        own.info().model_dir);
  ThroughputResult out = rows_of(settings, own);
  Bench bench(own, trace, hooks.stop);
  std::vector<std::function<bool()>> rows;
  for (PrefillRow& row : out.prefill)
    if (row.reason.empty()) rows.emplace_back([&bench, &row] { return bench.prefill(row); });
  for (DecodeRow& row : out.decode)
    if (row.reason.empty()) rows.emplace_back([&bench, &row] { return bench.decode(row); });

  const int n_total = settings.repetitions * static_cast<int>(rows.size());
  int n_done = 0;
  if (!bench.read_contexts(out.decode) || !warm_up(bench, out)) return std::nullopt;
  for (int round = 0; round < settings.repetitions; ++round) {
    for (const auto& repeat : rows) {
      if (!repeat()) return std::nullopt;
      if (hooks.on_progress) hooks.on_progress(++n_done, n_total);
    }
    std::reverse(rows.begin(), rows.end());
  }
  return out;
}

}  // namespace assay::harness
