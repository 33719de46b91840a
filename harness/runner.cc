#include "harness/runner.h"

#include <fmt/ranges.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <stop_token>
#include <thread>

#include "base/hash.h"
#include "base/plural.h"
#include "harness/needle_source.h"
#include "harness/score.h"

namespace assay::harness {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kTick = std::chrono::milliseconds(100);

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A planned sample before it is asked.
struct Waiting {
  Sample sample;
  Question question;
};

Sample blank_sample(const Plan& plan, const PlanItem& item) {
  const Case& c = plan.case_of(item);
  Sample s;
  s.suite = plan.suite_of(item).name;
  s.arm = plan.arm_of(item).name;
  s.id = c.id;
  s.repeat = item.repeat;
  s.scoring = c.scoring;
  s.recipe = c.recipe;
  s.reasoning_language = c.reasoning_language;
  s.cluster = c.cluster;
  s.language = c.language;
  s.kind = c.kind;
  s.gated = c.gated;
  s.expected = c.answer;
  for (const OrderedJson& message : c.messages)
    if (message["role"] == "user" && message["content"].is_string())
      s.question = message["content"].get<std::string>();
  return s;
}

void set_error(Sample& sample, std::string message) {
  sample.outcome = {};
  sample.outcome.termination = Termination::kError;
  sample.error = std::move(message);
}

OrderedJson with_system(const OrderedJson& messages, const std::string& system) {
  if (system.empty()) return messages;
  OrderedJson all = OrderedJson::array({{{"role", "system"}, {"content", system}}});
  for (const OrderedJson& message : messages) all.push_back(message);
  return all;
}

// Renders the case for its arm; an error says why it cannot be asked.
Result<Request> prepare(const Plan& plan, const PlanItem& item, const Target& target,
                        Waiting& waiting) {
  const Suite& suite = plan.suite_of(item);
  const Case& c = plan.case_of(item);
  const Arm& arm = plan.arm_of(item);
  const auto render = [&](const OrderedJson& messages) {
    return target.render(with_system(messages, arm.system), arm.enable_thinking);
  };
  Sample& sample = waiting.sample;
  Question& question = waiting.question;
  question = {.scoring = c.scoring,
              .expected = c.answer,
              .language = c.language,
              .text = sample.question,
              .reasoning_language = arm.enable_thinking ? c.reasoning_language : "",
              .truth = {},
              .tables = suite.needle ? &suite.needle->tables : nullptr};
  Request request;
  Prompt prompt;
  if (c.recipe.is_null()) {
    ASSAY_TRY(prompt, render(c.messages));
  } else {
    const CountTokens count_tokens = [&](const OrderedJson& messages) -> Result<int> {
      ASSAY_TRY(const Prompt rendered, render(messages));
      return static_cast<int>(rendered.ids.size());
    };
    ASSAY_TRY(const NeedleRecipe recipe, NeedleRecipe::parse(c.recipe, c.id));
    if (recipe.n_tokens >= target.max_positions())
      return fail("the prompt would have {}, the model's context {}",
                  counted(recipe.n_tokens, "token"), target.max_positions());
    ASSAY_TRY(NeedlePrompt needle, build_needle(recipe, suite.needle->tables, count_tokens,
                                                suite.needle->own_text(recipe.haystack_language)));
    ASSAY_TRY(prompt, render(needle.messages));
    ASSAY_TRY(Prompt reask, render(needle.reask));
    request.reask_prompt = std::move(reask.ids);
    question.truth = std::move(needle.truth);
    sample.question = std::move(needle.question);
    question.text = sample.question;
    sample.expected = fmt::format("{}", fmt::join(question.truth.expected, ", "));
  }
  if (!c.prefill.empty()) {
    prompt.text += c.prefill;
    ASSAY_TRY(const std::vector<int> ids, target.encode(c.prefill));
    prompt.ids.insert(prompt.ids.end(), ids.begin(), ids.end());
  }
  Hasher hasher;
  hasher.update(std::string_view(reinterpret_cast<const char*>(prompt.ids.data()),
                                 prompt.ids.size() * sizeof(int)));
  sample.prompt_hash = hasher.hex();
  sample.n_prompt_tokens = static_cast<int>(prompt.ids.size());
  if (c.recipe.is_null()) {
    sample.prompt = prompt.text;
    sample.prompt_ids = prompt.ids;
  }
  request.prompt = std::move(prompt.ids);
  request.sampling = plan.sampling_of(item);
  request.seed = plan.options.seed;
  request.stream = hash_u64(plan.key_of(item));
  request.max_tokens = arm.max_tokens;
  request.max_thinking_tokens = arm.max_thinking_tokens;
  request.force_close = arm.force_close;
  return request;
}

// The same with room for a reply.
Result<Request> prepare_to_ask(const Plan& plan, const PlanItem& item, const Target& target,
                               Waiting& waiting) {
  ASSAY_TRY(Request request, prepare(plan, item, target, waiting));
  if (waiting.sample.n_prompt_tokens >= target.max_positions())
    return fail("the prompt has {}, the model's context {}",
                counted(waiting.sample.n_prompt_tokens, "token"), target.max_positions());
  return request;
}

Scored score(const Request& request, const Reply& reply, const Question& question,
             const Target& target) {
  return score_reply(
      request.prompt, reply, target.roles(),
      [&](std::span<const int> ids) { return target.decode(ids); }, question);
}

void fill(Sample& sample, const Request& request, const Reply& reply, const Question& question,
          const Target& target) {
  Scored scored = score(request, reply, question, target);
  sample.ids = reply.ids;
  sample.finish = reply.finish;
  sample.thinking = std::move(scored.thinking);
  sample.answer = std::move(scored.answer);
  sample.n_thinking_tokens = scored.n_thinking_tokens;
  sample.n_stray_tags = scored.n_stray_tags;
  sample.forced_close = reply.forced_close;
  sample.thinking_language = std::move(scored.thinking_language);
  sample.answer_language = std::move(scored.answer_language);
  sample.language_right = scored.language_right;
  sample.reached = scored.reached;
  sample.n_hesitations = scored.n_hesitations;
  sample.steps = reply.steps;
  if (request.sampling.temperature > 0) sample.draws = reply.draws;
  if (!reply.reasked.empty()) {
    const Reply& again = reply.reasked.front();
    Scored second = score(request, again, question, target);
    sample.reask = Reask{again.ids, std::move(second.answer), second.outcome.correctness};
  }
  sample.extraction = std::move(scored.extraction);
  sample.outcome = scored.outcome;
  sample.prefill_s = reply.prefill_s;
  sample.decode_s = reply.decode_s;
  if (reply.finish == "non_finite")
    sample.error = fmt::format("NaN or Inf in the logits at reply token {}", reply.ids.size());
}

// Calls the hooks while the target works, and turns an interruption into a stop request.
class Ticker {
 public:
  Ticker(const RunnerHooks& hooks, std::function<Progress()> progress, std::stop_source& stop)
      : thread_([this, &hooks, progress = std::move(progress), &stop](std::stop_token done) {
          std::unique_lock lock(mutex_);
          while (!wake_.wait_for(lock, done, kTick, [&] { return done.stop_requested(); })) {
            if (hooks.interrupted && hooks.interrupted()) stop.request_stop();
            if (hooks.on_progress) hooks.on_progress(progress());
            if (done.stop_requested()) return;
          }
        }) {}

