#include "harness/divergence_run.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <optional>
#include <thread>

#include "base/thread_pool.h"

namespace assay::harness {
namespace {

using Text = DivergenceBase::Text;

// Logits that predict the reply's tokens: row i is of ids[reply + i].
class ReplyLogits {
 public:
  ReplyLogits(engine::Engine& engine, const Text& text)
      : engine_(engine), vocab_(engine.info().vocab) {
    engine::Sequence s = engine_.new_sequence();
    const std::span<const int> ids = text.ids;
    const auto reply = static_cast<std::size_t>(text.reply);
    s.feed(ids.first(reply));
    run(s);
    if (reply == ids.size()) return;
    s.keep_all_logits(true);
    s.feed(ids.subspan(reply, ids.size() - reply - 1));
    run(s);
  }
  int n_rows() const { return static_cast<int>(values_.size()) / vocab_; }
  std::span<const float> row(int i) const {
    return std::span(values_).subspan(
        static_cast<std::size_t>(i) * static_cast<std::size_t>(vocab_),
        static_cast<std::size_t>(vocab_));
  }
  Result<void> check_finite(const Text& text) const {
    for (std::size_t i = 0; i < values_.size(); ++i)
      if (!std::isfinite(values_[i]))
        return fail(
            "text {}: NaN or infinity in the logits of token {}: nothing can be said of this model",
            text.id, text.reply + static_cast<int>(i) / vocab_);
    return {};
  }

 private:
  void run(engine::Sequence& s) {
    while (s.n_pending() > 0) {
      engine::Sequence* batch[] = {&s};
      engine_.step(batch);
      const auto logits = s.logits();
      values_.insert(values_.end(), logits.begin(), logits.end());
    }
  }
  engine::Engine& engine_;
  int vocab_;
  std::vector<float> values_;
};

// work(i, engines) for every text, on threads that have engines of their own.
using Engines = std::vector<engine::Engine>;
Result<void> for_each_text(std::span<const engine::Engine* const> engines, std::size_t n_texts,
                           int n_threads, const TextHook& on_text,
                           const std::function<Result<void>(std::size_t, Engines&)>& work) {
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::optional<Error> failed;
  int n_done = 0;
  const auto run = [&] {
    Engines own;
    for (const engine::Engine* e : engines) own.push_back(e->share(1));
    for (std::size_t i; (i = next.fetch_add(1)) < n_texts;) {
      const Result<void> done = work(i, own);
      const std::lock_guard lock(mutex);
      if (!done && !failed) failed = done.error();
      if (failed) return;
      if (on_text) on_text(++n_done, static_cast<int>(n_texts));
    }
  };
  {
    std::vector<std::jthread> threads;
    const int n = n_threads > 0 ? n_threads : n_usable_cores();
    for (int t = 0; t < std::min<int>(n, static_cast<int>(n_texts)); ++t) threads.emplace_back(run);
  }
  if (failed) return tl::unexpected(*failed);
  return {};
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
    if (n > engine.info().max_positions)
      return fail("text {}: {} tokens, the model has {} positions", t.id, n,
                  engine.info().max_positions);
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

Result<void> capture(const engine::Engine& base, std::vector<Text>& texts, int n_threads,
                     const TextHook& on_text) {
  const engine::Engine* engines[] = {&base};
  return for_each_text(
      engines, texts.size(), n_threads, on_text, [&](std::size_t i, Engines& own) -> Result<void> {
        Text& text = texts[i];
        const ReplyLogits logits(own[0], text);
        ASSAY_TRY_VOID(logits.check_finite(text));
        text.positions.clear();
        for (int r = 0; r < logits.n_rows(); ++r)
          text.positions.push_back(
              summarise_base(logits.row(r), text.ids[static_cast<std::size_t>(text.reply + r)]));
        return {};
      });
}

Result<std::vector<ScoredPosition>> diverge_texts(const engine::Engine& base,
                                                  const engine::Engine& candidate,
                                                  const std::vector<Text>& texts, int n_threads,
                                                  const TextHook& on_text) {
  if (base.info().vocab != candidate.info().vocab)
    return fail("the base's vocabulary has {} tokens, the candidate's {}: they cannot be compared",
                base.info().vocab, candidate.info().vocab);
  std::vector<std::vector<ScoredPosition>> out(texts.size());
  const engine::Engine* engines[] = {&base, &candidate};
  const Result<void> done = for_each_text(
      engines, texts.size(), n_threads, on_text, [&](std::size_t i, Engines& own) -> Result<void> {
        const Text& text = texts[i];
        const ReplyLogits b(own[0], text), c(own[1], text);
        ASSAY_TRY_VOID(b.check_finite(text));
        ASSAY_TRY_VOID(c.check_finite(text));
        for (int r = 0; r < b.n_rows(); ++r)
          out[i].push_back(
              {static_cast<int>(i), text.lang, part_of(text, r), text.reply + r,
               diverge(b.row(r), c.row(r), text.ids[static_cast<std::size_t>(text.reply + r)])});
        return {};
      });
  if (!done) return tl::unexpected(done.error());
  return flatten(std::move(out));
}

Result<std::vector<ScoredPosition>> diverge_texts(const DivergenceBase& base,
                                                  const engine::Engine& candidate, int n_threads,
                                                  const TextHook& on_text) {
  if (base.vocab != candidate.info().vocab)
    return fail("the base's vocabulary has {} tokens, the candidate's {}: they cannot be compared",
                base.vocab, candidate.info().vocab);
  std::vector<std::vector<ScoredPosition>> out(base.texts.size());
  const engine::Engine* engines[] = {&candidate};
  const Result<void> done = for_each_text(
      engines, base.texts.size(), n_threads, on_text,
      [&](std::size_t i, Engines& own) -> Result<void> {
        const Text& text = base.texts[i];
        const ReplyLogits c(own[0], text);
        ASSAY_TRY_VOID(c.check_finite(text));
        for (int r = 0; r < c.n_rows(); ++r)
          out[i].push_back({static_cast<int>(i), text.lang, part_of(text, r), text.reply + r,
                            diverge(text.positions[static_cast<std::size_t>(r)], c.row(r))});
        return {};
      });
  if (!done) return tl::unexpected(done.error());
  return flatten(std::move(out));
}

}  // namespace assay::harness
