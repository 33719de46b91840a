#include "harness/cli/stage_progress.h"

#include <gtest/gtest.h>

namespace assay::cli {
namespace {

TEST(StageProgress, EveryStageHasAnEtaOfItsOwn) {
  StageProgress p;
  EXPECT_EQ(p.line("statistics", 0, 10, 5), "statistics   0/10 done  5 s\n");
  EXPECT_EQ(p.line("statistics", 1, 10, 6), "") << "a line every other second";
  EXPECT_EQ(p.line("statistics", 4, 10, 25),
            "statistics   4/10 done  25 s  eta of this stage 0:30\n");
  EXPECT_EQ(p.line("statistics", 10, 10, 26), "statistics   10/10 done  26 s\n");
}

// Two dense layers of 10 s, then sparse ones of 1,000 s: the mean would promise a sixth too little.
TEST(StageProgress, OnceALayerIsEncodedItSaysAboutWhenAllIsDone) {
  StageProgress p;
  EXPECT_EQ(p.line("encoding", 0, 13, 100), "encoding     0/13 done  100 s\n");
  EXPECT_EQ(p.line("encoding", 1, 13, 110),
            "encoding     1/13 done  110 s  about 2:00 to the end\n");
  EXPECT_EQ(p.line("encoding", 2, 13, 120),
            "encoding     2/13 done  120 s  about 1:50 to the end\n");
  EXPECT_EQ(p.line("encoding", 3, 13, 1120),
            "encoding     3/13 done  1120 s  about 2:46:40 to the end\n");
  EXPECT_EQ(p.line("encoding", 13, 13, 11120), "encoding     13/13 done  11120 s\n");
}

TEST(StageProgress, AResumedRunCountsWhatItDidItself) {
  StageProgress p;
  EXPECT_EQ(p.line("kept layers", 6, 13, 2), "kept layers  6/13 done  2 s\n");
  EXPECT_EQ(p.line("encoding", 7, 13, 3), "encoding     7/13 done  3 s\n");
  EXPECT_EQ(p.line("encoding", 8, 13, 63), "encoding     8/13 done  63 s  about 5:00 to the end\n");
}

}  // namespace
}  // namespace assay::cli
