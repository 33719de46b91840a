// What encoding leaves of predicted errors, measured on a sample: it is what encoding leaves, and
// the plan goes by it.
#include "engine/quantize/kept_sample.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/checkpoint/checkpoint.h"
#include "engine/quantize/sealed_file.h"
#include "engine/quantize/tiny_quantisation.h"

namespace assay::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class KeptSample : public TinyQuantisation {
 protected:
  // Everything but the experts stays as it is, so that the first sparse layer, layer 1, is given
  // what the bf16 model gives it.
  QuantizeInput input(const std::string& out) const {
    QuantizeInput in = plain_input(out);
    Recipe& r = in.recipe;
    r.attention_bits = r.kv_a_bits = r.shared_expert_bits = r.dense_mlp_bits = r.lm_head_bits = 16;
    r.kept_sample = 2;
    return in;
  }

  Json built(const QuantizeInput& in) const {
    const auto report = quantize(in);
    EXPECT_TRUE(report) << report.error().message;
    return report ? report->json : Json();
  }
};

TEST_F(KeptSample, IsSpreadOverExpertsByTheirTokens) {
  std::vector<ExpertStats> stats(6);
  const std::array<int, 6> n_tokens = {50, 0, 10, 40, 20, 30};
  for (std::size_t e = 0; e < stats.size(); ++e) stats[e].n_tokens = n_tokens[e];
  EXPECT_THAT(sampled_experts(stats, 1), ElementsAre(5)) << "the median of those that saw any";
  EXPECT_THAT(sampled_experts(stats, 2), ElementsAre(3, 4));
  EXPECT_THAT(sampled_experts(stats, 9), ElementsAre(0, 2, 3, 4, 5));
}

TEST_F(KeptSample, AShareIsTheRatioOfTheSums) {
  const std::vector<SampledLayer> sample = {
      {}, {.experts = {0, 2}, .error = {{{{0.1}, {0.2}, {0.3}}}, {{{0.5}, {0.0}, {0.3}}}}}};
  LayerErrors predicted(9, {.energy = 2, .nearest = {2.0}});  // 1 of each
  predicted[6] = {.energy = 4, .nearest = {2.0}};             // half, of expert 2's gate
  predicted[2].nearest = predicted[8].nearest = {0.0};
  const Kept kept = kept_of_sample(sample, {{}, predicted});
  ASSERT_EQ(kept.share.size(), 2U);
  EXPECT_DOUBLE_EQ(kept.share[1][0][0], 0.6 / 1.5);
  EXPECT_DOUBLE_EQ(kept.share[1][1][0], 0.2 / 2);
  EXPECT_DOUBLE_EQ(kept.share[1][2][0], 1) << "nothing was predicted";
  EXPECT_EQ(kept.all, kept.share[1]) << "of the only layer with experts";
}

// With all experts that saw tokens in the sample, one tier, and a spine as it was: gate and up of
// layer 1 are encoded for the sample as for the checkpoint. For down the sample has the bf16 gate's
// and up's hidden values.
TEST_F(KeptSample, IsWhatEncodingLeaves) {
  for (const int beam : {1, 4}) {
    QuantizeInput in = input(fmt::format("out-{}", beam));
    in.recipe.kept_sample = 3;
    in.recipe.beam = beam;
    in.recipe.tiers = {{"two", 2, 16}};
    in.recipe.bits = 2;
    const Json json = built(in), kept = json["allocation"]["kept"];
    for (const char* projection : {"gate_proj", "up_proj", "down_proj"}) {
      double measured = 0, predicted = 0;
      for (int e = 0; e < 3; ++e) {
        const Json& module =
            json["modules"][fmt::format("model.layers.1.mlp.experts.{}.{}", e, projection)];
        if (module["n_samples"] == 0) continue;  // nor is it in the sample
        measured += module["relative_error"].get<double>();
        predicted += module["predicted_error"].get<double>();
      }
      const double share = kept["layers"][1][projection]["two"].get<double>();
      const bool is_down = std::string_view(projection) == "down_proj";
      EXPECT_NEAR(share, measured / predicted, (is_down ? 0.2 : 1e-9) * share) << projection;
      EXPECT_LT(share, 1) << "feedback and descent pay";
    }
    EXPECT_TRUE(kept["layers"][0].empty()) << "a dense layer";
  }
}

TEST_F(KeptSample, HoldsForScalarTiersToo) {
  QuantizeInput in = input("out");
  in.recipe.tiers = {{"s1", 1, 2}, {"s2", 1, 4}};
  in.recipe.bits = 1.5;
  const Json kept = built(in)["allocation"]["kept"]["all"];
  for (const char* projection : {"gate_proj", "up_proj", "down_proj"})
    for (const char* tier : {"s1", "s2"}) {
      EXPECT_GT(kept[projection][tier].get<double>(), 0) << projection << " " << tier;
      EXPECT_LT(kept[projection][tier].get<double>(), 1) << projection << " " << tier;
    }
}

