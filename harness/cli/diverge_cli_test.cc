// assay diverge as a user meets it.
#include <sys/stat.h>

#include <algorithm>

#include "harness/cli/cli_testing.h"
#include "harness/cli/tiny_model.h"

namespace assay {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::string_view kTexts =
    R"({"id":"tea","lang":"en","messages":[{"role":"user","content":"Name a point about tea."}],"reply":"It is warm.\nSo it is.</think>Tea is warm."}
{"id":"sum","lang":"ja","messages":[{"role":"user","content":"127×8は？"}],"reply":"127×8=1016。</think>1016です。"}
{"id":"box","lang":"zh","text":"箱子里有783个饼干，张敏拿走了91个。"}
)";

class DivergeCli : public Cli {
 protected:
  DivergeCli() {
    make_tiny_model(base_);
    make_tiny_model(candidate_, 3072, 6);
    write(texts_, kTexts);
  }
  Outcome diverge(std::vector<std::string> more) {
    const bool captured = std::find(more.begin(), more.end(), "--base") != more.end();
    more.insert(more.begin(), "diverge");
    more.insert(more.end(), {"--threads", "1"});
    if (!captured) more.insert(more.end(), {"--texts", texts_, "--noise-texts", "1"});
    return assay(more);
  }
  fs::path base_ = dir_ / "base", candidate_ = dir_ / "candidate", texts_ = dir_ / "texts.jsonl",
           captured_ = dir_ / "base.div";
};

TEST_F(DivergeCli, SaysWhereAndCountsNoTokensItDidNotMake) {
  const Outcome o = diverge({base_, candidate_});
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.err, Not(HasSubstr("tok/s")));
  for (const char* what : {"thinking", "noise floor", "furthest apart", "⏎"})
    EXPECT_THAT(o.out, HasSubstr(what));
  const Json same = Json::parse(diverge({base_, base_, "--json"}).out);
  EXPECT_EQ(same["groups"][0]["kld"]["max"]["value"], 0.0);
  EXPECT_EQ(same["groups"][0]["top1_agreement"]["value"], 1.0);
}

// The texts come through a pipe that says nothing, so the program is where it is when it is
// stopped.
TEST_F(DivergeCli, InterruptedItSaysThatNothingIsKeptAndHowToBeginAgain) {
  const fs::path pipe = dir_ / "pipe.jsonl", half = captured_.string() + ".tmp";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  write(half, "half");
  bool is_sigterm = false;
  for (const std::vector<std::string>& models :
       {std::vector<std::string>{base_, candidate_}, {base_, "--save-base", captured_}}) {
    std::vector<std::string> arguments = {"diverge", "--texts", pipe};
    arguments.insert(arguments.end(), models.begin(), models.end());
    Program run(arguments);
    const int fd = open(pipe.c_str(), O_WRONLY);  // waits until it reads
    ASSERT_GE(fd, 0);
    is_sigterm ? run.terminate() : run.interrupt();
    is_sigterm = true;
    const Outcome o = run.wait();
    close(fd);
    EXPECT_EQ(o.code, 130) << o.err;
    EXPECT_THAT(o.err, AllOf(HasSubstr("assay diverge: interrupted. Nothing is kept: "),
                             HasSubstr(" diverge --texts " + pipe.string() + " " + base_.string()),
                             Not(HasSubstr("error:"))));
    if (models.size() > 2) {
      EXPECT_THAT(o.err, HasSubstr("base.div is written when all texts are"));
    }
    EXPECT_EQ(fs::exists(half), models.size() == 2) << "what is half written goes with it";
  }
}

