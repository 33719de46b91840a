#include "harness/engine_target.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "base/check.h"
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
  return out;
}

Reply from_engine(const engine::Completion& completion) {
  Reply reply;
  reply.ids = completion.ids();
  reply.finish = name_of(completion.finish);
  reply.prefill_s = completion.prefill_s;
  reply.decode_s = completion.decode_s;
  return reply;
}

}  // namespace

EngineTarget::EngineTarget(engine::Engine engine, int n_workers)
    : engine_(std::move(engine)), n_workers_(n_workers > 0 ? n_workers : n_usable_cores()) {
  const text::Tokenizer& tokenizer = engine_.tokenizer();
  roles_.think_open = tokenizer.id_of(text::kThinkOpen);
  roles_.think_close = tokenizer.id_of(text::kThinkClose);
  roles_.stop = engine_.info().stop_ids;
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
  return {{"model", info.fingerprint},
          {"tokenizer", engine_.tokenizer().fingerprint()},
          {"chat_template", engine_.chat_template().fingerprint()},
          {"backend", info.backend},
          {"attention", info.attention}};
}

Result<Prompt> EngineTarget::render(const OrderedJson& messages, bool enable_thinking) const {
  text::ChatOptions options;
  options.enable_thinking = enable_thinking;
  Prompt prompt;
  ASSAY_TRY(prompt.text, engine_.chat_template().render(messages, options));
  ASSAY_TRY(prompt.ids, engine_.tokenizer().encode(prompt.text));
  return prompt;
}

std::string EngineTarget::decode(std::span<const int> ids) const {
  const auto text = engine_.tokenizer().decode(ids, true);
  CHECK(text.has_value()) << "the engine produced an id that its tokenizer does not know: "
                          << text.error().message;
  return *text;
}

void EngineTarget::complete(std::span<const Request> requests, const OnDone& on_done,
                            const std::function<void()>& on_token, std::stop_token stop) {
  std::atomic<std::size_t> next{0};
  std::mutex done_mutex;
  const auto report = [&](std::size_t index, Result<Reply> reply) {
    const std::lock_guard lock(done_mutex);
    on_done(index, std::move(reply));
  };
  const auto work = [&] {
    engine::Engine engine = engine_.share(1);
    engine::Generator generator(engine, kMaxBatch);
    while (!stop.stop_requested()) {
      while (generator.n_unfinished() < kMaxBatch) {
        const std::size_t index = next.fetch_add(1);
        if (index >= requests.size()) break;
        const auto queued = generator.submit(index, to_engine(requests[index]));
        if (!queued) report(index, tl::unexpected(queued.error()));
      }
      if (generator.idle()) return;
      for (auto& finished :
           generator.advance([&](std::uint64_t, const engine::GeneratedToken&) { on_token(); }))
        report(finished.ticket, from_engine(finished.completion));
    }
  };
  std::vector<std::jthread> workers;
  const auto n_workers =
      std::min<std::size_t>(static_cast<std::size_t>(n_workers_), requests.size());
  for (std::size_t i = 0; i < n_workers; ++i) workers.emplace_back(work);
}

}  // namespace assay::harness