// A measurement of the same figures that a recipe may say leads to the same plan, and another
// than without; a share of its own for a tier moves what goes there.
TEST_F(KeptSample, ThePlanGoesByIt) {
  const auto checkpoint = Checkpoint::open(tiny_.dir);
  const auto weights = bind_weights(*checkpoint);
  Recipe recipe = input("out").recipe;
  recipe.kept_sample = 0;
  ModelStats stats(3);
  for (std::size_t l = 1; l < 3; ++l)
    for (int e = 0; e < 3; ++e) {
      const auto of = [&](std::size_t cols, std::size_t rows) {
        return ProjectionStats{std::vector<float>(cols, 1.0f), std::vector<float>(rows, 1.0f)};
      };
      stats[l].push_back({.n_tokens = 9, .gate = of(16, 10), .up = of(16, 10), .down = of(10, 16)});
    }
  ThreadPool pool(1);
  const auto planned = [&](std::array<std::vector<double>, 3> share) {
    PlanHooks hooks;
    if (!share[0].empty())
      hooks.measure_kept = [&](const auto& books, const auto& predicted) -> Result<Kept> {
        EXPECT_EQ(books.size(), 3U);
        EXPECT_EQ(predicted[0].size(), 0U);
        EXPECT_EQ(predicted[1].size(), 9U);
        return Kept{.share = {{}, share, share}, .all = share};
      };
    return make_plan(*weights, stats, recipe, pool, hooks)->tier;
  };
  const auto plain = planned({});
  EXPECT_EQ(planned({{{1, 1, 1}, {1, 1, 1}, {1, 1, 1}}}), plain);
  const auto measured = planned({{{.05, .05, .05}, {.1, .1, .1}, {2, 2, 2}}});
  EXPECT_NE(measured, plain);
  recipe.kept_gate = 0.05;
  recipe.kept_up = 0.1;
  recipe.kept_down = 2;
  EXPECT_EQ(planned({}), measured);
  const auto count = [](const auto& tiers, std::size_t projection, int tier) {
    int n = 0;
    for (const auto& layer : tiers)
      for (const auto& expert : layer) n += expert[projection] == tier;
    return n;
  };
  EXPECT_GT(count(measured, 2, 2), count(plain, 2, 2)) << "down gets more of the dearest tier";
  EXPECT_EQ(count(planned({{{1, 1, 1}, {1, 1, 1}, {1, 1, 99}}}), 2, 2), 0)
      << "a tier that keeps much is not worth its bits";
}

TEST_F(KeptSample, SameBytesForAnyThreads) {
  QuantizeInput four = input("four");
  four.n_threads = 4;
  built(input("one"));
  built(four);
  EXPECT_EQ(files_of(builds_ / "one"), files_of(builds_ / "four"));
}

TEST_F(KeptSample, KilledInItsMidstItGoesOnToTheSameBytes) {
  built(input("whole"));
  for (int kill_at = 0; kill_at < 4; ++kill_at) {
    const std::string out = fmt::format("killed-{}", kill_at);
    const pid_t child = fork();
    if (child == 0) {
      QuantizeInput in = input(out);
      in.on_progress = [&](std::string_view stage, int done, int) {
        if (kill_at < 3 ? stage == "kept" && done == kill_at : stage == "encoding") _exit(9);
      };
      static_cast<void>(quantize(in));
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_EQ(WEXITSTATUS(status), 9) << kill_at;
    const fs::path state = builds_ / out / "quantize-state";
    EXPECT_EQ(fs::exists(state / "kept-00001.json"), kill_at >= 2) << kill_at;
    std::set<int> begun;
    QuantizeInput in = input(out);
    in.on_layer = [&](std::string_view stage, int layer) {
      if (stage == "kept") begun.insert(layer);
    };
    built(in);
    EXPECT_EQ(begun.empty(), kill_at == 3) << "a plan that is there is not made again";
    EXPECT_EQ(files_of(builds_ / out), files_of(builds_ / "whole")) << kill_at;
  }
}

TEST_F(KeptSample, InterruptedItSaysWhichLayersSamplesAreThere) {
  QuantizeInput in = input("stopped");
  bool stop = false;
  in.on_progress = [&](std::string_view stage, int done, int) {
    if (stage == "kept" && done == 2) stop = true;
  };
  in.interrupted = [&] { return stop; };
  const auto made = quantize(in);
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ(made->in_hand, "the samples of layer 2 (of 0 to 2) that are encoded");
  EXPECT_THAT(made->interrupted_at, HasSubstr("samples encoded of 1"));
}

TEST_F(KeptSample, ADamagedSampleIsNamed) {
  const pid_t child = fork();
  if (child == 0) {
    QuantizeInput in = input("out");
    in.on_progress = [&](std::string_view stage, int done, int) {
      if (stage == "kept" && done == 2) _exit(9);
    };
    static_cast<void>(quantize(in));
    _exit(0);
  }
  waitpid(child, nullptr, 0);
  const fs::path file = builds_ / "out" / "quantize-state" / "kept-00001.json";
  Json sample = *read_sealed(file);
  sample["error"][0][1].erase(0);
  ASSERT_TRUE(write_sealed(file, sample));
  const auto done = quantize(input("out"));
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().message,
              HasSubstr("kept-00001.json is damaged: is not of 2 experts in 3 tiers"));
}

TEST_F(KeptSample, IsEitherMeasuredOrSaid) {
  QuantizeInput in = input("out");
  in.recipe.kept_down = 0.5;
  const auto done = quantize(in);
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().message, HasSubstr("setting kept_sample: got 2 beside kept_gate"));
}

}  // namespace
}  // namespace assay::engine