TEST_F(DivergeCli, ACapturedBaseSaysTheSameWithItsModelGone) {
  const Json whole = Json::parse(diverge({base_, candidate_, "--json"}).out);
  ASSERT_EQ(diverge({base_, "--save-base", captured_}).code, 0);
  fs::remove_all(base_);
  fs::remove(texts_);
  const Outcome o = diverge({"--base", captured_, candidate_, "--json"});
  ASSERT_EQ(o.code, 0) << o.err;
  const Json captured = Json::parse(o.out);
  ASSERT_EQ(captured["groups"].size(), whole["groups"].size());
  for (std::size_t g = 0; g < whole["groups"].size(); ++g) {
    const Json &a = whole["groups"][g], &b = captured["groups"][g];
    const double kld = a["kld"]["mean"]["value"], lower = b["kld"]["mean"]["value"];
    EXPECT_LE(lower, kld);
    EXPECT_NEAR(lower, kld - a["kld_coarsening"].get<double>(), 1e-5);
    EXPECT_TRUE(b["kld_coarsening"].is_null()) << "not known, so not 0";
    EXPECT_GE(b["kld_mean_at_most"].get<double>(), kld - 1e-5);
    EXPECT_NEAR(b["tail_mass"].get<double>(), a["tail_mass"].get<double>(), 1e-5);
    EXPECT_GT(b["tail_mass"], 0.0);
    EXPECT_EQ(a["top1_agreement"], b["top1_agreement"]);
  }
}

TEST_F(DivergeCli, ACapturedBaseIsSaidToBeALowerBound) {
  ASSERT_EQ(diverge({base_, "--save-base", captured_}).code, 0);
  EXPECT_THAT(diverge({"--base", captured_, candidate_}).out,
              AllOf(HasSubstr("lower bound"), HasSubstr("mean mass"), HasSubstr("at most")));
}

TEST_F(DivergeCli, ACandidateWithTooFewPositionsIsRefusedBeforeTheWork) {
  ASSERT_EQ(diverge({base_, "--save-base", captured_}).code, 0);
  const fs::path file = candidate_ / "config.json";
  Json config = *read_json(file);
  config["max_position_embeddings"] = 16;
  write(file, config.dump());
  const auto message = AllOf(HasSubstr("text tea"), HasSubstr("candidate has 16 positions"),
                             HasSubstr("leave it out"));
  for (const Outcome& o :
       {diverge({base_, candidate_}), diverge({"--base", captured_, candidate_})}) {
    expect_error(o, message);
    EXPECT_THAT(o.err, Not(HasSubstr("noise floor")));
  }
}

TEST_F(DivergeCli, ChunksDoNotMoveAFigure) {
  const Json whole = Json::parse(diverge({base_, candidate_, "--json"}).out);
  for (const char* chunk : {"1", "7"}) {
    const Outcome o = diverge({base_, candidate_, "--json", "--prefill-chunk", chunk});
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_EQ(Json::parse(o.out), whole) << chunk;
  }
}

TEST_F(DivergeCli, ALongReplyTakesTheMemoryOfAChunk) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer keeps what was freed, and shadows of it";
#endif
  constexpr int kVocab = 20000;
  make_tiny_model(dir_ / "wide", kVocab);
  const auto peak_bytes = [&](std::size_t n_characters) {
    write(texts_, "{\"id\":\"a\",\"text\":\"" + std::string(n_characters, '7') + "\"}\n");
    const Outcome o =
        assay({"diverge", dir_ / "wide", dir_ / "wide", "--texts", texts_, "--threads", "1",
               "--noise-texts", "0", "--prefill-chunk", "16", "--json", "--out", dir_ / "d.json"});
    EXPECT_EQ(o.code, 0) << o.err;
    return o.peak_bytes;
  };
  const double before = peak_bytes(20);
  const double after = peak_bytes(400);
  const int n = (*read_json(dir_ / "d.json"))["groups"][0]["n_positions"];
  ASSERT_GE(n, 300);
  // All of one engine's logits would be 4 n kVocab bytes, and there are two.
  std::cout << n << " positions take " << (after - before) / 1e6 << " MB more\n";
  EXPECT_LT(after - before, 4.0 * n * kVocab / 2);
}

