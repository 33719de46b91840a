#include "engine/generate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <list>
#include <numeric>
#include <optional>

#include "base/check.h"
#include "base/plural.h"
#include "engine/engine.h"

namespace assay::engine {
namespace {

using Clock = std::chrono::steady_clock;

double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

struct Request {
  std::uint64_t ticket;
  GenerateRequest request;
  Clock::time_point submitted;
};

struct Active {
  std::uint64_t ticket;
  GenerateRequest request;
  Sequence sequence;
  std::vector<int> history;  // prompt and reply
  std::vector<int> watched;  // </think>, if there is one, then the stop ids
  bool thinking;
  Completion completion;
  DrawCheck draws;
  Clock::time_point submitted, first_token, last_token;
};

bool contains(const std::vector<int>& ids, int id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

std::string_view name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kThinkingBudget:
      return "thinking_budget";
    case FinishReason::kContext:
      return "context";
    case FinishReason::kNonFinite:
      return "non_finite";
  }
  return "unknown";
}

std::vector<int> Completion::ids() const {
  std::vector<int> out;
  for (const GeneratedToken& t : tokens) out.push_back(t.id);
  return out;
}

struct Generator::Impl {
  Engine& engine;
  int max_batch;
  std::optional<int> think_open, think_close;
  std::deque<Request> queue;
  std::list<Active> active;

  // Whether the prompt leaves the model inside an open <think>.
  bool opens_thinking(const std::vector<int>& prompt) const {
    for (auto it = prompt.rbegin(); it != prompt.rend(); ++it) {
      if (think_close && *it == *think_close) return false;
      if (think_open && *it == *think_open) return true;
    }
    return false;
  }

  // Tokens that a request may come to: the last token of a reply is never read.
  int most_tokens(const GenerateRequest& r) const {
    return static_cast<int>(std::min(static_cast<std::int64_t>(r.prompt.size()) + r.max_tokens - 1,
                                     static_cast<std::int64_t>(engine.info().max_positions)));
  }

  // In their order, as far as there is room.
  bool has_room() const {
    const CacheRoom room = engine.cache_room();
    const bool has = room.taken_by(most_tokens(queue.front().request)) <= room.n_free;
    CHECK(has || !active.empty()) << room.n_free << " of " << room.n_tokens
                                  << " tokens of cache are free: who else holds them?";
    return has;
  }

  void admit() {
    while (!queue.empty() && static_cast<int>(active.size()) < max_batch && has_room()) {
      Request next = std::move(queue.front());
      queue.pop_front();
      const Sequence* prefix = next.request.prefix.get();
      const int n_tokens = most_tokens(next.request);
      Sequence sequence = prefix ? prefix->fork(n_tokens) : engine.new_sequence(n_tokens);
      sequence.feed(std::span(next.request.prompt)
                        .subspan(static_cast<std::size_t>(prefix ? prefix->n_tokens() : 0)));
      const bool thinking = opens_thinking(next.request.prompt);
      Completion completion;
      completion.n_prompt_tokens = static_cast<int>(next.request.prompt.size());
      completion.thinking_closed = !thinking;
      std::vector<int> history = next.request.prompt, watched = next.request.stop_ids;
      if (think_close) watched.insert(watched.begin(), *think_close);
      const DrawCheck draws(next.request.sampling);
      active.push_back(Active{.ticket = next.ticket,
                              .request = std::move(next.request),
                              .sequence = std::move(sequence),
                              .history = std::move(history),
                              .watched = std::move(watched),
                              .thinking = thinking,
                              .completion = std::move(completion),
                              .draws = draws,
                              .submitted = next.submitted,
                              .first_token = {},
                              .last_token = {}});
    }
  }

  SampleRequest next_request(const Active& a) const {
    return {.params = a.request.sampling,
            .key = {a.request.seed, a.request.stream, a.history.size()},
            .history = a.history,
            .n_top = a.request.n_top,
            .watched = a.watched};
  }

  // A fault of draws sits in place of the sampler, so it needs the logits.
  bool needs_logits() const { return engine.info().planted_fault.is_of_draws(); }

