#include "harness/engine_target.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "base/check.h"
#include "base/plural.h"
#include "base/thread_pool.h"

namespace assay::harness {
namespace {

engine::GenerateRequest to_engine(const Request& request) {
  engine::GenerateRequest out;
  out.prompt = request.prompt;
  const Sampling& s = request.sampling;
  out.sampling = {s.temperature, s.top_p.value_or(1), s.top_k.value_or(0), s.min_p.value_or(0),
                  s.repetition_penalty.value_or(1)};
  out.seed = request.seed;
  out.stream = request.stream;
  out.max_tokens = request.max_tokens;
  out.max_thinking_tokens = request.max_thinking_tokens;
  out.force_close = request.force_close;
  out.n_top = StepFigures::kTop;
  return out;
}

Reply from_engine(const engine::Completion& completion) {
  Reply reply;
  reply.ids = completion.ids();
  reply.finish = name_of(completion.finish);
  for (const engine::GeneratedToken& t : completion.tokens) {
    reply.forced_close |= t.forced;
    StepFigures& step = reply.steps.emplace_back();
    step = {.logprob = t.logprob, .p_think_close = t.p_think_close, .p_eos = t.p_eos, .top = {}};
    for (std::size_t k = 0; k < t.top.size(); ++k) step.top[k] = {t.top[k].first, t.top[k].second};
  }
  DrawFigures& draws = reply.draws.emplace();
  draws.n_drawn = completion.draws.n_drawn;
  draws.n_impossible = completion.draws.n_impossible;
  if (draws.n_drawn > 0)
    for (std::size_t k = 0; k < engine::kDrawAlternatives.size(); ++k)
      draws.log_ratio.emplace(engine::kDrawAlternatives[k], completion.draws.log_ratio[k]);
  reply.prefill_s = completion.prefill_s;
  reply.decode_s = completion.decode_s;
  return reply;
}

// Fewer shared tokens are not worth a fork of the cache.
constexpr std::size_t kLeastShared = 256;

// Requests that follow each other and begin with the same `n_shared` tokens: read once, forked for
// each. Every request stands in one group, most of them alone and sharing nothing.
struct Group {
  std::size_t first = 0, n_requests = 1, n_shared = 0;
};

std::size_t common_prefix(std::span<const int> a, std::span<const int> b) {
  const auto end = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first;
  return static_cast<std::size_t>(end - a.begin());
}

// Of a request's prompts, what may be read for it by another: all but a token, whose logits its own
// sequence needs.
std::size_t shareable(const Request& r) {
  const auto all_but_one = [](const std::vector<int>& ids) {
    return ids.empty() ? 0 : ids.size() - 1;
  };
  if (r.reask_prompt.empty()) return all_but_one(r.prompt);
  return std::min({all_but_one(r.prompt), all_but_one(r.reask_prompt),
                   common_prefix(r.prompt, r.reask_prompt)});
}

// What is shared is a multiple of `step` tokens.
std::vector<Group> group_by_prefix(std::span<const Request> requests, std::size_t step) {
  std::vector<Group> groups;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const Request& r = requests[i];
    // A group goes to one worker: no more of it than that asks at a time.
    if (!groups.empty() && groups.back().n_requests < EngineTarget::kMaxBatch) {
      Group& last = groups.back();
      const std::size_t limit =
          last.n_requests > 1 ? last.n_shared : shareable(requests[last.first]);
      const std::size_t shared =
          std::min({limit, shareable(r), common_prefix(requests[last.first].prompt, r.prompt)}) /
          step * step;
      // Worth it if most of what is read is shared.
      if (shared >= kLeastShared && 2 * shared >= r.prompt.size()) {
        last.n_shared = shared;
        ++last.n_requests;
        continue;
      }
    }
    // Alone, it shares with its own re-ask.
    const std::size_t own = r.reask_prompt.empty() ? 0 : shareable(r) / step * step;
    groups.push_back({i, 1, own < kLeastShared ? 0 : own});
  }
  return groups;
}

// Tokens of cache that a request may take, its re-ask included, which follows its reply.
std::int64_t cache_of(const Request& r, const engine::Engine& engine) {
  const auto most =
      static_cast<std::int64_t>(std::max(r.prompt.size(), r.reask_prompt.size())) + r.max_tokens;
  return engine.cache_room().taken_by(std::min<std::int64_t>(most, engine.info().max_positions));
}

// And a group, with what it shares.
std::int64_t cache_of(const Group& group, std::span<const Request> requests,
                      const engine::Engine& engine) {
  std::int64_t total = engine.cache_room().taken_by(static_cast<std::int64_t>(group.n_shared));
  for (const Request& r : requests.subspan(group.first, group.n_requests))
    total += cache_of(r, engine);
  return total;
}

// Where the caches cannot hold what is shared beside the longest of its requests, nothing is.
Group fitting(Group group, std::span<const Request> requests, const engine::Engine& engine) {
  const engine::CacheRoom room = engine.cache_room();
  for (const Request& r : requests.subspan(group.first, group.n_requests))
    if (room.taken_by(static_cast<std::int64_t>(group.n_shared)) + cache_of(r, engine) >
        room.n_tokens)
      group.n_shared = 0;
  return group;
}

// Of an engine's caches, what a group in flight may take, until the last of its replies.
class CacheShare {
 public:
  CacheShare(std::int64_t& promised, std::int64_t n) : promised_(promised), n_(n) {
    promised_ += n_;
  }
  ~CacheShare() { promised_ -= n_; }
  CacheShare(const CacheShare&) = delete;