TEST_F(DivergeCli, TheNoiseFloorHasEveryGroupAndItsBackendCanBeChosen) {
  const auto floor = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {base_, candidate_, "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome o = diverge(arguments);
    EXPECT_EQ(o.code, 0) << o.err;
    return Json::parse(o.out)["noise_floor"];
  };
  const Json usual = floor({});
  EXPECT_EQ(usual["between"], Json({"cpu", "reference"}));
  ASSERT_EQ(usual["groups"].size(), 6u)
      << "(all, the one text's language) × (all, answer, thinking)";
  EXPECT_EQ(usual["groups"][0]["kld"], usual["kld"]) << "the first is all × all";
  EXPECT_GT(usual["kld"]["max"]["value"], 0.0);
  EXPECT_EQ(floor({"--noise-backend", "reference"}), usual);
  EXPECT_EQ(floor({"--backend", "reference"})["between"], Json({"reference", "cpu"}));
}

// Kernels of cpu promise the same bits (docs/design/determinism.md).
TEST_F(DivergeCli, TheNoiseFloorOfAnotherKernelIsNamedByIt) {
  if (!__builtin_cpu_supports("avx512f")) GTEST_SKIP() << "needs two kernels: no AVX-512 here";
  const Outcome o =
      diverge({base_, candidate_, "--json", "--noise-backend", "cpu", "--noise-kernel", "avx2"});
  ASSERT_EQ(o.code, 0) << o.err;
  const Json floor = Json::parse(o.out)["noise_floor"];
  EXPECT_EQ(floor["between"], Json({"cpu avx512", "cpu avx2"}));
  EXPECT_EQ(floor["kld"]["max"]["value"], 0.0);
}

TEST_F(DivergeCli, ANoiseFloorThatSaysNothingIsRefused) {
  expect_error(diverge({base_, candidate_, "--noise-backend", "cpu"}),
               AllOf(HasSubstr("noise floor"), HasSubstr("same backend cpu")));
  expect_error(diverge({base_, candidate_, "--noise-backend", "abacus"}),
               AllOf(HasSubstr("noise floor"), HasSubstr("abacus")));
  expect_error(diverge({base_, candidate_, "--noise-kernel", "avx2"}),
               AllOf(HasSubstr("noise floor"), HasSubstr("no kernel 'avx2'")));
  expect_error(diverge({"--base", captured_, candidate_, "--noise-backend", "reference"}),
               HasSubstr("when it was captured"));
}

TEST_F(DivergeCli, AnErrorOfOneTextIsAQuestionMark) {
  EXPECT_THAT(diverge({base_, candidate_, "--limit", "1"}).out,
              AllOf(HasSubstr("± ?"), Not(HasSubstr("± 0"))));
}

TEST_F(DivergeCli, ALimitTakesLanguagesInTurnAndNamesThoseLeftOut) {
  // Five of English first, then two of Japanese, then one of Chinese.
  std::string texts;
  for (const auto& [lang, n] : {std::pair{"en", 5}, {"ja", 2}, {"zh", 1}})
    for (int i = 0; i < n; ++i)
      texts += fmt::format("{{\"id\":\"{}{}\",\"lang\":\"{}\",\"text\":\"127×8は {}\"}}\n", lang, i,
                           lang, i);
  write(texts_, texts);
  const auto texts_of = [&](const char* limit) {
    const Outcome o = diverge({base_, candidate_, "--limit", limit, "--json"});
    EXPECT_EQ(o.code, 0) << o.err;
    std::map<std::string, int> out;
    const Json json = Json::parse(o.out);
    for (const Json& group : json["groups"]) out[group["lang"]] = group["n_texts"];
    return std::pair{out, o.err};
  };
  using Counts = std::map<std::string, int>;
  EXPECT_EQ(texts_of("3").first, (Counts{{"all", 3}, {"en", 1}, {"ja", 1}, {"zh", 1}}));
  EXPECT_EQ(texts_of("6").first, (Counts{{"all", 6}, {"en", 3}, {"ja", 2}, {"zh", 1}}));
  EXPECT_THAT(texts_of("3").second, Not(HasSubstr("fewer than the languages")));
  EXPECT_THAT(texts_of("1").second, HasSubstr("--limit 1 is fewer than the languages: no text in "
                                              "ja, zh"));
}

