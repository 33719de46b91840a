// Engine, Sequence and Generator on micro-glm: bits that depend on nothing but the tokens, budgets,
// and bad requests.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/check.h"
#include "engine/oracle_parity.h"

namespace assay::engine {
namespace {

using ::testing::HasSubstr;

Engine load(const EngineOptions& options = {}) {
  auto engine = Engine::load(micro_glm_dir(), options);
  CHECK(engine.has_value()) << engine.error().message;
  return *std::move(engine);
}

std::vector<int> text_of(std::size_t record) {
  return oracle("logits.json.gz")["records"][record]["ids"].get<std::vector<int>>();
}

// Logits of every token of `ids`, as bits.
std::vector<std::uint32_t> all_logits(Engine& engine, std::span<const int> ids) {
  Sequence s = engine.new_sequence();
  s.keep_all_logits(true);
  s.feed(ids);
  std::vector<float> all;
  while (s.n_pending() > 0) {
    Sequence* batch[] = {&s};
    engine.step(batch);
    all.insert(all.end(), s.logits().begin(), s.logits().end());
  }
  std::vector<std::uint32_t> bits(all.size());
  std::memcpy(bits.data(), all.data(), all.size() * sizeof(float));
  return bits;
}

TEST(Determinism, LogitsHaveTheSameBitsForEveryThreadCountChunkSizeAndKernel) {
  const auto ids =
      text_of(13);  // 700 tokens: past index_topk, so selection and gathered attention are in it
  Engine base = load({.n_threads = 1});
  const auto expected = all_logits(base, ids);
  ASSERT_EQ(expected.size(), ids.size() * base.info().vocab);
  EXPECT_EQ(all_logits(base, ids), expected) << "from run to run";
  Engine two = load({.n_threads = 2});
  EXPECT_EQ(all_logits(two, ids), expected) << "2 threads";
  Engine three = load({.n_threads = 3});
  EXPECT_EQ(all_logits(three, ids), expected) << "3 threads";
  for (const int chunk : {1, 7, 64}) {
    Engine chunked = load({.n_threads = 2, .prefill_chunk = chunk});
    EXPECT_EQ(all_logits(chunked, ids), expected) << "chunk " << chunk;
  }
  int n_kernels = 0;
  for (const char* kernel : {"avx2", "avx512"}) {
    auto engine = Engine::load(micro_glm_dir(), {.kernel = kernel, .n_threads = 2});
    if (!engine) {
      std::cout << "not compared here: " << engine.error().message << "\n";
      continue;
    }
    ++n_kernels;
    EXPECT_EQ(all_logits(*engine, ids), expected) << kernel;
  }
  EXPECT_GE(n_kernels, 1);
}

TEST(Determinism, DenseLogitsHaveTheSameBitsForEveryChunkSize) {
  const auto ids = text_of(13);
  Engine base = load({.n_threads = 1, .attention = Attention::kDense});
  const auto expected = all_logits(base, ids);
  for (const int chunk : {7, 64}) {
    Engine chunked = load({.n_threads = 2, .attention = Attention::kDense, .prefill_chunk = chunk});
    EXPECT_EQ(all_logits(chunked, ids), expected) << "chunk " << chunk;
  }
}

TEST(Determinism, ACompletionHasTheSameBitsWhateverSharesItsBatch) {
  const Json records = oracle("continuations.json.gz");
  std::vector<GenerateRequest> requests;
  for (int i = 0; i < 8; ++i)
    requests.push_back({.prompt = records[i]["prompt_ids"].get<std::vector<int>>(),
                        .sampling = {.temperature = 0.6, .top_p = 0.95},
                        .seed = 5,
                        .stream = static_cast<std::uint64_t>(i),
                        .max_tokens = 60,
                        .n_top = 3});
  Engine engine = load();
  std::vector<Completion> alone;
  for (const auto& r : requests) alone.push_back(*generate(engine, r));
  for (const int batch : {2, 3, 8}) {
    Generator generator(engine, batch);
    for (std::size_t i = 0; i < requests.size(); ++i)
      ASSERT_TRUE(generator.submit(i, requests[i]).has_value());
    std::size_t n_finished = 0;
    while (!generator.idle())
      for (const auto& f : generator.advance()) {
        ++n_finished;
        const Completion& a = alone[f.ticket];
        ASSERT_EQ(f.completion.ids(), a.ids()) << "batch " << batch << ", request " << f.ticket;
        for (std::size_t i = 0; i < a.tokens.size(); ++i) {
          EXPECT_EQ(f.completion.tokens[i].logprob, a.tokens[i].logprob);
          EXPECT_EQ(f.completion.tokens[i].top, a.tokens[i].top);
          EXPECT_EQ(f.completion.tokens[i].p_think_close, a.tokens[i].p_think_close);
          EXPECT_EQ(f.completion.tokens[i].p_eos, a.tokens[i].p_eos);
        }
      }
    EXPECT_EQ(n_finished, requests.size());
  }
}

TEST(Sequence, AForkContinuesAsTheOriginalWouldHave) {
  Engine engine = load();
  const auto ids = text_of(5);
  Sequence original = engine.new_sequence();
  original.feed(std::span(ids).first(40));
  Sequence* batch[] = {&original};
  engine.step(batch);
  Sequence copy = original.fork();
  const auto continue_with = [&](Sequence& s, std::span<const int> tokens) {
    s.feed(tokens);
    Sequence* one[] = {&s};
    while (s.n_pending() > 0) engine.step(one);
    return std::vector<float>(s.logits().begin(), s.logits().end());
  };
  const auto other =
      continue_with(copy, std::span(ids).subspan(50, 5));  // must not disturb the original
  const auto expected = continue_with(original, std::span(ids).subspan(40));
  Sequence fresh = engine.new_sequence();
  EXPECT_EQ(continue_with(fresh, ids), expected);
  EXPECT_NE(other, expected);
}

TEST(Sequence, AnswersWhatItIsAskedOnceAndGivesLogitsOtherwise) {
  Engine engine = load({.prefill_chunk = 16});
  const auto ids = text_of(5);
  const std::vector<int> watched = {3, 1};
  const SampleRequest request{.params = {.temperature = 0.7, .top_p = 0.9},
                              .key = {.seed = 1, .stream = 2, .position = 3},
                              .n_top = 5,
                              .watched = watched};
  Sequence asked = engine.new_sequence(), both = engine.new_sequence(),
           neither = engine.new_sequence();
  both.keep_all_logits(true);
  std::vector<Sequence*> batch = {&asked, &both, &neither};
  for (Sequence* s : batch) s->feed(std::span(ids).first(40));
  asked.ask(request), both.ask(request);
  while (neither.n_pending() > 0) {  // three chunks
    EXPECT_FALSE(asked.sampled().has_value()) << "the prompt is not read yet";
    engine.step(batch);
  }
  const Sampled expected = sample(neither.logits(), request);
  for (const Sequence* s : {&asked, &both}) {
    ASSERT_TRUE(s->sampled().has_value());
    EXPECT_EQ(s->sampled()->id, expected.id);
    EXPECT_EQ(s->sampled()->logprob, expected.logprob);
    EXPECT_EQ(s->sampled()->top, expected.top);
    EXPECT_EQ(s->sampled()->watched_probability, expected.watched_probability);
    EXPECT_EQ(s->sampled()->place->total, expected.place->total);
  }
  EXPECT_FALSE(neither.sampled().has_value());
  EXPECT_EQ(asked.n_logit_rows(), 0);
  EXPECT_EQ(both.n_logit_rows(), 8);
  EXPECT_EQ(neither.n_logit_rows(), 1);

  for (Sequence* s : batch) s->feed(std::span(ids).subspan(40, 1));
  engine.step(batch);
  EXPECT_FALSE(asked.sampled().has_value()) << "nothing was asked of this step";
  EXPECT_EQ(asked.n_logit_rows(), 1);
}

TEST(Generator, BudgetsEndARunawayAndSayWhich) {
  Engine engine = load();
  const auto prompt = oracle("continuations.json.gz")[9]["prompt_ids"].get<std::vector<int>>();
  const auto whole = generate(engine, {.prompt = prompt});
  ASSERT_TRUE(whole.has_value());
  EXPECT_EQ(whole->finish, FinishReason::kStop);
  EXPECT_TRUE(whole->thinking_closed);
  EXPECT_GT(whole->n_thinking_tokens, 50);
  EXPECT_LT(whole->n_thinking_tokens, static_cast<int>(whole->tokens.size()));

  const auto cut = generate(engine, {.prompt = prompt, .max_tokens = 20});
  EXPECT_EQ(cut->finish, FinishReason::kLength);
  EXPECT_EQ(cut->tokens.size(), 20u);
  EXPECT_FALSE(cut->thinking_closed);
  EXPECT_EQ(cut->n_thinking_tokens, 20);

  const auto thought = generate(engine, {.prompt = prompt, .max_thinking_tokens = 30});
  EXPECT_EQ(thought->finish, FinishReason::kThinkingBudget);
  EXPECT_EQ(thought->tokens.size(), 30u);
}

TEST(Generator, AForcedCloseLetsTheModelAnswerAtItsThinkingBudget) {
  Engine engine = load();
  const auto prompt = oracle("continuations.json.gz")[9]["prompt_ids"].get<std::vector<int>>();
  const int close = *engine.tokenizer().id_of(text::kThinkClose);
  const auto free = generate(engine, {.prompt = prompt});
  const auto forced =
      generate(engine, {.prompt = prompt, .max_thinking_tokens = 30, .force_close = true});
  ASSERT_TRUE(forced.has_value()) << forced.error().message;
  EXPECT_EQ(forced->finish, FinishReason::kStop);
  EXPECT_TRUE(forced->thinking_closed);
  EXPECT_EQ(forced->n_thinking_tokens, 30);
  ASSERT_GT(forced->tokens.size(), 31u);
  for (std::size_t i = 0; i < 30; ++i) EXPECT_EQ(forced->tokens[i].id, free->tokens[i].id);
  const GeneratedToken& tag = forced->tokens[30];
  EXPECT_EQ(tag.id, close);
  EXPECT_TRUE(tag.forced);
  EXPECT_LT(tag.p_think_close, 0.5f) << "the model's own wish is what is recorded";
  EXPECT_NEAR(tag.logprob, std::log(tag.p_think_close), 1e-4);

  const auto unneeded =
      generate(engine, {.prompt = prompt, .max_thinking_tokens = 4000, .force_close = true});
  EXPECT_EQ(unneeded->ids(), free->ids());
}

TEST(Generator, APrefixReadBeforeChangesNoBit) {
  Engine engine = load();
  const auto prompt = oracle("continuations.json.gz")[9]["prompt_ids"].get<std::vector<int>>();
  const auto alone = generate(engine, {.prompt = prompt, .max_tokens = 40});
  for (const std::size_t n : {std::size_t{1}, prompt.size() / 2, prompt.size() - 1}) {
    auto prefix = std::make_shared<Sequence>(engine.new_sequence());
    prefix->feed(std::span(prompt).first(n));
    Sequence* batch[] = {prefix.get()};
    engine.step(batch);
    const auto forked = generate(engine, {.prompt = prompt, .max_tokens = 40, .prefix = prefix});
    ASSERT_EQ(forked->ids(), alone->ids()) << n;
    for (std::size_t i = 0; i < alone->tokens.size(); ++i)
      EXPECT_EQ(forked->tokens[i].logprob, alone->tokens[i].logprob) << n << ", token " << i;
  }
}

TEST(Generator, ProbabilitiesOfClosingAndStoppingAreReportedPerStep) {
  Engine engine = load();
  const auto c = generate(
      engine, {.prompt = oracle("continuations.json.gz")[0]["prompt_ids"].get<std::vector<int>>()});
  const int close = *engine.tokenizer().id_of(text::kThinkClose);
  for (const GeneratedToken& t : c->tokens) {
    if (t.id == close) {
      EXPECT_GT(t.p_think_close, 0.5f);
    }
    if (&t == &c->tokens.back()) {
      EXPECT_GT(t.p_eos, 0.5f);
    }
  }
}

TEST(Generator, BadRequestsAreRefusedWithExpectedAndGot) {
  Engine engine = load();
  Generator generator(engine, 1);
  const auto refuse = [&](GenerateRequest r) {
    const auto result = generator.submit(0, std::move(r));
    EXPECT_FALSE(result.has_value());
    return result ? "" : result.error().message;
  };
  EXPECT_THAT(refuse({.prompt = {}}), HasSubstr("empty"));
  EXPECT_THAT(refuse({.prompt = {0, 3072}}), HasSubstr("expected 0 to 3071"));
  EXPECT_THAT(refuse({.prompt = std::vector<int>(32768, 1)}), HasSubstr("32768 positions"));
  Engine shorter = load({.context = 100});
  const auto long_prompt = generate(shorter, {.prompt = std::vector<int>(100, 1)});
  ASSERT_FALSE(long_prompt.has_value());
  EXPECT_THAT(long_prompt.error().message, HasSubstr("100 positions"));
  const auto cut = generate(shorter, {.prompt = std::vector<int>(90, 1), .stop_ids = {0}});
  EXPECT_EQ(cut->finish, FinishReason::kContext);
  EXPECT_EQ(cut->tokens.size(), 10u);
  EXPECT_THAT(refuse({.prompt = {1}, .max_tokens = 0}), HasSubstr("max_tokens is 0"));
  EXPECT_THAT(refuse({.prompt = {1}, .n_top = 65}), HasSubstr("of 65 tokens"));
  EXPECT_THAT(refuse({.prompt = {1}, .n_top = -1}), HasSubstr("expected 0 to 64"));
  EXPECT_THAT(refuse({.prompt = {1}, .stop_ids = std::vector<int>(16, 1)}),
              HasSubstr("16 stop ids, expected at most 15"));
  EXPECT_THAT(refuse({.prompt = {1}, .sampling = {.temperature = -0.5}}),
              HasSubstr("temperature is -0.5"));
  EXPECT_TRUE(generator.idle()) << "a refused request leaves nothing queued";
}

TEST(TensorParallel, BitsOfARequestDoNotDependOnThreadsChunksOrSharing) {
  const auto ids = text_of(13);
  Engine base = load({.n_threads = 2, .tensor_parallel = 2});
  EXPECT_EQ(base.info().tensor_parallel, 2);
  EXPECT_THAT(base.info().kernel, HasSubstr(", tp 2"));
  EXPECT_EQ(base.info().to_json()["tensor_parallel"], 2);
  const auto expected = all_logits(base, ids);
  ASSERT_EQ(expected.size(), ids.size() * base.info().vocab);
  EXPECT_EQ(all_logits(base, ids), expected) << "from run to run";
  for (const int chunk : {64, 512}) {
    Engine chunked = load({.n_threads = 4, .tensor_parallel = 2, .prefill_chunk = chunk});
    EXPECT_EQ(all_logits(chunked, ids), expected) << "chunk " << chunk;
  }
  {
    Engine shared = *base.share(1);
    EXPECT_EQ(all_logits(shared, ids), expected) << "another engine on the same ranks";
  }
  EXPECT_EQ(base.all_step_counts().n_all(), 0) << "a host counts none";
}

TEST(TensorParallel, ACompletionHasTheSameBitsWhateverSharesItsBatch) {
  const Json records = oracle("continuations.json.gz");
  Engine engine = load({.n_threads = 2, .tensor_parallel = 3});
  Generator generator(engine, 3);
  std::vector<Completion> alone;
  for (std::size_t i = 0; i < 3; ++i) {
    const GenerateRequest request = {.prompt = records[i]["prompt_ids"].get<std::vector<int>>(),
                                     .max_tokens = 20};
    alone.push_back(*generate(engine, request));
    ASSERT_TRUE(generator.submit(i, request).has_value());
  }
  while (!generator.idle())
    for (const auto& f : generator.advance()) {
      ASSERT_EQ(f.completion.ids(), alone[f.ticket].ids());
      for (std::size_t i = 0; i < f.completion.tokens.size(); ++i)
        EXPECT_EQ(f.completion.tokens[i].logprob, alone[f.ticket].tokens[i].logprob);
    }
}

TEST(Engine, RefusesWhatItCannotRun) {
  const auto message = [](const EngineOptions& o) {
    const auto e = Engine::load(micro_glm_dir(), o);
    return e ? std::string() : e.error().message;
  };
  EXPECT_THAT(message({.backend = "gpu"}), HasSubstr("unknown backend 'gpu'"));
  EXPECT_THAT(message({.kernel = "neon512"}), HasSubstr("neon512"));
  EXPECT_THAT(message({.prefill_chunk = 0}), HasSubstr("at least 1"));
  EXPECT_THAT(message({.context = -1}), HasSubstr("context is -1 tokens, expected 0"));
  EXPECT_THAT(message({.context = 32769}), HasSubstr("a context of 32769 tokens was asked for "
                                                     "(--context), and the model has 32768"));
  EXPECT_EQ(message({.context = 32768}), "");
  EXPECT_THAT(message({.tensor_parallel = 0}), HasSubstr("size is 0, expected at least 1 (--tp)"));
  EXPECT_THAT(message({.tensor_parallel = 4}), HasSubstr("one of --tp 1, 2, 3, 6"));
  const auto missing = Engine::load("/nonexistent/model");
  ASSERT_FALSE(missing.has_value());
  EXPECT_THAT(missing.error().message, HasSubstr("/nonexistent/model"));
}

// What parity_cuda_bf16_test is held to; that test itself needs a GPU.
TEST(Bf16Bound, IsOneAndAHalfTimesTheRecordsErrorAndNeverInvented) {
  const Json records = {{{"name", "a"}, {"index_topk", nullptr}},
                        {{"name", "a"}, {"index_topk", 512}}};
  const Json errors = {
      {"of", "logits.json.gz"},
      {"records", {{{"name", "a"}, {"index_topk", 512}, {"max", 0.5}, {"rms", 0.125}}}}};
  const auto bound = bf16_bound(errors, records, 1);
  ASSERT_TRUE(bound.has_value()) << bound.error().message;
  EXPECT_EQ(bound->max, 0.75);
  EXPECT_EQ(bound->rms, 0.1875);
  for (const Json& without : {errors, Json::object()}) {
    const auto missing = bf16_bound(without, records, 0);
    ASSERT_FALSE(missing.has_value());
    EXPECT_THAT(missing.error().message, HasSubstr("no error of record 'a', index_topk null: run "
                                                   "golden/micro-glm/oracle/bf16_error.py"));
  }
}

}  // namespace
}  // namespace assay::engine