 private:
  std::int64_t& promised_;
  const std::int64_t n_;
};

StepFigures figures_of(std::span<const float> logits, int id, const TokenRoles& roles) {
  std::vector<int> watched;
  if (roles.think_close) watched.push_back(*roles.think_close);
  watched.insert(watched.end(), roles.stop.begin(), roles.stop.end());
  const engine::Sampled s = engine::sample(logits, {}, {}, {}, StepFigures::kTop, watched);
  StepFigures step;
  step.logprob =
      static_cast<float>(logits[static_cast<std::size_t>(id)] - engine::logsumexp(logits));
  auto watched_p = s.watched_probability.begin();
  if (roles.think_close) step.p_think_close = *watched_p++;
  for (; watched_p != s.watched_probability.end(); ++watched_p) step.p_eos += *watched_p;
  for (std::size_t k = 0; k < s.top.size(); ++k) step.top[k] = {s.top[k].first, s.top[k].second};
  return step;
}

// Empty when a stop was requested.
Result<std::vector<StepFigures>> score_given(engine::Engine& engine, const GivenReply& given,
                                             const TokenRoles& roles, const std::stop_token& stop) {
  const engine::EngineInfo& info = engine.info();
  const auto in_vocabulary = [&](int id) { return id >= 0 && id < info.vocab; };
  if (given.prompt.empty() ||
      !std::all_of(given.prompt.begin(), given.prompt.end(), in_vocabulary) ||
      !std::all_of(given.ids.begin(), given.ids.end(), in_vocabulary))
    return fail("expected a prompt and ids from 0 to {} (the model's vocabulary)", info.vocab - 1);
  if (given.prompt.size() + given.ids.size() > static_cast<std::size_t>(info.max_positions))
    return fail("prompt and reply have {}, the model has {}",
                counted(given.prompt.size() + given.ids.size(), "token"),
                counted(info.max_positions, "position"));
  std::vector<StepFigures> steps;
  if (given.ids.empty()) return steps;
  engine::Sequence sequence =
      engine.new_sequence(static_cast<int>(given.prompt.size() + given.ids.size()));
  engine::Sequence* batch[] = {&sequence};
  sequence.feed(given.prompt);
  while (sequence.n_pending() > 0 && !stop.stop_requested()) engine.step(batch);
  const auto take = [&] {
    const auto vocab = static_cast<std::size_t>(info.vocab);
    for (int row = 0; row < sequence.n_logit_rows(); ++row) {
      const auto logits = sequence.logits().subspan(static_cast<std::size_t>(row) * vocab, vocab);
      if (!std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); }))
        return false;
      steps.push_back(figures_of(logits, given.ids[steps.size()], roles));
    }
    return true;
  };
  bool finite = stop.stop_requested() || take();
  sequence.keep_all_logits(true);
  // Logits are about the next token: the reply's last one is never read.
  sequence.feed(std::span(given.ids).first(given.ids.size() - 1));
  while (finite && sequence.n_pending() > 0 && !stop.stop_requested()) {
    engine.step(batch);
    finite = take();
  }
  if (!finite) return fail("NaN or Inf in the logits at reply token {}", steps.size());
  return steps;
}

}  // namespace