TEST_F(DivergeCli, AFileOfAnotherKindIsNotOverwritten) {
  const fs::path notes = dir_ / "notes.md";
  write(notes, "# What I must not lose: a page of it, longer than a heading\n");
  const std::string before = *read_file(notes);
  expect_error(diverge({base_, "--save-base", notes}),
               AllOf(HasSubstr("notes.md"), HasSubstr("no captured base"), HasSubstr("another")));
  expect_error(diverge({base_, candidate_, "--out", notes}),
               AllOf(HasSubstr("notes.md"), HasSubstr("no JSON of"), HasSubstr("another")));
  expect_error(diverge({base_, candidate_, "--out", base_ / "config.json"}),
               HasSubstr("no JSON of assay diverge"));
  const std::vector<std::string> made = {base_, candidate_, "--out", dir_ / "d.json"};
  EXPECT_EQ(diverge(made).code, 0);
  EXPECT_EQ(diverge(made).code, 0) << "its own kind is made anew";
  EXPECT_EQ(*read_file(notes), before);
  ASSERT_EQ(diverge({base_, "--save-base", captured_}).code, 0);
  EXPECT_EQ(diverge({base_, "--save-base", captured_}).code, 0) << "its own kind is made anew";
}

TEST_F(DivergeCli, NumbersOutOfRangeAreRefusedInWords) {
  expect_error(assay({"diverge", base_, candidate_, "-t", "1000000"}),
               AllOf(HasSubstr("--threads"), HasSubstr("1000000"), HasSubstr("from 0 to 1024")));
  for (const char* seed : {"-1", "99999999999999999999999", "abc", "1.5"})
    expect_error(assay({"quantize", base_, dir_ / "out", "--seed", seed}),
                 AllOf(HasSubstr("--seed"), HasSubstr(seed), HasSubstr("a whole number from 0")));
}

TEST_F(DivergeCli, ADamagedBaseIsRefused) {
  ASSERT_EQ(diverge({base_, "--save-base", captured_}).code, 0);
  const std::string good = *read_file(captured_);
  const auto with = [&](const std::string& bytes) {
    write(captured_, bytes);
    return diverge({"--base", captured_, candidate_});
  };
  expect_error(with(""), HasSubstr("not a captured base"));
  expect_error(with("{}"), AllOf(HasSubstr("base.div"), HasSubstr("--save-base")));
  expect_error(with(good.substr(0, good.size() / 2)), HasSubstr("truncated or damaged"));
  std::string flipped = good;
  flipped[good.size() - 1000] ^= 4;
  expect_error(with(flipped), AllOf(HasSubstr("base.div"), HasSubstr("Capture the base again")));
  expect_error(diverge({"--base", dir_ / "none.div", candidate_}), HasSubstr("none.div"));
  const std::string captured = captured_, candidate = candidate_;
  for (const auto& [one, two] : {std::pair{captured, candidate}, {candidate, captured}})
    expect_error(diverge({one, two}),
                 HasSubstr("assay diverge --base " + captured + " " + candidate));
}

TEST_F(DivergeCli, WhatCannotBeComparedIsRefused) {
  ASSERT_EQ(diverge({base_, "--save-base", captured_}).code, 0);
  const fs::path file = candidate_ / "tokenizer.json";
  const std::string tokenizer = *read_file(file);
  write(file, tokenizer + "\n");
  expect_error(diverge({base_, candidate_}), HasSubstr("tokenizer"));
  expect_error(diverge({"--base", captured_, candidate_}), HasSubstr("tokenizer"));
  write(file, tokenizer);
  make_tiny_model(dir_ / "wide", 3080);
  expect_error(diverge({base_, dir_ / "wide"}), AllOf(HasSubstr("3072"), HasSubstr("3080")));
  expect_error(diverge({"--base", captured_, dir_ / "wide"}),
               AllOf(HasSubstr("3072"), HasSubstr("3080")));
  expect_error(diverge({base_, dir_ / "nowhere"}), HasSubstr("nowhere"));
}

