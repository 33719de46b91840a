// Whole runs in activation order: files of the same shape, for any threads and after any kill.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/checkpoint/checkpoint.h"
#include "engine/quantize/tiny_quantisation.h"

namespace assay::engine {
namespace {

using ::testing::HasSubstr;

class ActivationOrderRun : public TinyQuantisation {
 protected:
  QuantizeInput input(const std::string& out, int order = 1, int spine_order = 1) const {
    QuantizeInput in = plain_input(out);
    Recipe& r = in.recipe;
    r.spine_group = 8;
    r.attention_bits = r.kv_a_bits = r.shared_expert_bits = 16;  // sizes that fill no words
    r.dense_mlp_bits = 8;
    r.activation_order = order;
    r.spine_activation_order = spine_order;
    return in;
  }

  static std::string error_of(const QuantizeInput& in) {
    const auto done = quantize(in);
    return done ? "" : done.error().message;
  }

  // Names, types and shapes of what a build holds.
  std::map<std::string, std::string> shapes_of(const std::string& out) const {
    std::map<std::string, std::string> shapes;
    const auto checkpoint = Checkpoint::open(builds_ / out);
    EXPECT_TRUE(checkpoint) << checkpoint.error().message;
    for (const auto& [name, tensor] : checkpoint->tensors()) {
      shapes[name] = fmt::format("{}", static_cast<int>(tensor->dtype));
      for (const auto n : tensor->shape) shapes[name] += fmt::format(" {}", n);
    }
    return shapes;
  }
};

TEST_F(ActivationOrderRun, HasTheFormatThatBuildsHaveWithoutIt) {
  ASSERT_EQ(error_of(input("plain", 0, 0)), "");
  ASSERT_EQ(error_of(input("experts", 1, 0)), "");
  ASSERT_EQ(error_of(input("spine", 0, 1)), "");
  const auto config = [&](const char* out) { return files_of(builds_ / out).at("config.json"); };
  for (const char* out : {"experts", "spine"}) {
    EXPECT_EQ(shapes_of(out), shapes_of("plain")) << out;
    EXPECT_EQ(config(out), config("plain")) << out << ": the same tiers, and no word of an order";
    EXPECT_NE(files_of(builds_ / out), files_of(builds_ / "plain")) << out;
  }
}

TEST_F(ActivationOrderRun, KilledOrWithOtherThreadsItMakesTheSameBytes) {
  QuantizeInput four = input("four");
  four.n_threads = 4;
  ASSERT_EQ(error_of(input("one")), "");
  ASSERT_EQ(error_of(four), "");
  EXPECT_EQ(files_of(builds_ / "one"), files_of(builds_ / "four"));
  const pid_t child = fork();
  if (child == 0) {
    QuantizeInput in = input("killed");
    in.on_progress = [](std::string_view stage, int done, int) {
      if (stage == "encoding" && done == 2) _exit(9);
    };
    static_cast<void>(quantize(in));
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(WEXITSTATUS(status), 9);
  const std::string other = error_of(input("killed", 0, 0));
  EXPECT_THAT(other, HasSubstr("activation_order 1 there, not set asked for"));
  EXPECT_THAT(other, HasSubstr("spine_activation_order 1 there, not set asked for"));
  ASSERT_EQ(error_of(input("killed")), "");
  EXPECT_EQ(files_of(builds_ / "killed"), files_of(builds_ / "one"));
}

TEST_F(ActivationOrderRun, NeedsErrorFeedback) {
  QuantizeInput in = input("out");
  in.recipe.compensate_gate_up = in.recipe.compensate_down = false;
  EXPECT_THAT(error_of(in),
              HasSubstr("setting activation_order: got 1, expected 0 without error "));
}

}  // namespace
}  // namespace assay::engine
