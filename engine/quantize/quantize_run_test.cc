// Whole runs of the quantiser on a tiny checkpoint: what it writes loads, does not depend on
// threads or interruptions, and is refused where the input is bad.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>

#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/inspect.h"
#include "engine/checkpoint/weights.h"
#include "engine/quantize/sealed_file.h"
#include "engine/quantize/tiny_quantisation.h"

namespace assay::engine {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

class QuantizeRun : public TinyQuantisation {
 protected:
  QuantizeInput input(const std::string& out) const {
    QuantizeInput in = plain_input(out);
    Recipe& r = in.recipe;
    r.name = "test";
    r.bits = 1.7;
    r.n_rounds = 2;
    r.spine_group = 8;
    r.attention_bits = r.kv_a_bits = r.shared_expert_bits = 16;  // sizes that fill no words
    r.dense_mlp_bits = 8;
    r.lm_head_bits = 4;
    return in;
  }

  static std::string error_of(const QuantizeInput& in) {
    const auto done = quantize(in);
    return done ? "" : done.error().message;
  }
};

TEST_F(QuantizeRun, WritesACheckpointThatLoadsAndStaysWithinItsBits) {
  const auto report = quantize(input("out"));
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_LE(report->code_bits, 1.7);
  EXPECT_GT(report->code_bits, 1.3);
  EXPECT_FALSE(fs::exists(builds_ / "out" / "quantize-state"));
  const auto checkpoint = Checkpoint::open(builds_ / "out");
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const auto weights = bind_weights(*checkpoint);
  ASSERT_TRUE(weights) << weights.error().message;
  for (int l = 1; l < 3; ++l)
    for (const MlpWeights& e : weights->layers[static_cast<std::size_t>(l)].experts)
      for (const Matrix* m : {&e.gate, &e.up, &e.down})
        EXPECT_TRUE(std::holds_alternative<kernels::VqMatrix>(m->codes)) << m->name;
  EXPECT_TRUE(std::holds_alternative<kernels::ScaledMatrix>(weights->lm_head.codes));
  EXPECT_TRUE(weights->layers[0].o.is_dense());
  const auto summary = inspect(*checkpoint);
  ASSERT_TRUE(summary) << summary.error().message;
  EXPECT_NEAR(summary->routed_code_bits, report->code_bits, 1e-9);
  EXPECT_NEAR(summary->routed_total_bits, report->json["expert_bits"]["total"].get<double>(), 1e-9);
  double n_expert_bytes = 0, n_expert_weights = 0;
  for (const auto& [name, tensor] : checkpoint->tensors())
    if (name.find("mlp.experts.") != std::string::npos || name.starts_with("cb"))
      n_expert_bytes += static_cast<double>(tensor->bytes.size());
  for (int l = 1; l < 3; ++l)
    for (const MlpWeights& e : weights->layers[static_cast<std::size_t>(l)].experts)
      for (const Matrix* m : {&e.gate, &e.up, &e.down})
        n_expert_weights += static_cast<double>(m->n_rows) * m->n_cols;
  EXPECT_NEAR(report->total_bits, 8 * n_expert_bytes / n_expert_weights, 1e-9)
      << "what is stored of the experts, and nothing else";
  EXPECT_GT(report->json["expert_bits"]["padding"], 0.0);
  EXPECT_NEAR(summary->routed_padding_bits, report->json["expert_bits"]["padding"].get<double>(),
              1e-9);
  EXPECT_EQ(summary->n_parameters, inspect(*Checkpoint::open(tiny_.dir))->n_parameters);
  // Each of 131 + 15 tokens goes to two of three experts in both sparse layers.
  int n_samples = 0;
  for (const Json& layer : report->json["samples_per_expert"])
    for (const Json& n : layer) n_samples += n.get<int>();
  EXPECT_EQ(n_samples, 2 * 2 * (6 * 20 + 15));
  EXPECT_EQ(report->json["calibration"]["tokens_by_language"]["ja"], 20 + 22 + 24);
}

TEST_F(QuantizeRun, SaysHowItsPredictedErrorsRankThoseMeasured) {
  const auto report = quantize(input("out"));
  ASSERT_TRUE(report) << report.error().message;
  const Json ranks = report->json["allocation"]["prediction"];
  EXPECT_EQ(ranks["all"]["n_modules"], 2 * 3 * 3) << "sparse layers, experts, projections";
  int n_of_tiers = 0;
  for (const auto& [tier, of] : ranks["tiers"].items()) n_of_tiers += of["n_modules"].get<int>();
  EXPECT_EQ(n_of_tiers, 2 * 3 * 3);
  EXPECT_LE(std::abs(ranks["all"]["spearman"].get<double>()), 1);
  for (const auto& [name, module] : report->json["modules"].items())
    EXPECT_EQ(module.contains("predicted_error"), module["format"] == "vq") << name;
}

TEST_F(QuantizeRun, AsksBetweenLayersWhetherToGoOnAndKeepsWhatIsFinished) {
  ASSERT_EQ(error_of(input("whole")), "");
  QuantizeInput in = input("out");
  bool stop = false;
  in.on_layer = [&](std::string_view stage, int layer) {
    stop = stage == "encoding" && layer == 1;
  };
  in.interrupted = [&] { return stop; };
  const auto stopped = quantize(in);
  ASSERT_TRUE(stopped) << stopped.error().message;
  EXPECT_EQ(stopped->interrupted_at, "2 of 3 layers done in round 1 of 2");
  const auto opened = Checkpoint::open(builds_ / "out");
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message,
              HasSubstr("is an unfinished quantisation with 2 of 3 layers done in round 1 of 2: "));
  QuantizeInput again = input("out");
  std::vector<int> kept;
  again.on_progress = [&](std::string_view stage, int done, int) {
    if (stage == "kept layers") kept.push_back(done);
  };
  ASSERT_EQ(error_of(again), "");
  EXPECT_THAT(kept, ::testing::ElementsAre(0, 1)) << "forward passes are no pace of encoding";
  EXPECT_EQ(files_of(builds_ / "out"), files_of(builds_ / "whole"));
}

