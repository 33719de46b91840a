// Divergence of engines over texts. Memory: a thread holds one prefill chunk's logits per engine,
// (prefill_chunk, vocab) floats, and of what it has read only the figures of every position.
#pragma once

#include <functional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "engine/text/corpus.h"
#include "harness/divergence_base.h"

namespace assay::harness {

// Tokenised as `engine` does. Texts longer than its context, or without a reply, are errors.
Result<std::vector<DivergenceBase::Text>> tokenize_texts(const std::vector<text::CorpusLine>& lines,
                                                         const engine::Engine& engine);

// Longer than the engine's context: an error that names the text. A base's texts may be too long
// for a candidate; every function below that reads texts checks this first.
Result<void> check_lengths(std::span<const DivergenceBase::Text> texts,
                           const engine::Engine& engine);

// One call for each finished text, from one thread at a time.
using TextHook = std::function<void(int n_done, int n_total)>;

// Fills `texts[i].positions` with what the engine says of every reply token. n_threads 0: every
// usable core; texts are shared out to them. NaN or infinity in the logits is an error.
Result<void> capture(const engine::Engine& base, std::vector<DivergenceBase::Text>& texts,
                     int n_threads, const TextHook& on_text);

// Base and candidate side by side, over the whole vocabulary … When `stop` is requested no further
// text is begun, and what is returned is of no use.
Result<std::vector<ScoredPosition>> diverge_texts(const engine::Engine& base,
                                                  const engine::Engine& candidate,
                                                  const std::vector<DivergenceBase::Text>& texts,
                                                  int n_threads, const TextHook& on_text,
                                                  const std::stop_token& stop = {});
// … or a candidate against captured positions.
Result<std::vector<ScoredPosition>> diverge_texts(const DivergenceBase& base,
                                                  const engine::Engine& candidate, int n_threads,
                                                  const TextHook& on_text,
                                                  const std::stop_token& stop = {});

// Longer than half of `room`, which has to hold a text twice: an error that names the text.
Result<void> check_room_for_two(std::span<const DivergenceBase::Text> texts,
                                const engine::CacheRoom& room);

// An engine against itself: the reply read in chunks, as all above do, and a token at a time, as it
// is when it is made. The prompt is read in chunks by both. Zero where the engine's info says that
// prefill_equals_decode. Each text is in the caches twice, so one that is too long for that is an
// error before any is read.
Result<std::vector<ScoredPosition>> diverge_decode(const engine::Engine& engine,
                                                   const std::vector<DivergenceBase::Text>& texts,
                                                   int n_threads, const TextHook& on_text,
                                                   const std::stop_token& stop = {});

}  // namespace assay::harness