 private:
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::jthread thread_;  // last: it uses the others, and joins first
};

}  // namespace

Result<PlannedPrompt> prompt_of(const Plan& plan, const PlanItem& item, const Target& target) {
  Waiting waiting{blank_sample(plan, item), {}};
  ASSAY_TRY(Request request, prepare(plan, item, target, waiting));
  return PlannedPrompt{std::move(request.prompt), std::move(waiting.sample.prompt_hash)};
}

Result<RunResult> run_plan(const Plan& plan, Target& target, RunRecord& record,
                           const RunnerHooks& hooks) {
  const auto start = Clock::now();
  std::map<std::string, const Sample*> earlier;
  for (const Sample& sample : record.earlier()) earlier.emplace(sample.key(), &sample);

  const std::size_t n = plan.items.size();
  std::vector<std::optional<Sample>> finished(n);
  std::vector<Waiting> waiting;      // one per request
  std::vector<std::size_t> item_of;  // likewise
  std::vector<Request> requests;
  std::atomic<int> n_done{0};
  std::atomic<long> n_tokens{0};
  const int n_earlier = static_cast<int>(earlier.size());
  const auto progress = [&] {
    Progress p;
    p.n_done = n_done;
    p.n_total = static_cast<int>(n);
    p.n_earlier = n_earlier;
    p.n_tokens = n_tokens;
    p.elapsed_s = seconds_since(start);
    return p;
  };
  std::stop_source stop;
  const Ticker ticker(hooks, progress, stop);
  for (std::size_t i = 0; i < n && !stop.stop_requested(); ++i) {
    const PlanItem& item = plan.items[i];
    if (const auto found = earlier.find(plan.key_of(item)); found != earlier.end()) {
      finished[i] = *found->second;
      ++n_done;
      continue;
    }
    Waiting one{blank_sample(plan, item), {}};
    auto request = prepare_to_ask(plan, item, target, one);
    if (request) {
      requests.push_back(*std::move(request));
      waiting.push_back(std::move(one));
      item_of.push_back(i);
      continue;
    }
    set_error(one.sample, request.error().message);
    ASSAY_TRY_VOID(record.append(one.sample));
    finished[i] = std::move(one.sample);
    ++n_done;
  }
  // A question that was missed is put again in other words.
  for (std::size_t r = 0; r < requests.size(); ++r)
    if (!requests[r].reask_prompt.empty())
      requests[r].should_reask = [&, r](const Reply& reply) {
        return score(requests[r], reply, waiting[r].question, target).outcome.correctness !=
               Correctness::kCorrect;
      };

  Result<void> written;
  if (!requests.empty() && !stop.stop_requested()) {
    const Result<void> asked = target.complete(
        requests,
        [&](std::size_t index, Result<Reply> reply) {
          if (!written) return;  // the disk is full: nothing more is kept
          Sample& sample = waiting[index].sample;
          if (reply) {
            fill(sample, requests[index], *reply, waiting[index].question, target);
          } else {
            set_error(sample, reply.error().message);
          }
          written = record.append(sample);
          if (!written) {
            stop.request_stop();
            return;
          }
          finished[item_of[index]] = std::move(sample);
          ++n_done;
        },
        [&] { n_tokens.fetch_add(1, std::memory_order_relaxed); }, stop.get_token());
    ASSAY_TRY_VOID(asked);
  }
  ASSAY_TRY_VOID(written);

  RunResult result;
  for (std::size_t i = 0; i < n; ++i) {
    if (!finished[i]) continue;
    finished[i]->drawn = plan.suite_of(plan.items[i]).draw_steps;
    result.samples.push_back(*std::move(finished[i]));
  }
  result.interrupted = stop.stop_requested() && result.samples.size() < n;
  result.n_tokens = n_tokens;
  result.wall_s = seconds_since(start);
  if (hooks.on_progress) {
    Progress last = progress();
    last.finished = true;
    hooks.on_progress(last);
  }
  return result;
}