TEST_F(QuantizeRun, StoppedAtAnyAskItGoesOnToTheSameBytes) {
  ASSERT_EQ(error_of(input("whole")), "");
  QuantizeInput in = input("out");
  int n_stops = 0;
  for (int n_most = 40; n_stops < 400; n_most = n_most * 5 / 4) {  // asks of a run: ever more
    int n = 0;
    in.interrupted = [&] { return ++n > n_most; };
    const auto done = quantize(in);
    ASSERT_TRUE(done) << done.error().message;
    if (done->interrupted_at.empty()) break;
    ++n_stops;
  }
  EXPECT_GT(n_stops, 20);
  EXPECT_EQ(files_of(builds_ / "out"), files_of(builds_ / "whole"));
}

TEST_F(QuantizeRun, TheFinishAsksWhetherToGoOn) {
  QuantizeInput in = input("out");
  bool is_encoded = false;
  in.on_progress = [&](std::string_view stage, int done, int total) {
    is_encoded = stage == "encoding" && done == total;
  };
  in.interrupted = [&] { return is_encoded; };
  const auto stopped = quantize(in);
  ASSERT_TRUE(stopped) << stopped.error().message;
  EXPECT_THAT(stopped->interrupted_at, HasSubstr("3 of 3 layers done"));
  EXPECT_EQ(stopped->in_hand, "the index and fingerprint");
  EXPECT_FALSE(fs::exists(builds_ / "out" / "config.json"));
  ASSERT_EQ(error_of(input("out")), "");
  ASSERT_EQ(error_of(input("whole")), "");
  EXPECT_EQ(files_of(builds_ / "out"), files_of(builds_ / "whole"));
}

TEST_F(QuantizeRun, SameBytesForAnyThreads) {
  QuantizeInput two = input("two");
  two.n_threads = 2;
  ASSERT_EQ(error_of(input("one")), "");
  ASSERT_EQ(error_of(two), "");
  EXPECT_EQ(files_of(builds_ / "one"), files_of(builds_ / "two"));
}

