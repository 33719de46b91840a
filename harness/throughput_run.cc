#include "harness/throughput_run.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <utility>

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
    std::set<int> depths;
    for (const DecodeRow& row : rows)
      if (row.reason.empty()) depths.insert(row.depth);
    const Sequence* before = nullptr;
    for (const int depth : depths) {
      const int most = std::max(depth, 1);
      Sequence& context =
          contexts_.emplace(depth, before ? before->fork(most) : engine_.new_sequence(most))
              .first->second;
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
    Sequence s = engine_.new_sequence(row.n_prompt);
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
      sequences.push_back(contexts_.at(row.depth).fork(row.depth + row.n_decode));
      ids.push_back(trace_.tokens(static_cast<int>(b) + 1, row.depth, row.n_decode));
    }
    for (Sequence& s : sequences) batch.push_back(&s);
    DecodeRepetition out;
    Clock::time_point before;
    for (std::size_t i = 0; i < static_cast<std::size_t>(row.n_decode); ++i) {
      if (stop_.stop_requested()) return false;
      // What a greedy reply's step does, though the token is ours.
      for (std::size_t b = 0; b < n; ++b) {
        sequences[b].feed(std::span(&ids[b][i], 1));
        sequences[b].ask({});
      }
      engine_.step(batch);
      for (const Sequence& s : sequences) CHECK(s.sampled().has_value());
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

std::int64_t taken_by_contexts(const engine::CacheRoom& room, const std::set<int>& depths) {
  std::int64_t n = 0;
  for (const int depth : depths) n += room.taken_by(std::max(depth, 1));
  return n;
}

// The depths whose contexts are read, and then kept while rows are clocked: from the shallowest on,
// as long as the caches hold the smallest batch beside them all.
std::set<int> held_depths(const ThroughputSettings& settings, int n_positions,
                          const engine::CacheRoom& room) {
  std::set<int> held;
  if (settings.batches.empty()) return held;
  const int batch = *std::min_element(settings.batches.begin(), settings.batches.end());
  for (const int depth : std::set<int>(settings.depths.begin(), settings.depths.end())) {
    held.insert(depth);
    if (depth <= n_positions - settings.n_decode &&
        taken_by_contexts(room, held) + batch * room.taken_by(depth + settings.n_decode) <=
            room.n_tokens)
      continue;
    held.erase(depth);
    break;
  }
  return held;
}

// Why caches with the contexts of `depths` cannot hold n sequences more; "" if they can.
std::string too_many(const engine::CacheRoom& room, const std::set<int>& depths, int n,
                     int n_tokens) {
  const std::int64_t need = n * room.taken_by(n_tokens) + taken_by_contexts(room, depths);
  if (need <= room.n_tokens) return "";
  return fmt::format("needs {} tokens of cache, the engine has room for {}", need, room.n_tokens);
}

ThroughputResult rows_of(const ThroughputSettings& settings, const Engine& e) {
  ThroughputResult out = rows_to_clock(settings, e.info().max_positions, e.cache_room());
  out.engine = facts(e);
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

// An engine on the clock, with its rows.
class Clocked {
 public:
  static Result<std::unique_ptr<Clocked>> make(const Engine& engine,
                                               const ThroughputSettings& settings, int n_threads,
                                               const std::stop_token& stop) {
    ASSAY_TRY(Engine own, engine.share(n_threads));
    std::unique_ptr<Clocked> out(new Clocked(std::move(own), settings, stop));
    if (out->trace_.empty())
      return fail(
          "{}: the tokenizer has no ordinary token that the model knows, expected text to feed",
          engine.info().model_dir);
    return out;
  }

  bool prepare() { return bench_.read_contexts(result.decode) && warm_up(bench_, result); }
  // Those that the model can hold; each call is one repetition, false if it was stopped.
  std::vector<std::function<bool()>> rows() {
    std::vector<std::function<bool()>> out;
    for (PrefillRow& row : result.prefill)
      if (row.reason.empty()) out.emplace_back([this, &row] { return bench_.prefill(row); });
    for (DecodeRow& row : result.decode)
      if (row.reason.empty()) out.emplace_back([this, &row] { return bench_.decode(row); });
    return out;
  }

 private:
  Clocked(Engine own, const ThroughputSettings& settings, const std::stop_token& stop)
      : own_(std::move(own)),
        trace_(own_),
        bench_(own_, trace_, stop),
        result(rows_of(settings, own_)) {}

  Engine own_;
  TokenTrace trace_;
  Bench bench_;

 public:
  ThroughputResult result;
};

// Every group in every round, backwards in every other one; false: stopped.
bool repeat_all(std::vector<std::vector<std::function<bool()>>> groups, int n_rounds,
                const ThroughputHooks& hooks) {
  int n_done = 0, n_total = 0;
  for (const auto& group : groups) n_total += n_rounds * static_cast<int>(group.size());
  for (int round = 0; round < n_rounds; ++round) {
    for (auto& group : groups) {
      for (const auto& repeat : group) {
        if (!repeat()) return false;
        if (hooks.on_progress) hooks.on_progress(++n_done, n_total);
      }
      std::reverse(group.begin(), group.end());
    }
    std::reverse(groups.begin(), groups.end());
  }
  return true;
}

}  // namespace

ThroughputResult rows_to_clock(const ThroughputSettings& settings, int n_positions,
                               const engine::CacheRoom& room) {
  ThroughputResult out{.engine = {}, .settings = settings, .decode = {}, .prefill = {}};
  const std::set<int> held = held_depths(settings, n_positions, room);
  for (const int n : settings.prefill) {
    PrefillRow row{.n_prompt = n, .reason = too_many(room, held, 1, n), .ttft_s = {}};
    if (n >= n_positions)
      row.reason = fmt::format(
          "a prompt of {} leaves no room for a reply in the model's {} positions", n, n_positions);
    out.prefill.push_back(std::move(row));
  }
  for (const int depth : settings.depths)
    for (const int batch : settings.batches) {
      std::set<int> contexts = held;
      contexts.insert(depth);
      DecodeRow row{.depth = depth,
                    .batch = batch,
                    .n_decode = settings.n_decode,
                    .reason = too_many(room, contexts, batch, depth + settings.n_decode),
                    .repetitions = {}};
      if (depth > n_positions - settings.n_decode)
        row.reason = fmt::format("{} tokens at depth {} do not fit into the model's {} positions",
                                 settings.n_decode, depth, n_positions);
      out.decode.push_back(std::move(row));
    }
  return out;
}

Result<std::optional<ThroughputResult>> run_throughput(const Engine& engine,
                                                       const ThroughputSettings& settings,
                                                       int n_threads,
                                                       const ThroughputHooks& hooks) {
  ASSAY_TRY(const auto clocked, Clocked::make(engine, settings, n_threads, hooks.stop));
  if (!clocked->prepare()) return std::nullopt;
  std::vector<std::vector<std::function<bool()>>> groups;
  for (auto& row : clocked->rows()) groups.push_back({std::move(row)});
  if (!repeat_all(std::move(groups), settings.repetitions, hooks)) return std::nullopt;
  return std::move(clocked->result);
}

Result<std::optional<ThroughputPair>> run_throughput_in_turns(const Engine& base,
                                                              const Engine& candidate,
                                                              const ThroughputSettings& settings,
                                                              int n_threads,
                                                              const ThroughputHooks& hooks) {
  ASSAY_TRY(const auto a, Clocked::make(base, settings, n_threads, hooks.stop));
  ASSAY_TRY(const auto b, Clocked::make(candidate, settings, n_threads, hooks.stop));
  if (!a->prepare() || !b->prepare()) return std::nullopt;
  auto rows_a = a->rows(), rows_b = b->rows();
  std::vector<std::vector<std::function<bool()>>> groups;
  if (rows_a.size() == rows_b.size()) {
    for (std::size_t i = 0; i < rows_a.size(); ++i)
      groups.push_back({std::move(rows_a[i]), std::move(rows_b[i])});
  } else {
    return fail("{} holds {} of the lengths to clock and {} holds {}: they cannot take turns",
                base.info().model_dir, rows_a.size(), candidate.info().model_dir, rows_b.size());
  }
  if (!repeat_all(std::move(groups), settings.repetitions, hooks)) return std::nullopt;
  return ThroughputPair{std::move(a->result), std::move(b->result)};
}

}  // namespace assay::harness
