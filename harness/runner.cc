#include "harness/runner.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <stop_token>
#include <thread>

#include "base/hash.h"
#include "harness/score.h"

namespace assay::harness {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kTick = std::chrono::milliseconds(100);

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

Sample blank_sample(const Plan& plan, const PlanItem& item) {
  const Case& c = plan.case_of(item);
  Sample s;
  s.suite = plan.suite_of(item).name;
  s.arm = plan.arm_of(item).name;
  s.id = c.id;
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

Request make_request(const Plan& plan, const PlanItem& item, const Prompt& prompt) {
  const Arm& arm = plan.arm_of(item);
  Request request;
  request.prompt = prompt.ids;
  request.sampling = plan.sampling[item.suite];
  request.seed = plan.options.seed;
  request.stream = hash_u64(plan.key_of(item));
  request.max_tokens = arm.max_tokens;
  request.max_thinking_tokens = arm.max_thinking_tokens;
  return request;
}

void fill(Sample& sample, const Reply& reply, const Target& target) {
  Scored scored = score_reply(
      sample.prompt_ids, reply, target.roles(),
      [&](std::span<const int> ids) { return target.decode(ids); }, sample.expected,
      sample.language);
  sample.ids = reply.ids;
  sample.finish = reply.finish;
  sample.thinking = std::move(scored.thinking);
  sample.answer = std::move(scored.answer);
  sample.n_thinking_tokens = scored.n_thinking_tokens;
  sample.n_stray_tags = scored.n_stray_tags;
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

Result<RunResult> run_plan(const Plan& plan, Target& target, RunRecord& record,
                           const RunnerHooks& hooks) {
  const auto start = Clock::now();
  std::map<std::string, const Sample*> earlier;
  for (const Sample& sample : record.earlier()) earlier.emplace(sample.key(), &sample);

  const std::size_t n = plan.items.size();
  std::vector<std::optional<Sample>> finished(n);
  std::vector<Sample> waiting;       // one per request
  std::vector<std::size_t> item_of;  // likewise
  std::vector<Request> requests;
  std::atomic<int> n_done{0};
  for (std::size_t i = 0; i < n; ++i) {
    const PlanItem& item = plan.items[i];
    if (const auto found = earlier.find(plan.key_of(item)); found != earlier.end()) {
      finished[i] = *found->second;
      ++n_done;
      continue;
    }
    Sample sample = blank_sample(plan, item);
    auto prompt = target.render(plan.case_of(item).messages, plan.arm_of(item).enable_thinking);
    if (prompt) {
      sample.prompt = prompt->text;
      sample.prompt_ids = prompt->ids;
      if (static_cast<long>(prompt->ids.size()) < target.max_positions()) {
        requests.push_back(make_request(plan, item, *prompt));
        waiting.push_back(std::move(sample));
        item_of.push_back(i);
        continue;
      }
      set_error(sample, fmt::format("the prompt has {} tokens, the model's context {}",
                                    prompt->ids.size(), target.max_positions()));
    } else {
      set_error(sample, prompt.error().message);
    }
    ASSAY_TRY_VOID(record.append(sample));
    finished[i] = std::move(sample);
    ++n_done;
  }

  const int n_earlier = static_cast<int>(earlier.size());
  std::atomic<long> n_tokens{0};
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
  Result<void> written;
  if (!requests.empty()) {
    const Ticker ticker(hooks, progress, stop);
    target.complete(
        requests,
        [&](std::size_t index, Result<Reply> reply) {
          if (!written) return;  // the disk is full: nothing more is kept
          Sample sample = std::move(waiting[index]);
          if (reply) {
            fill(sample, *reply, target);
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
  }
  ASSAY_TRY_VOID(written);

  RunResult result;
  for (auto& sample : finished)
    if (sample) result.samples.push_back(*std::move(sample));
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

}  // namespace assay::harness