  // Takes the next token of a request that has been read; returns why it ended, if it did.
  std::optional<FinishReason> take_token(Active& a) {
    const std::vector<int>& stop = a.request.stop_ids;
    const Sampled s = needs_logits() ? sample_with_fault(engine.info().planted_fault,
                                                         a.sequence.logits(), next_request(a))
                                     : *a.sequence.sampled();
    if (s.id < 0) return FinishReason::kNonFinite;
    if (s.place) a.draws.see(*s.place);

    const float p_close = think_close ? s.watched_probability[0] : 0.0f;
    const auto first_stop = s.watched_probability.begin() + (think_close ? 1 : 0);
    const float p_eos = std::accumulate(first_stop, s.watched_probability.end(), 0.0f);
    const bool forced = a.thinking && a.request.force_close && a.request.max_thinking_tokens > 0 &&
                        a.completion.n_thinking_tokens >= a.request.max_thinking_tokens &&
                        s.id != *think_close;
    const int id = forced ? *think_close : s.id;
    a.completion.tokens.push_back(
        {id, forced ? std::log(p_close) : s.logprob, p_close, p_eos, s.top, forced});
    a.history.push_back(id);
    a.last_token = Clock::now();
    if (a.completion.tokens.size() == 1) a.first_token = a.last_token;

    if (contains(stop, id)) return FinishReason::kStop;
    if (a.thinking && think_close && id == *think_close) {
      a.thinking = false;
      a.completion.thinking_closed = true;
    } else if (a.thinking) {
      ++a.completion.n_thinking_tokens;
    }
    if (static_cast<int>(a.completion.tokens.size()) >= a.request.max_tokens)
      return FinishReason::kLength;
    if (a.thinking && a.request.max_thinking_tokens > 0 && !a.request.force_close &&
        a.completion.n_thinking_tokens >= a.request.max_thinking_tokens)
      return FinishReason::kThinkingBudget;
    if (static_cast<int>(a.history.size()) >= engine.info().max_positions)
      return FinishReason::kContext;
    a.sequence.feed(std::span(&a.history.back(), 1));
    return std::nullopt;
  }
};

Generator::Generator(Engine& engine, int max_batch)
    : impl_(new Impl{.engine = engine,
                     .max_batch = max_batch,
                     .think_open = engine.tokenizer().id_of(text::kThinkOpen),
                     .think_close = engine.tokenizer().id_of(text::kThinkClose),
                     .queue = {},
                     .active = {}}) {
  CHECK(max_batch > 0) << max_batch;
}

Generator::~Generator() = default;

Result<void> Generator::submit(std::uint64_t ticket, GenerateRequest request) {
  const EngineInfo& info = impl_->engine.info();
  if (request.prompt.empty()) return fail("the prompt is empty, expected at least one token");
  for (std::size_t i = 0; i < request.prompt.size(); ++i)
    if (request.prompt[i] < 0 || request.prompt[i] >= info.vocab)
      return fail("prompt token {} has id {}, expected 0 to {} (the model's vocabulary)", i,
                  request.prompt[i], info.vocab - 1);
  if (static_cast<int>(request.prompt.size()) >= info.max_positions)
    return fail(
        "the prompt has {}, but the model has {} (max_position_embeddings, or "
        "--context) and "
        "the reply "
        "needs at least one. Shorten the prompt.",
        counted(request.prompt.size(), "token"), counted(info.max_positions, "position"));
  if (request.force_close && !impl_->think_close)
    return fail("the tokenizer has no {}, so thinking cannot be closed at its budget",
                text::kThinkClose);
  if (request.prefix) {
    CHECK(request.prefix->n_pending() == 0) << "a prefix is still being read";
    CHECK(request.prefix->n_tokens() < static_cast<int>(request.prompt.size()))
        << request.prefix->n_tokens() << " of " << request.prompt.size();
  }
  if (request.max_tokens < 1)
    return fail("max_tokens is {}, expected at least 1", request.max_tokens);
  const CacheRoom room = impl_->engine.cache_room();
  const int most = impl_->most_tokens(request),
            held = request.prefix ? request.prefix->n_tokens() : 0;
  if (room.taken_by(most) + room.taken_by(held) > room.n_tokens)
    return fail(
        "prompt and reply may come to {} tokens, beside a prefix of {}: the engine's caches have "
        "room for {}. Read the prompt without a prefix, or plan fewer engines.",
        most, held, room.n_tokens);
  if (!(request.sampling.temperature >= 0))
    return fail("temperature is {}, expected 0 (greedy) or more", request.sampling.temperature);
  if (request.n_top < 0 || request.n_top > kernels::kMaxTop)
    return fail("log probabilities of {} tokens per step were asked for, expected 0 to {}",
                request.n_top, kernels::kMaxTop);
  if (request.stop_ids.empty()) request.stop_ids = info.stop_ids;
  // One place is </think>'s.
  if (request.stop_ids.size() >= static_cast<std::size_t>(kernels::kMaxWatched))
    return fail("{} stop ids, expected at most {}", request.stop_ids.size(),
                kernels::kMaxWatched - 1);
  for (const int id : request.stop_ids)
    if (id < 0 || id >= info.vocab)
      return fail("stop id {} is not in the vocabulary (0 to {})", id, info.vocab - 1);
  impl_->queue.push_back({ticket, std::move(request), Clock::now()});
  return {};
}

bool Generator::idle() const { return impl_->queue.empty() && impl_->active.empty(); }

int Generator::n_unfinished() const {
  return static_cast<int>(impl_->queue.size() + impl_->active.size());
}

std::vector<Generator::Finished> Generator::advance(
    const std::function<void(std::uint64_t, const GeneratedToken&)>& on_token) {
  impl_->admit();
  std::vector<Sequence*> batch;
  for (Active& a : impl_->active) {
    if (!impl_->needs_logits()) a.sequence.ask(impl_->next_request(a));
    batch.push_back(&a.sequence);
  }
  impl_->engine.step(batch);

  std::vector<Finished> finished;
  for (auto it = impl_->active.begin(); it != impl_->active.end();) {
    if (it->sequence.n_pending() > 0) {  // still reading its prompt
      ++it;
      continue;
    }
    const std::size_t n_before = it->completion.tokens.size();
    const auto reason = impl_->take_token(*it);
    if (on_token && it->completion.tokens.size() > n_before)
      on_token(it->ticket, it->completion.tokens.back());
    if (!reason) {
      ++it;
      continue;
    }
    it->completion.finish = *reason;
    it->completion.draws = it->draws.figures();
    if (!it->completion.tokens.empty()) {
      it->completion.prefill_s = seconds(it->first_token - it->submitted);
      it->completion.decode_s = seconds(it->last_token - it->first_token);
    }
    finished.push_back({it->ticket, std::move(it->completion)});
    it = impl_->active.erase(it);
  }
  return finished;
}

Result<Completion> generate(Engine& engine, GenerateRequest request,
                            const std::function<void(const GeneratedToken&)>& on_token) {
  Generator generator(engine, 1);
  ASSAY_TRY_VOID(generator.submit(0, std::move(request)));
  while (true) {
    auto finished = generator.advance([&](std::uint64_t, const GeneratedToken& t) {
      if (on_token) on_token(t);
    });
    if (!finished.empty()) return std::move(finished.front().completion);
  }
}

}  // namespace assay::engine
