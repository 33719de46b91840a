// The folder that a build is made in: one process at a time, nothing damaged gone on with, and
// never inside another checkpoint.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/quantize/identity.h"
#include "engine/quantize/state_lock.h"
#include "engine/quantize/tiny_quantisation.h"

namespace assay::engine {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class QuantizeState : public TinyQuantisation {
 protected:
  fs::path out() const { return builds_ / "out"; }
  fs::path state() const { return out() / "quantize-state"; }
  QuantizeInput input(const std::string& name = "out") const {
    QuantizeInput in = plain_input(name);
    in.recipe.bits = 1.7;
    in.recipe.attention_bits = in.recipe.kv_a_bits = in.recipe.shared_expert_bits = 16;
    in.recipe.dense_mlp_bits = in.recipe.lm_head_bits = 16;
    return in;
  }
  // What is left when the second layer is about to be encoded.
  void stop_while_encoding() {
    bool stop = false;
    QuantizeInput in = input();
    in.on_layer = [&](std::string_view stage, int layer) {
      stop = stage == "encoding" && layer == 1;
    };
    in.interrupted = [&] { return stop; };
    ASSERT_TRUE(quantize(in));
  }
  static std::string error_of(const QuantizeInput& in) {
    const auto done = quantize(in);
    return done ? "" : done.error().message;
  }
  // Nothing is made before it, so nothing is asked.
  std::string error_at_once() const {
    QuantizeInput in = input();
    in.on_progress = [](std::string_view stage, int, int) { ADD_FAILURE() << "began " << stage; };
    return error_of(in);
  }
  static void spoil(const fs::path& file) {
    std::string bytes = *read_file(file);
    bytes[bytes.size() / 2] ^= 1;
    ASSERT_TRUE(write_file_atomic(file, bytes));
  }
};

TEST_F(QuantizeState, ASecondProcessIsToldWhoWorksThereAndTouchesNothing) {
  int ready[2], go[2];
  ASSERT_EQ(pipe(ready) + pipe(go), 0);
  const pid_t child = fork();
  if (child == 0) {
    QuantizeInput in = input();
    in.on_layer = [&](std::string_view stage, int layer) {
      char byte = 0;
      if (stage == "encoding" && layer == 0 &&
          (write(ready[1], "", 1) != 1 || read(go[0], &byte, 1)))
        _exit(9);  // killed: the parent has asked all it wants to
    };
    static_cast<void>(quantize(in));
    _exit(1);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  const auto before = files_of(out());
  EXPECT_THAT(error_at_once(), AllOf(HasSubstr(out().string() + " is being worked on by process " +
                                               std::to_string(child) + " on "),
                                     HasSubstr("choose another folder")));
  EXPECT_EQ(files_of(out()), before);
  ASSERT_EQ(write(go[1], "", 1), 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(WEXITSTATUS(status), 9);
  EXPECT_EQ(error_of(input()), "") << "a lock goes with its process";
}

TEST_F(QuantizeState, ALockIsOfTheFileThatIsThere) {
  fs::create_directories(state());
  {
    const auto first = StateLock::take(state());
    ASSERT_TRUE(first) << first.error().message;
    EXPECT_FALSE(StateLock::take(state())) << "within a process too";
    fs::remove(StateLock::file_of(state()));
    EXPECT_TRUE(StateLock::take(state())) << "what the first has deleted locks nothing";
  }
  EXPECT_TRUE(StateLock::take(state()));
  EXPECT_EQ(error_of(input()), "") << "a lock alone is no work of an earlier run";
}

TEST_F(QuantizeState, EveryDamagedPieceIsNamedBeforeAnythingIsMade) {
  stop_while_encoding();
  const fs::path stats = state() / "stats-00002.safetensors",
                 layer = state() / "round-0" / "layer-00001.safetensors",
                 unread = state() / "codebook-00001.json";
  spoil(layer);
  EXPECT_THAT(error_at_once(), AllOf(HasSubstr(layer.string() + " is damaged: "),
                                     HasSubstr("Delete this file: the same command")));
  spoil(stats);
  spoil(unread);
  EXPECT_THAT(error_at_once(),
              AllOf(HasSubstr("3 files are damaged: "), HasSubstr(stats.string()),
                    HasSubstr(layer.string()), HasSubstr(unread.string()),
                    HasSubstr("Delete these files"), Not(HasSubstr("Delete this file"))));
  const fs::path book = state() / "codebook-00000.json", plan = state() / "plan.json";
  spoil(book);
  spoil(plan);
  EXPECT_THAT(error_at_once(), AllOf(HasSubstr("5 files are damaged: "), HasSubstr(plan.string()),
                                     HasSubstr(" and 1 more. Delete these files: the same command "
                                               "names the rest")));
  for (const fs::path& file : {stats, layer, unread, book, plan}) fs::remove(file);
  ASSERT_EQ(error_of(input()), "");
  ASSERT_EQ(error_of(input("whole")), "");
  EXPECT_EQ(files_of(out()), files_of(builds_ / "whole"));
}

TEST_F(QuantizeState, ALayerWithoutItsReportIsUnfinishedNotDamaged) {
  stop_while_encoding();
  fs::remove(state() / "round-0" / "layer-00001.json");
  spoil(state() / "round-0" / "layer-00001.safetensors");
  EXPECT_EQ(error_of(input()), "");
}

TEST_F(QuantizeState, WithoutItsIdentityItSaysWhatToDelete) {
  stop_while_encoding();
  const fs::path identity = state() / "identity.json";
  const std::string good = *read_file(identity);
  const auto next_step = AllOf(HasSubstr("Delete " + state().string() + " and run the same"),
                               HasSubstr("choose another folder than " + out().string()));
  for (const char* bad : {"{\"model\"", "[]", "{}", "{\"model\": 7, \"recipe\": {}}"}) {
    ASSERT_TRUE(write_file_atomic(identity, bad));
    EXPECT_THAT(error_at_once(), AllOf(HasSubstr("identity.json"), next_step)) << bad;
  }
  fs::remove(identity);
  EXPECT_THAT(error_at_once(), AllOf(HasSubstr("identity.json is missing"), next_step));
  ASSERT_TRUE(write_file_atomic(identity, good));
  ASSERT_EQ(error_of(input()), "");
  ASSERT_TRUE(write_file_atomic(out() / "quantisation-identity.json", "[]"));
  EXPECT_THAT(error_of(input()), AllOf(HasSubstr("quantisation-identity.json is damaged"),
                                       HasSubstr("assay inspect " + out().string())));
}

TEST(QuantizeIdentity, OfManyDifferencesTheRestIsCounted) {
  Json there = {{"recipe", Json::object()}}, asked = there;
  for (int i = 0; i < 9; ++i) there["recipe"][fmt::format("s{}", i)] = i;
  EXPECT_THAT(differences(there, asked),
              AllOf(HasSubstr("s5 5 there, not set asked for and 3 more"), Not(HasSubstr("s6"))));
}

TEST_F(QuantizeState, NoBuildIsMadeInsideACheckpoint) {
  const auto error_in = [&](const fs::path& folder) {
    QuantizeInput in = input();
    in.out = folder;
    return error_of(in);
  };
  const std::string inside = " lies inside " + fs::canonical(tiny_.dir).string() + ", which is a ";
  EXPECT_THAT(error_in(tiny_.dir / "vq"), HasSubstr(inside));
  EXPECT_THAT(error_in(tiny_.dir / "builds" / "vq"), HasSubstr(inside));
  EXPECT_FALSE(fs::exists(tiny_.dir / "builds"));
  fs::create_directory_symlink(tiny_.dir, builds_ / "link");
  EXPECT_THAT(error_in(builds_ / "link" / "vq"), HasSubstr(inside));
  fs::create_directories(builds_ / "unfinished" / "quantize-state");
  EXPECT_THAT(error_in(builds_ / "unfinished" / "vq"), HasSubstr("which is a checkpoint itself"));
  ASSERT_TRUE(write_file_atomic(builds_ / "config.json", "{\"theme\": \"dark\"}"));
  EXPECT_EQ(error_in(builds_ / "vq"), "") << "a config.json of something else";
}

}  // namespace
}  // namespace assay::engine
