#include "harness/cli/stage_progress.h"

#include <gtest/gtest.h>

namespace assay::cli {
namespace {

TEST(StageProgress, AStageOfEqualPiecesHasAnEtaOfItsOwn) {
  StageProgress p(12, 2);
  EXPECT_EQ(p.line("errors of tiers, module", 0, 10, 5),
            "errors of tiers, module 0/10 done  5 s\n");
  EXPECT_EQ(p.line("errors of tiers, module", 1, 10, 6), "") << "a line every other second";
  EXPECT_EQ(p.line("errors of tiers, module", 4, 10, 25),
            "errors of tiers, module 4/10 done  25 s  about 0:30 for this stage\n");
  EXPECT_EQ(p.line("errors of tiers, module", 10, 10, 26),
            "errors of tiers, module 10/10 done  26 s\n");
}

// Two dense layers of 10 s, then sparse ones of 1,000 s: the dense ones promise nothing.
TEST(StageProgress, AboutWhenAllIsDoneIsSaidOnceALayerOfEachKindThatIsLeftWasSeen) {
  StageProgress p(12, 2);
  EXPECT_EQ(p.line("encoding", 0, 13, 100), "encoding     0 of 12 layers done  100 s\n");
  EXPECT_EQ(p.line("encoding", 1, 13, 110), "encoding     1 of 12 layers done  110 s\n");
  EXPECT_EQ(p.line("encoding", 2, 13, 120), "encoding     2 of 12 layers done  120 s\n");
  EXPECT_EQ(p.line("encoding", 3, 13, 1120),
            "encoding     3 of 12 layers done  1120 s  about 2:30:00 to the end\n");
  EXPECT_EQ(p.line("encoding", 12, 13, 10120), "encoding     12 of 12 layers done  10120 s\n");
  EXPECT_EQ(p.line("encoding", 13, 13, 10170),
            "encoding     12 of 12 layers done, and what is in no layer  10170 s\n");
}

TEST(StageProgress, ADearDenseLayerDoesNotLastForEver) {
  StageProgress p(7, 1);
  EXPECT_EQ(p.line("statistics", 0, 7, 0), "statistics   0 of 7 layers done  0 s\n");
  EXPECT_EQ(p.line("statistics", 1, 7, 60), "statistics   1 of 7 layers done  60 s\n");
  EXPECT_EQ(p.line("statistics", 2, 7, 64),
            "statistics   2 of 7 layers done  64 s  about 0:20 for this stage\n");
}

// In the second round every kind is known, and the first layer of it is dense again.
TEST(StageProgress, EveryRoundCountsItsOwnLayers) {
  StageProgress p(2, 1);
  EXPECT_EQ(p.line("encoding", 0, 6, 0), "encoding     0 of 2 layers done in round 1 of 2  0 s\n");
  p.line("encoding", 1, 6, 10);
  EXPECT_EQ(p.line("encoding", 2, 6, 110),
            "encoding     2 of 2 layers done in round 1 of 2  110 s  about 1:50 to the end\n");
  EXPECT_EQ(p.line("encoding", 3, 6, 115),
            "encoding     0 of 2 layers done in round 2 of 2  115 s  about 1:55 to the end\n");
  p.line("encoding", 4, 6, 125);
  p.line("encoding", 5, 6, 225);
  EXPECT_EQ(p.line("encoding", 6, 6, 230),
            "encoding     2 of 2 layers done in round 2 of 2, and what is in no layer  230 s\n");
}

TEST(StageProgress, AResumedRunCountsWhatItDidItself) {
  StageProgress p(12, 2);
  EXPECT_EQ(p.line("kept layers", 6, 13, 2), "kept layers  6 of 12 layers done  2 s\n");
  EXPECT_EQ(p.line("encoding", 7, 13, 3), "encoding     7 of 12 layers done  3 s\n");
  EXPECT_EQ(p.line("encoding", 8, 13, 63),
            "encoding     8 of 12 layers done  63 s  about 4:00 to the end\n");
}

}  // namespace
}  // namespace assay::cli