EngineTarget::EngineTarget(engine::Engine engine, int n_workers)
    : engine_(std::move(engine)), n_workers_(n_workers > 0 ? n_workers : n_usable_cores()) {
  const text::Tokenizer& tokenizer = engine_.tokenizer();
  roles_.think_open = tokenizer.id_of(text::kThinkOpen);
  roles_.think_close = tokenizer.id_of(text::kThinkClose);
  roles_.stop = engine_.info().stop_ids;
}

int EngineTarget::n_engines(int n_workers, std::size_t n_tasks) {
  const int n = n_workers > 0 ? n_workers : n_usable_cores();
  // What is clocked or looked at has an engine of its own, though nothing is asked.
  return 1 + static_cast<int>(std::clamp<std::size_t>(n_tasks, 1, static_cast<std::size_t>(n)));
}

Json EngineTarget::describe() const {
  Json json = engine_.info().to_json();
  json["kind"] = "engine";
  json["n_workers"] = n_workers_;
  json["max_batch"] = kMaxBatch;
  return json;
}

Json EngineTarget::identity() const {
  const engine::EngineInfo& info = engine_.info();
  Json json = {
      {"model", info.fingerprint},
      {"tokenizer", engine_.tokenizer().fingerprint()},
      {"chat_template", engine_.chat_template().fingerprint()},
      {"backend", info.arithmetic == "f32" ? info.backend : info.backend + '/' + info.arithmetic},
      {"attention", info.attention}};
  if (info.tensor_parallel > 1) json["tensor_parallel"] = info.tensor_parallel;
  if (info.planted_fault.is_planted()) json["planted_fault"] = info.planted_fault.text();
  return json;
}

Result<Prompt> EngineTarget::render(const OrderedJson& messages, bool enable_thinking) const {
  text::ChatOptions options;
  options.enable_thinking = enable_thinking;
  Prompt prompt;
  ASSAY_TRY(prompt.text, engine_.chat_template().render(messages, options));
  ASSAY_TRY(prompt.ids, engine_.tokenizer().encode(prompt.text));
  return prompt;
}

Result<std::vector<int>> EngineTarget::encode(std::string_view text) const {
  return engine_.tokenizer().encode(text);
}

std::string EngineTarget::decode(std::span<const int> ids) const {
  const auto text = engine_.tokenizer().decode(ids, true);
  CHECK(text.has_value()) << "the engine produced an id that its tokenizer does not know: "
                          << text.error().message;
  return *text;
}

