#include "harness/divergence_run.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/plural.h"
#include "base/thread_pool.h"

namespace assay::harness {
namespace {

using Text = DivergenceBase::Text;

using Engines = std::vector<engine::Engine>;
using Logits = std::span<const float>;

// row is that of ids[reply + row]; one Logits of each engine.
using RowHook = std::function<void(int row, std::span<const Logits> of_engines)>;

// The logits of a step are (n, vocab), and n * vocab may pass 2^31.
Logits logits_row(const engine::Sequence& s, std::size_t row, int vocab) {
  const auto n = static_cast<std::size_t>(vocab);
  return s.logits().subspan(row * n, n);
}

Result<void> check_finite(Logits logits, const Text& text, int row, const engine::Engine& engine) {
  if (std::ranges::all_of(logits, [](float x) { return std::isfinite(x); })) return {};
  return fail(
      "text {}: NaN or infinity in the logits of token {} by {}: nothing can be said of this model",
      text.id, text.reply + row, engine.info().model_dir);
}

void step(engine::Engine& engine, engine::Sequence& sequence) {
  engine::Sequence* batch[] = {&sequence};
  engine.step(batch);
}

// Every row of the reply in order, all engines in step with each other, so that no more than one
// prefill chunk's logits of each are held: those of a whole reply would be 1.24 GB for 2,000 tokens
// of GLM-5.2's vocabulary.
Result<void> read_reply(Engines& engines, const Text& text, const RowHook& on_row) {
  const std::span<const int> ids = text.ids;
  const auto reply = static_cast<std::size_t>(text.reply);
  CHECK(reply >= 1 && reply < ids.size()) << text.id << ": " << reply << " of " << ids.size();
  std::vector<engine::Sequence> sequences;
  for (const engine::Engine& e : engines)
    sequences.push_back(e.new_sequence(static_cast<int>(ids.size())));
  int row = 0;
  std::vector<Logits> of_engines(engines.size());
  const auto give_rows = [&](std::size_t n) -> Result<void> {
    for (std::size_t r = 0; r < n; ++r, ++row) {
      for (std::size_t i = 0; i < engines.size(); ++i) {
        of_engines[i] = logits_row(sequences[i], r, engines[i].info().vocab);
        ASSAY_TRY_VOID(check_finite(of_engines[i], text, row, engines[i]));
      }
      on_row(row, of_engines);
    }
    return {};
  };

  for (std::size_t i = 0; i < engines.size(); ++i) {
    sequences[i].feed(ids.first(reply));
    while (sequences[i].n_pending() > 0) step(engines[i], sequences[i]);
    sequences[i].keep_all_logits(true);
  }
  ASSAY_TRY_VOID(give_rows(1));
  for (std::size_t at = reply, n; at + 1 < ids.size(); at += n) {
    n = ids.size() - 1 - at;
    for (const engine::Engine& e : engines) {  // up to the next end of a chunk of any of them
      const auto chunk = static_cast<std::size_t>(e.info().prefill_chunk);
      n = std::min(n, chunk - at % chunk);
    }
    for (std::size_t i = 0; i < engines.size(); ++i) {
      sequences[i].feed(ids.subspan(at, n));
      step(engines[i], sequences[i]);
      CHECK(sequences[i].n_pending() == 0) << n << " at " << at;
    }
    ASSAY_TRY_VOID(give_rows(n));
  }
  return {};
}

// The same engine twice, with the same cache up to the reply: of_engines are the rows of its chunks
// and those of single tokens.
Result<void> read_reply_both_ways(engine::Engine& engine, const Text& text, const RowHook& on_row) {
  const std::span<const int> ids = text.ids;
  const auto reply = static_cast<std::size_t>(text.reply),
             chunk = static_cast<std::size_t>(engine.info().prefill_chunk);
  const int vocab = engine.info().vocab;
  engine::Sequence in_chunks = engine.new_sequence(static_cast<int>(ids.size()));
  in_chunks.feed(ids.first(reply));
  while (in_chunks.n_pending() > 0) step(engine, in_chunks);
  in_chunks.keep_all_logits(true);
  engine::Sequence one_by_one = in_chunks.fork();
  int row = 0;
  const auto give_row = [&](std::size_t row_of_chunk) -> Result<void> {
    const Logits both[] = {logits_row(in_chunks, row_of_chunk, vocab),
                           logits_row(one_by_one, 0, vocab)};
    for (const Logits logits : both) ASSAY_TRY_VOID(check_finite(logits, text, row, engine));
    on_row(row++, both);
    return {};
  };
  ASSAY_TRY_VOID(give_row(0));
  for (std::size_t at = reply, n; at + 1 < ids.size(); at += n) {
    n = std::min(ids.size() - 1 - at, chunk - at % chunk);
    in_chunks.feed(ids.subspan(at, n));
    step(engine, in_chunks);
    for (std::size_t r = 0; r < n; ++r) {
      one_by_one.feed(ids.subspan(at + r, 1));
      step(engine, one_by_one);
      ASSAY_TRY_VOID(give_row(r));
    }
  }
  return {};
}

Result<void> check_length(const std::string& id, std::size_t n_tokens, const engine::Engine& e) {
  if (n_tokens > static_cast<std::size_t>(e.info().max_positions))
    return fail(
        "text {}: {}, but {} has {} positions (max_position_embeddings): shorten the text "
        "or "
        "leave it out; of a captured base, by capturing it again",
        id, counted(n_tokens, "token"), e.info().model_dir, e.info().max_positions);
  return {};
}

// work(i, engines) for every text, on threads that have engines of their own; until `stop`.
Result<void> for_each_text(std::span<const engine::Engine* const> engines,
                           std::span<const Text> texts, int n_threads, const TextHook& on_text,
                           const std::stop_token& stop,
                           const std::function<Result<void>(std::size_t, Engines&)>& work) {
  for (const engine::Engine* e : engines) ASSAY_TRY_VOID(check_lengths(texts, *e));
  const int n_usable = n_threads > 0 ? n_threads : n_usable_cores();
  std::vector<Engines> of_threads(std::min(static_cast<std::size_t>(n_usable), texts.size()));
  for (Engines& own : of_threads)
    for (const engine::Engine* e : engines) {
      ASSAY_TRY(engine::Engine shared, e->share(1));
      own.push_back(std::move(shared));
    }
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::optional<Error> failed;
  int n_done = 0;
  const auto run = [&](Engines& own) {
    for (std::size_t i; !stop.stop_requested() && (i = next.fetch_add(1)) < texts.size();) {
      const Result<void> done = work(i, own);
      const std::lock_guard lock(mutex);
      if (!done && !failed) failed = done.error();
      if (failed) return;
      if (on_text) on_text(++n_done, static_cast<int>(texts.size()));
    }
  };
  {
    std::vector<std::jthread> threads;
    for (Engines& own : of_threads) threads.emplace_back(run, std::ref(own));
  }
  if (failed) return tl::unexpected(*failed);
  return {};
}

int predicted_token(const Text& text, int row) {
  return text.ids[static_cast<std::size_t>(text.reply) + static_cast<std::size_t>(row)];
}

TextPart part_of(const Text& text, int row) {
  return text.reply + row < text.answer ? TextPart::kThinking : TextPart::kAnswer;
}

std::vector<ScoredPosition> flatten(std::vector<std::vector<ScoredPosition>> by_text) {
  std::vector<ScoredPosition> out;
  for (auto& positions : by_text) out.insert(out.end(), positions.begin(), positions.end());
  return out;
}

}  // namespace

Result<std::vector<Text>> tokenize_texts(const std::vector<text::CorpusLine>& lines,
                                         const engine::Engine& engine) {
  std::vector<Text> out;
  for (const text::CorpusLine& line : lines) {
    auto tokenized = text::tokenize(line, engine.tokenizer(), engine.chat_template());
    if (!tokenized) return fail("text {}: {}", line.id, tokenized.error().message);
    text::CorpusText& t = *tokenized;
    const int n = static_cast<int>(t.ids.size());
    ASSAY_TRY_VOID(check_length(t.id, t.ids.size(), engine));
    if (t.reply >= n || t.reply < 1)
      return fail(
          "text {}: nothing to predict in it: expected a reply after the messages, or a text of "
          "two tokens and more",
          t.id);
    out.push_back({.id = t.id,
                   .lang = t.lang.empty() ? "?" : t.lang,
                   .ids = std::move(t.ids),
                   .reply = t.reply,
                   .answer = t.answer,
                   .positions = {}});
  }
  return out;
}

Result<void> check_lengths(std::span<const Text> texts, const engine::Engine& engine) {
  for (const Text& t : texts) ASSAY_TRY_VOID(check_length(t.id, t.ids.size(), engine));
  return {};
}

Result<void> capture(const engine::Engine& base, std::vector<Text>& texts, int n_threads,
                     const TextHook& on_text) {
  const engine::Engine* engines[] = {&base};
  return for_each_text(
      engines, texts, n_threads, on_text, {}, [&](std::size_t i, Engines& own) -> Result<void> {
        Text& text = texts[i];
        text.positions.clear();
        return read_reply(own, text, [&](int r, std::span<const Logits> logits) {
          text.positions.push_back(summarise_base(logits[0], predicted_token(text, r)));
        });
      });
}

Result<std::vector<ScoredPosition>> diverge_texts(const engine::Engine& base,
                                                  const engine::Engine& candidate,
                                                  const std::vector<Text>& texts, int n_threads,
                                                  const TextHook& on_text,
                                                  const std::stop_token& stop) {
  if (base.info().vocab != candidate.info().vocab)
    return fail("the base's vocabulary has {} tokens, the candidate's {}: they cannot be compared",
                base.info().vocab, candidate.info().vocab);
  std::vector<std::vector<ScoredPosition>> out(texts.size());
  const engine::Engine* engines[] = {&base, &candidate};
  const Result<void> done = for_each_text(
      engines, texts, n_threads, on_text, stop, [&](std::size_t i, Engines& own) -> Result<void> {
        const Text& text = texts[i];
        return read_reply(own, text, [&](int r, std::span<const Logits> logits) {
          out[i].push_back({static_cast<int>(i), text.lang, part_of(text, r), text.reply + r,
                            diverge(logits[0], logits[1], predicted_token(text, r))});
        });
      });
  if (!done) return tl::unexpected(done.error());
  return flatten(std::move(out));
}

Result<void> check_room_for_two(std::span<const Text> texts, const engine::CacheRoom& room) {
  for (const Text& t : texts)
    if (2 * room.taken_by(static_cast<std::int64_t>(t.ids.size())) > room.n_tokens)
      return fail(
          "text {}: decode against prefill reads its {} tokens twice, and each engine's caches "
          "have "
          "room for {}: plan larger caches with fewer --threads or a larger GPU, leave the text "
          "out, or measure none with --noise-texts 0",
          t.id, t.ids.size(), room.n_tokens);
  return {};
}

Result<std::vector<ScoredPosition>> diverge_decode(const engine::Engine& engine,
                                                   const std::vector<Text>& texts, int n_threads,
                                                   const TextHook& on_text,
                                                   const std::stop_token& stop) {
  ASSAY_TRY_VOID(check_room_for_two(texts, engine.cache_room()));
  std::vector<std::vector<ScoredPosition>> out(texts.size());
  const engine::Engine* engines[] = {&engine};
  const Result<void> done = for_each_text(
      engines, texts, n_threads, on_text, stop, [&](std::size_t i, Engines& own) -> Result<void> {
        const Text& text = texts[i];
        return read_reply_both_ways(own[0], text, [&](int r, std::span<const Logits> logits) {
          out[i].push_back({static_cast<int>(i), text.lang, part_of(text, r), text.reply + r,
                            diverge(logits[0], logits[1], predicted_token(text, r))});
        });
      });
  if (!done) return tl::unexpected(done.error());
  return flatten(std::move(out));
}

Result<std::vector<ScoredPosition>> diverge_texts(const DivergenceBase& base,
                                                  const engine::Engine& candidate, int n_threads,
                                                  const TextHook& on_text,
                                                  const std::stop_token& stop) {
  if (base.vocab != candidate.info().vocab)
    return fail("the base's vocabulary has {} tokens, the candidate's {}: they cannot be compared",
                base.vocab, candidate.info().vocab);
  std::vector<std::vector<ScoredPosition>> out(base.texts.size());
  const engine::Engine* engines[] = {&candidate};
  const Result<void> done = for_each_text(
      engines, base.texts, n_threads, on_text, stop,
      [&](std::size_t i, Engines& own) -> Result<void> {
        const Text& text = base.texts[i];
        return read_reply(own, text, [&](int r, std::span<const Logits> logits) {
          out[i].push_back({static_cast<int>(i), text.lang, part_of(text, r), text.reply + r,
                            diverge(text.positions[static_cast<std::size_t>(r)], logits[0])});
        });
      });
  if (!done) return tl::unexpected(done.error());
  return flatten(std::move(out));
}

}  // namespace assay::harness
