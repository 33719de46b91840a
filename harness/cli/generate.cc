// assay generate: one prompt, streamed.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>

#include "engine/engine.h"
#include "harness/cli/at_least.h"
#include "harness/cli/engine_flags.h"
#include "harness/cli/say.h"
#include "harness/cli/verb.h"
#include "harness/step_counts.h"

namespace assay::cli {
namespace {

struct Options {
  EngineFlags engine;
  std::string prompt, system, effort;
  bool raw = false, no_thinking = false, json = false, show_ids = false, recommended = false;
  engine::SamplingParams sampling;
  std::uint64_t seed = 0;
  int max_tokens = 1024, max_thinking_tokens = 0, n_top = 0;
};

Result<std::string> render(const engine::Engine& e, const Options& o, const std::string& prompt) {
  if (o.raw) return prompt;
  OrderedJson messages = OrderedJson::array();
  if (!o.system.empty()) messages.push_back({{"role", "system"}, {"content", o.system}});
  messages.push_back({{"role", "user"}, {"content", prompt}});
  text::ChatOptions options;
  if (o.no_thinking) options.enable_thinking = false;
  if (!o.effort.empty()) options.reasoning_effort = o.effort;
  return e.chat_template().render(messages, options);
}

Json to_json(const engine::Engine& e, const std::string& prompt_text,
             const std::vector<int>& prompt, const engine::Completion& c,
             const std::string& reply) {
  Json steps = Json::array();
  for (const engine::GeneratedToken& t : c.tokens) {
    Json step = {{"id", t.id},
                 {"logprob", t.logprob},
                 {"p_think_close", t.p_think_close},
                 {"p_eos", t.p_eos}};
    if (!t.top.empty()) step["top"] = t.top;
    steps.push_back(std::move(step));
  }
  Json out = {{"engine", e.info().to_json()},
              {"prompt", prompt_text},
              {"prompt_ids", prompt},
              {"text", reply},
              {"finish", name_of(c.finish)},
              {"thinking_closed", c.thinking_closed},
              {"n_thinking_tokens", c.n_thinking_tokens},
              {"steps", std::move(steps)},
              {"prefill_s", c.prefill_s},
              {"decode_s", c.decode_s}};
  if (e.info().memory.is_planned()) out["engine_steps"] = harness::to_json(e.step_counts());
  return out;
}

Result<int> run(const Options& o) {
  std::string prompt_text = o.prompt;
  if (prompt_text.empty() || prompt_text == "-") {
    prompt_text.assign(std::istreambuf_iterator<char>(std::cin), {});
    if (!prompt_text.empty() && prompt_text.back() == '\n') prompt_text.pop_back();
  }
  if (prompt_text.empty()) return fail("no prompt: give it as an argument or on standard input");
  ASSAY_TRY(engine::Engine e, load_engine(o.engine));
  ASSAY_TRY(const std::string rendered, render(e, o, prompt_text));
  ASSAY_TRY(const std::vector<int> ids, e.tokenizer().encode(rendered));

  engine::GenerateRequest request{.prompt = ids,
                                  .sampling = o.recommended ? e.info().recommended : o.sampling,
                                  .seed = o.seed,
                                  .max_tokens = o.max_tokens,
                                  .max_thinking_tokens = o.max_thinking_tokens,
                                  .stop_ids = {},
                                  .n_top = o.n_top};
  text::StreamDecoder decoder(e.tokenizer());
  std::string reply;
  const auto print = [&](std::string_view piece) {
    if (o.json) return;
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  };
  // Thinking begins at the prompt's end, and what ends a reply is the next turn's first token.
  if (rendered.ends_with(text::kThinkOpen)) print(text::kThinkOpen);
  const auto show = [&](const std::string& piece, bool is_stop) {
    reply += piece;
    if (!is_stop) print(piece);
  };
  ASSAY_TRY(const engine::Completion c,
            generate(e, std::move(request), [&](const engine::GeneratedToken& t) {
              const bool is_stop = std::ranges::count(e.info().stop_ids, t.id) > 0;
              if (is_stop) show(decoder.finish(), false);  // half a character may wait for more
              show(decoder.push(t.id), is_stop);
            }));
  show(decoder.finish(), false);

  if (o.json) {
    std::puts(to_json(e, rendered, ids, c, reply)
                  .dump(2, ' ', false, Json::error_handler_t::replace)
                  .c_str());
    return 0;
  }
  const auto n = c.tokens.size();
  say("\n\nfinish: {} ({} prompt + {} reply tokens, {} of them thinking; {:.0f} ms to the "
      "first, then {:.0f} tokens/s)\n",
      name_of(c.finish), c.n_prompt_tokens, n, c.n_thinking_tokens, 1e3 * c.prefill_s,
      n > 1 ? static_cast<double>(n - 1) / c.decode_s : 0.0);
  if (e.info().memory.is_planned())
    say("steps: {}\n", harness::engine_steps_line(harness::to_json(e.step_counts()),
                                                  e.info().backend, e.info().kernel));
  if (o.show_ids)
    say("prompt ids: {}\nreply ids: {}\n", fmt::join(ids, " "), fmt::join(c.ids(), " "));
  return 0;
}

}  // namespace

const Verb generate_verb{
    .name = "generate",
    .summary = "Answer one prompt, streaming",
    .examples =
        "  assay generate --model golden/micro-glm/model \"127 × 8 = ?\"\n"
        "      greedy, thinking on\n"
        "  assay generate --model M --no-thinking --temperature 0.6 --top-p 0.95 --seed 1 "
        "\"269×6はいくつですか？\"\n"
        "  echo \"你好\" | assay generate --model M --json --top 5\n"
        "      prompt ids, and per step id, logprob, p(</think>), p(eos) and the five most "
        "likely tokens\n",
    .setup = [](CLI::App& app) -> Action {
      auto o = std::make_shared<Options>();
      add_engine_flags(app, o->engine);
      app.add_option("prompt", o->prompt, "The user's message; - or nothing: standard input");
      app.add_option("--system", o->system, "A system prompt");
      app.add_option("--reasoning-effort", o->effort,
                     "As the chat template takes it (GLM: high, else max)");
      app.add_flag("--no-thinking", o->no_thinking, "Render the prompt with thinking off");
      app.add_flag("--raw", o->raw, "The prompt is already rendered: no chat template");
      app.add_flag("--recommended", o->recommended, "Sample as generation_config.json recommends");
      app.add_option("--temperature", o->sampling.temperature, "0: greedy")
          ->check(between(0.0, 10.0))
          ->capture_default_str();
      app.add_option("--top-p", o->sampling.top_p, "Nucleus")
          ->check(between(0.0, 1.0))
          ->capture_default_str();
      app.add_option("--top-k", o->sampling.top_k, "0: off")
          ->check(at_least(0))
          ->capture_default_str();
      app.add_option("--min-p", o->sampling.min_p, "0: off")
          ->check(between(0.0, 1.0))
          ->capture_default_str();
      app.add_option("--repetition-penalty", o->sampling.repetition_penalty, "1: off")
          ->check(between(0.01, 100.0))
          ->capture_default_str();
      app.add_option("--seed", o->seed, "Same seed, same reply")
          ->check(any_seed())
          ->capture_default_str();
      app.add_option("--max-tokens", o->max_tokens, "Budget of the whole reply")
          ->check(at_least(1))
          ->capture_default_str();
      app.add_option("--max-thinking-tokens", o->max_thinking_tokens,
                     "Budget of the thinking (0: none of its own)")
          ->check(at_least(0))
          ->capture_default_str();
      app.add_option("--top", o->n_top,
                     "Log probabilities of the k most likely tokens per step (with --json)")
          ->check(at_least(0))
          ->capture_default_str();
      app.add_flag("--show-ids", o->show_ids, "Print the token ids of prompt and reply");
      app.add_flag("--json", o->json, "Print JSON instead of streaming");
      return [o] { return run(*o); };
    }};

}  // namespace assay::cli