TEST_F(QuantizeRun, KilledAnywhereItGoesOnToTheSameBytes) {
  ASSERT_EQ(error_of(input("whole")), "");
  int n_calls = 0;
  QuantizeInput counting = input("count");
  counting.on_progress = [&](std::string_view, int, int) { ++n_calls; };
  ASSERT_EQ(error_of(counting), "");
  ASSERT_GT(n_calls, 8);
  for (int kill_at = 1; kill_at <= n_calls; ++kill_at) {
    const std::string out = fmt::format("killed-{}", kill_at);
    const pid_t child = fork();
    if (child == 0) {
      int n = 0;
      QuantizeInput in = input(out);
      in.on_progress = [&](std::string_view, int, int) {
        if (++n == kill_at) _exit(9);
      };
      static_cast<void>(quantize(in));
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_EQ(WEXITSTATUS(status), 9) << "at call " << kill_at;
    EXPECT_FALSE(fs::exists(builds_ / out / "config.json")) << "unfinished, so no checkpoint";
    ASSERT_EQ(error_of(input(out)), "") << "at call " << kill_at;
    EXPECT_EQ(files_of(builds_ / out), files_of(builds_ / "whole")) << "at call " << kill_at;
  }
}

TEST_F(QuantizeRun, WorkOfOtherSettingsIsNotMixed) {
  const pid_t child = fork();
  if (child == 0) {
    QuantizeInput in = input("out");
    in.on_progress = [](std::string_view stage, int, int) {
      if (stage == "encoding") _exit(9);
    };
    static_cast<void>(quantize(in));
    _exit(0);
  }
  waitpid(child, nullptr, 0);
  const auto fresh = quantize(input("fresh"));
  ASSERT_TRUE(fresh) << fresh.error().message;
  EXPECT_FALSE(fresh->is_resumed);
  QuantizeInput other = input("out");
  other.recipe.bits = 1.6;
  other.recipe.kept_down = 0.5;
  other.recipe.lm_head_bits = 8;
  other.recipe.tiers.pop_back();
  const auto differs = AllOf(HasSubstr("bits 1.7 there, 1.6 asked for"),
                             HasSubstr("kept.down not set there, 0.5 asked for"),
                             HasSubstr("spine_bits.lm_head 4 there, 8 asked for"),
                             HasSubstr("tiers one, two, three there, one, two asked for"),
                             Not(HasSubstr("calibration")), Not(HasSubstr("model")));
  EXPECT_THAT(error_of(other), AllOf(HasSubstr("unfinished work of other settings"), differs));
  QuantizeInput fewer = input("out");
  fewer.texts.pop_back();
  fewer.calibration = "mine";
  EXPECT_THAT(error_of(fewer), AllOf(HasSubstr("calibration test of 6 texts"),
                                     HasSubstr(" there, mine of 5 texts"), Not(HasSubstr("bits"))));
  const auto done = quantize(input("out"));
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_TRUE(done->is_resumed);
  EXPECT_FALSE(done->is_finished_before);
  EXPECT_THAT(error_of(other), AllOf(HasSubstr("is finished, and of other settings"), differs));
}

TEST_F(QuantizeRun, AFinishedFolderIsLeftAsItIs) {
  ASSERT_EQ(error_of(input("out")), "");
  const auto files = files_of(builds_ / "out");
  fs::create_directories(builds_ / "out" / "quantize-state");  // killed as it tidied up
  const auto again = quantize(input("out"));
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_TRUE(again->is_finished_before);
  EXPECT_EQ(again->json["expert_bits"]["code"],
            Json::parse(files.at("quantisation.json"))["expert_bits"]["code"]);
  EXPECT_EQ(files_of(builds_ / "out"), files);
  EXPECT_FALSE(fs::exists(builds_ / "out" / "quantize-state"));
  fs::remove(builds_ / "out" / "vq_codebooks.safetensors");
  EXPECT_THAT(error_of(input("out")), HasSubstr("vq_codebooks.safetensors"));
  fs::remove(builds_ / "out" / "quantisation-identity.json");  // of an older build
  EXPECT_THAT(error_of(input("out")), HasSubstr("othing is overwritten"));
}

TEST_F(QuantizeRun, BadInputIsNamed) {
  QuantizeInput none = input("out");
  none.texts.clear();
  EXPECT_THAT(error_of(none), HasSubstr("the calibration set is empty"));
  QuantizeInput foreign = input("out");
  foreign.texts[2].ids[1] = 40;
  EXPECT_THAT(error_of(foreign), HasSubstr("calibration text 3 has token 40, expected 0 to 39"));
  QuantizeInput wide = input("out");
  wide.recipe.tiers = {{"half", 8, 16}, {"two", 2, 16}};
  EXPECT_THAT(error_of(wide), HasSubstr("setting group: got 4, expected a multiple of d = 8"));
  wide.recipe.group = 8;
  EXPECT_THAT(error_of(wide), AllOf(HasSubstr("down_proj"), HasSubstr("d = 8")));
  QuantizeInput beam = input("out");
  beam.recipe.beam = 3;
  EXPECT_THAT(error_of(beam), HasSubstr("setting beam: got 3, expected 1, 2, 4, 8"));
  beam.recipe.beam = 4;
  beam.recipe.compensate_gate_up = beam.recipe.compensate_down = false;
  EXPECT_THAT(error_of(beam), HasSubstr("expected 1 without error feedback"));
  fs::remove_all(builds_ / "out");
  QuantizeInput odd = input("out");
  odd.recipe.attention_bits = 4;
  EXPECT_THAT(error_of(odd), AllOf(HasSubstr("self_attn"), HasSubstr("keep this matrix in 16")));
  EXPECT_FALSE(fs::exists(builds_ / "out")) << "said before anything is made";
  QuantizeInput few = input("out");
  few.recipe.bits = 0.5;
  EXPECT_THAT(error_of(few), HasSubstr("0.5 code bits a weight are asked for"));
  fs::remove_all(builds_ / "out");
  ASSERT_EQ(error_of(input("out")), "");
  QuantizeInput again = input("twice");
  again.model = builds_ / "out";
  EXPECT_THAT(error_of(again),
              HasSubstr("is quantised already (quant_method auto-round in config.json)"));
}

TEST_F(QuantizeRun, EveryFinishedPieceOfThePlanIsKept) {
  ASSERT_EQ(error_of(input("whole")), "");
  const auto stop_before = [&](std::string_view stage, int done) {
    bool stop = false;
    QuantizeInput in = input("out");
    in.on_progress = [&](std::string_view at, int n, int) { stop |= at == stage && n >= done; };
    in.interrupted = [&] { return stop; };
    return *quantize(in);
  };
  const auto stages_of_resumed = [&](std::string_view until) {
    std::set<std::string> stages;
    bool stop = false;
    QuantizeInput in = input("out");
    in.on_progress = [&](std::string_view at, int, int) {
      stages.emplace(at);
      stop |= at == until;
    };
    in.interrupted = [&] { return stop; };
    EXPECT_TRUE(quantize(in));
    return stages;
  };
  const QuantizeReport first = stop_before("codebook of tier one, iteration", 2);
  EXPECT_THAT(first.interrupted_at,
              HasSubstr("statistics of 2 layers with experts, 0 of 3 codebooks"));
  EXPECT_EQ(first.in_hand, "the codebook of tier one");
  const QuantizeReport second = stop_before("codebook of tier two, first centres", 0);
  EXPECT_THAT(second.interrupted_at, HasSubstr("1 of 3 codebooks and predicted errors of 0"));
  EXPECT_EQ(second.in_hand, "the codebook of tier two");
  EXPECT_THAT(stages_of_resumed("codebook of tier three, first centres"),
              AllOf(Not(Contains(HasSubstr("tier one"))), Not(Contains("statistics")),
                    Contains("codebook of tier two, iteration")));
  const QuantizeReport third = stop_before("errors of tiers, module", 0);
  EXPECT_THAT(third.interrupted_at, HasSubstr("3 of 3 codebooks and predicted errors of 0"));
  EXPECT_EQ(third.in_hand, "predicted errors of layer 1 (of 0 to 2)");
  EXPECT_THAT(stages_of_resumed("encoding"),
              UnorderedElementsAre("errors of tiers, module", "encoding"));
  ASSERT_EQ(error_of(input("out")), "");
  EXPECT_EQ(files_of(builds_ / "out"), files_of(builds_ / "whole"));
}

// Each file that a resumed run reads, cut and with one byte changed: named, and made anew once it
// is deleted.
TEST_F(QuantizeRun, DamagedStateIsAnErrorNotGarbage) {
  ASSERT_EQ(error_of(input("whole")), "");
  const fs::path state = builds_ / "out" / "quantize-state";
  const auto kill_at = [&](std::string_view at, int n) {
    fs::remove_all(builds_ / "out");
    const pid_t child = fork();
    if (child == 0) {
      QuantizeInput in = input("out");
      in.on_progress = [&](std::string_view stage, int done, int) {
        if (stage == at && done == n) _exit(9);
      };
      static_cast<void>(quantize(in));
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_EQ(WEXITSTATUS(status), 9) << at;
  };
  const auto expect_named = [&](const std::string& name) {
    const std::string good = *read_file(state / name);
    std::string flipped = good;
    flipped[good.size() / 2] ^= 1;
    for (const std::string& bad : {good.substr(0, good.size() - 7), flipped}) {
      ASSERT_TRUE(write_file_atomic(state / name, bad));
      EXPECT_THAT(error_of(input("out")), AllOf(HasSubstr(name + " is damaged: "),
                                                HasSubstr("Delete this file: the same command")));
    }
    ASSERT_TRUE(write_file_atomic(state / name, good));
  };
  const auto expect_all_named = [&](const std::vector<std::string>& names) {
    for (const std::string& name : names) expect_named(name);
    for (const std::string& name : names) fs::remove(state / name);
    ASSERT_EQ(error_of(input("out")), "");
    EXPECT_EQ(files_of(builds_ / "out"), files_of(builds_ / "whole"));
  };
  kill_at("encoding", 0);
  fs::remove(state / "plan.json");  // so that its pieces are read
  expect_all_named({"uncertainty.safetensors", "stats-00001.safetensors", "codebook-00001.json",
                    "errors-00002.json"});
  kill_at("encoding", 2);
  expect_all_named({"plan.json", "codebooks.safetensors", "round-0/layer-00000.safetensors",
                    "round-0/layer-00001.json"});
}

TEST_F(QuantizeRun, APlanOfAnotherModelIsRefused) {
  const pid_t child = fork();
  if (child == 0) {
    QuantizeInput in = input("out");
    in.on_progress = [](std::string_view stage, int, int) {
      if (stage == "encoding") _exit(9);
    };
    static_cast<void>(quantize(in));
    _exit(0);
  }
  waitpid(child, nullptr, 0);
  const fs::path file = builds_ / "out" / "quantize-state" / "plan.json";
  const Json plan = *read_sealed(file);
  const auto with = [&](auto change) {
    Json changed = plan;
    change(changed["tier"]);
    EXPECT_TRUE(write_sealed(file, changed));
    return error_of(input("out"));
  };
  EXPECT_THAT(with([](Json& t) { t.erase(2); }),
              AllOf(HasSubstr("plan.json is damaged: 2 layers, expected 3"), HasSubstr("Delete")));
  EXPECT_THAT(with([](Json& t) { t[0] = t[1]; }), HasSubstr("3 experts in layer 0, expected 0"));
  EXPECT_THAT(with([](Json& t) { t[1].erase(0); }), HasSubstr("2 experts in layer 1, expected 3"));
  EXPECT_THAT(with([](Json& t) { t[2][1].erase(0); }),
              HasSubstr("2 projections of layer 2, expert 1, expected 3"));
  EXPECT_THAT(with([](Json& t) { t[2][1].push_back(0); }), HasSubstr("4 projections of layer 2"));
  EXPECT_THAT(with([](Json& t) { t[2] = 7; }), HasSubstr("0 experts in layer 2, expected 3"));
  EXPECT_THAT(with([](Json& t) { t[2][1][0] = 3; }), HasSubstr("tier 3, expected 0 to 2"));
  {
    Json without = plan;
    without.erase("error");
    ASSERT_TRUE(write_sealed(file, without));
    EXPECT_THAT(error_of(input("out")), AllOf(HasSubstr("plan.json"), HasSubstr("error")));
  }
  EXPECT_EQ(with([](Json&) {}), "");
}

}  // namespace
}  // namespace assay::engine