TEST_F(DivergeCli, TextsThatCannotBeJudgedAreNamed) {
  const auto with = [&](std::string_view text) {
    write(texts_, text);
    return diverge({base_, candidate_});
  };
  expect_error(with("not JSON\n"), HasSubstr("texts.jsonl:1"));
  expect_error(with(""), HasSubstr("no text in it"));
  expect_error(with("{\"id\":\"a\",\"text\":\"" + std::string(4000, '7') + "\"}\n"),
               AllOf(HasSubstr("texts.jsonl"), HasSubstr("text a"), HasSubstr("512 positions")));
  expect_error(with("{\"id\":\"b\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}\n"),
               AllOf(HasSubstr("text b"), HasSubstr("expected a reply")));
  expect_error(with("{\"id\":\"c\",\"messages\":[{\"content\":{}}],\"reply\":\"x\"}\n"),
               AllOf(HasSubstr("texts.jsonl"), HasSubstr("text c")));
}

TEST_F(DivergeCli, WhatACapturedBaseHasSettledIsRefusedNotIgnored) {
  ASSERT_EQ(diverge({base_, "--save-base", captured_}).code, 0);
  for (const std::vector<std::string>& extra :
       {std::vector<std::string>{"--limit", "1"}, {"--texts", texts_}, {"--noise-texts", "3"}}) {
    std::vector<std::string> all = {"--base", captured_, candidate_};
    all.insert(all.end(), extra.begin(), extra.end());
    expect_error(diverge(all), AllOf(HasSubstr(extra[0]), HasSubstr("leave it out")));
  }
  expect_error(assay({"diverge", base_, candidate_, "--limit", "-1"}),
               HasSubstr("--limit: got -1, expected 0 or more."));
}

TEST_F(DivergeCli, FlagsThatContradictEachOtherAreRefused) {
  const auto message = HasSubstr("--base and --save-base exclude each other");
  expect_error(diverge({base_, "--base", captured_, "--save-base", dir_ / "new.div"}), message);
  expect_error(diverge({base_, candidate_, "--base", captured_, "--save-base", captured_}),
               message);
  expect_error(diverge({base_}), HasSubstr("expected 2"));
  expect_error(diverge({base_, candidate_, "--save-base", captured_}), HasSubstr("expected 1"));
  EXPECT_FALSE(fs::exists(captured_));
}

TEST_F(DivergeCli, AnOutputThatCannotBeWrittenIsAnError) {
  const auto early = AllOf(HasSubstr("nowhere"), HasSubstr("there is no folder"));
  const Outcome capture = diverge({base_, "--save-base", dir_ / "nowhere" / "base.div"});
  expect_error(capture, early);
  EXPECT_THAT(capture.err, Not(HasSubstr("capturing"))) << "before the work, not after it";
  expect_error(diverge({base_, candidate_, "--out", dir_ / "nowhere" / "d.json"}), early);
  expect_error(diverge({base_, candidate_, "--out", dir_}), HasSubstr("is a folder"));
  ASSERT_EQ(diverge({base_, "--save-base", captured_}).code, 0);
  const std::string one_before = *read_file(captured_);
  Program full({"diverge", base_, "--save-base", captured_, "--texts", texts_, "--noise-texts", "0",
                "--threads", "1"},
               2000);
  expect_error(full.wait(), AllOf(HasSubstr("base.div"), HasSubstr("File too large")));
  EXPECT_EQ(*read_file(captured_), one_before);
  EXPECT_FALSE(fs::exists(dir_ / "base.div.tmp"));
}

}  // namespace
}  // namespace assay