Result<std::optional<std::vector<Asked>>> ask(const Plan& plan, std::span<const PlanItem> items,
                                              Target& target, const RunnerHooks& hooks) {
  std::vector<Asked> asked(items.size());
  std::vector<Question> questions;
  std::vector<std::size_t> item_of;  // of each request
  std::vector<Request> requests;
  std::size_t n_done = 0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    Waiting one{blank_sample(plan, items[i]), {}};
    auto request = prepare_to_ask(plan, items[i], target, one);
    if (!request) set_error(one.sample, request.error().message);
    asked[i].sample = std::move(one.sample);
    if (!request) {
      ++n_done;
      continue;
    }
    request->reask_prompt.clear();  // what it says the second time decides nothing
    asked[i].prompt = request->prompt;
    requests.push_back(*std::move(request));
    questions.push_back(std::move(one.question));
    item_of.push_back(i);
  }
  std::stop_source stop;
  {
    const Ticker ticker(
        hooks, [] { return Progress(); }, stop);
    const Result<void> done = target.complete(
        requests,
        [&](std::size_t index, Result<Reply> reply) {
          Sample& sample = asked[item_of[index]].sample;
          if (reply)
            fill(sample, requests[index], *reply, questions[index], target);
          else
            set_error(sample, reply.error().message);
          ++n_done;
        },
        [] {}, stop.get_token());
    ASSAY_TRY_VOID(done);
  }
  if (n_done < items.size()) return std::nullopt;
  return asked;
}

}  // namespace assay::harness
