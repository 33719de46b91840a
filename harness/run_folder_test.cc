#include "harness/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "harness/record.h"
#include "harness/test_support.h"

namespace assay::harness {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class RunFolderTest : public testing::Test {
 protected:
  RunFolderTest() {
    auto record = RunRecord::create(folder(), {{"options", Json::object()},
                                               {"plan", Json::object()},
                                               {"identity", {{"model", "m1"}}},
                                               {"provenance", {{"commit", "abc"}}}});
    for (const char* id : {"a", "b"}) {
      Sample s = made_sample(id, "c", "ja", Correctness::kCorrect);
      s.ids = {4, 5};
      s.steps.resize(2);
      s.steps[1].top[0] = {5, -0.5F};
      EXPECT_TRUE(record->append(s));
      samples_.push_back(s);
    }
    EXPECT_TRUE(record->finish(samples_, {{"state", "pass"}}, Json::array(), Json::object()));
  }
  fs::path folder() const { return temporary_.path() / "run"; }
  std::string error() const {
    const auto run = read_run(folder());
    return run ? "no error" : run.error().message;
  }
  void append(const char* file, std::string_view bytes) const {
    std::ofstream(folder() / file, std::ios::binary | std::ios::app) << bytes;
  }

  TemporaryFolder temporary_;
  std::vector<Sample> samples_;
};

TEST_F(RunFolderTest, ComesBackWithItsSteps) {
  const auto run = read_run(folder());
  ASSERT_TRUE(run) << run.error().message;
  EXPECT_TRUE(run->complete());
  ASSERT_EQ(run->samples.size(), 2u);
  EXPECT_EQ(run->samples[1].steps, samples_[1].steps);
  EXPECT_EQ(run->describe()["identity"]["model"], "m1");
  EXPECT_EQ(run->describe()["commit"], "abc");
}

TEST_F(RunFolderTest, ARunOfBeforeThereWereStepsIsRead) {
  fs::remove(folder() / "steps.bin");
  const auto run = read_run(folder());
  ASSERT_TRUE(run) << run.error().message;
  EXPECT_TRUE(run->samples[0].steps.empty());
}

TEST_F(RunFolderTest, TornSamplesOfACompleteRunAreAnError) {
  fs::resize_file(folder() / "samples.jsonl", fs::file_size(folder() / "samples.jsonl") - 9);
  EXPECT_THAT(error(), AllOf(HasSubstr("samples.jsonl"), HasSubstr("counts 2 samples"),
                             HasSubstr("1 whole lines and a torn one")));
}

TEST_F(RunFolderTest, WhatIsNoRunSaysSo) {
  EXPECT_THAT(read_run(temporary_.path()).error().message, HasSubstr("holds no run"));
  append("steps.bin", "no frame, this is");
  EXPECT_THAT(error(), HasSubstr("steps.bin: expected a frame of steps"));
  fs::remove(folder() / "samples.jsonl");
  EXPECT_THAT(error(), AllOf(HasSubstr("samples.jsonl: there is no such file"),
                             HasSubstr("assay run --resume " + folder().string())));
}

}  // namespace
}  // namespace assay::harness