Result<void> EngineTarget::complete(std::span<const Request> requests, const OnDone& on_done,
                                    const std::function<void()>& on_token, std::stop_token stop) {
  // In bfloat16 a prompt's bits depend on where it is cut: where it would be anyhow.
  const engine::EngineInfo& info = engine_.info();
  const std::vector<Group> groups = group_by_prefix(
      requests, info.arithmetic == "f32" ? 1 : static_cast<std::size_t>(info.prefill_chunk));
  std::atomic<std::size_t> next{0};
  std::mutex done_mutex;
  const auto report = [&](std::size_t index, Result<Reply> reply) {
    const std::lock_guard lock(done_mutex);
    on_done(index, std::move(reply));
  };
  const auto work = [&](engine::Engine& engine) {
    engine::Generator generator(engine, kMaxBatch);
    std::size_t n_prompt_tokens = 0;  // of what is in flight
    // A re-ask has the ticket of its request plus the number of requests.
    std::map<std::uint64_t, Reply> first_replies;
    std::map<std::uint64_t, std::shared_ptr<const engine::Sequence>> prefixes;
    std::int64_t promised = 0;  // tokens of cache
    std::map<std::uint64_t, std::shared_ptr<const CacheShare>> shares;
    const auto has_room = [&](const Group& group) {
      return promised + cache_of(group, requests, engine) <= engine.cache_room().n_tokens;
    };
    const auto read_prefix = [&](const Group& group) {
      auto prefix =
          std::make_shared<engine::Sequence>(engine.new_sequence(static_cast<int>(group.n_shared)));
      prefix->feed(std::span(requests[group.first].prompt).first(group.n_shared));
      engine::Sequence* batch[] = {prefix.get()};
      while (prefix->n_pending() > 0 && !stop.stop_requested()) engine.step(batch);
      return prefix;
    };
    const auto submit = [&](const Group& group) {
      std::shared_ptr<const engine::Sequence> prefix;
      if (group.n_shared > 0) prefix = read_prefix(group);
      if (stop.stop_requested()) return;
      const auto share =
          std::make_shared<const CacheShare>(promised, cache_of(group, requests, engine));
      for (std::size_t i = group.first; i < group.first + group.n_requests; ++i) {
        engine::GenerateRequest request = to_engine(requests[i]);
        request.prefix = prefix;
        const auto queued = generator.submit(i, std::move(request));
        if (!queued) {
          report(i, tl::unexpected(queued.error()));
          continue;
        }
        n_prompt_tokens += requests[i].prompt.size();
        shares[i] = share;
        if (requests[i].should_reask) prefixes[i] = prefix;
      }
    };
    // True if the reply is not the last word: the question is put again.
    const auto reasked = [&](std::uint64_t ticket, Reply& reply) {
      const auto prefix = prefixes.extract(ticket);
      if (prefix.empty() || !requests[ticket].should_reask(reply)) return false;
      engine::GenerateRequest request = to_engine(requests[ticket]);
      request.prompt = requests[ticket].reask_prompt;
      request.prefix = prefix.mapped();
      if (!generator.submit(ticket + requests.size(), std::move(request))) return false;
      n_prompt_tokens += requests[ticket].reask_prompt.size();
      first_replies.emplace(ticket, std::move(reply));
      return true;
    };
    std::optional<std::size_t> taken_up;  // a group, perhaps waiting for room
    while (!stop.stop_requested()) {
      while (generator.n_unfinished() < kMaxBatch && n_prompt_tokens < kMaxPromptTokens) {
        if (!taken_up) taken_up = next.fetch_add(1);
        if (*taken_up >= groups.size()) break;
        const Group group = fitting(groups[*taken_up], requests, engine);
        if (!generator.idle() && !has_room(group)) break;
        submit(group);
        taken_up.reset();
      }
      if (generator.idle()) return;
      for (auto& finished :
           generator.advance([&](std::uint64_t, const engine::GeneratedToken&) { on_token(); })) {
        Reply reply = from_engine(finished.completion);
        n_prompt_tokens -= static_cast<std::size_t>(finished.completion.n_prompt_tokens);
        if (finished.ticket >= requests.size()) {
          const std::uint64_t ticket = finished.ticket - requests.size();
          Reply first = std::move(first_replies.extract(ticket).mapped());
          first.reasked.push_back(std::move(reply));
          shares.erase(ticket);
          report(ticket, std::move(first));
        } else if (!reasked(finished.ticket, reply)) {
          shares.erase(finished.ticket);
          report(finished.ticket, std::move(reply));
        }
      }
    }
  };
  return run_workers(groups.size(), work);
}

Result<void> EngineTarget::run_workers(std::size_t n_tasks,
                                       const std::function<void(engine::Engine&)>& work) const {
  const auto n = std::min<std::size_t>(static_cast<std::size_t>(n_workers_), n_tasks);
  // All of them before anything is asked: what cannot be made is an error, not half a run.
  std::vector<engine::Engine> engines;
  for (std::size_t i = 0; i < n; ++i) {
    ASSAY_TRY(engine::Engine own, engine_.share(1));
    engines.push_back(std::move(own));
  }
  std::vector<std::jthread> workers;
  for (engine::Engine& own : engines) workers.emplace_back(work, std::ref(own));
  return {};
}

Result<void> EngineTarget::score(std::span<const GivenReply> replies, const OnScored& on_done,
                                 std::stop_token stop) {
  std::atomic<std::size_t> next{0};
  std::mutex done_mutex;
  return run_workers(replies.size(), [&](engine::Engine& engine) {
    while (!stop.stop_requested()) {
      const std::size_t index = next.fetch_add(1);
      if (index >= replies.size()) return;
      auto steps = score_given(engine, replies[index], roles_, stop);
      if (stop.stop_requested()) return;
      const std::lock_guard lock(done_mutex);
      on_done(index, std::move(steps));
    }
  });
}

}  // namespace assay::harness
