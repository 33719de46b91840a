// How attention on a GPU cuts a row's keys (mla_attention_cuda.h), which decides its bits: by their
// number and the heads alone.
#include <gtest/gtest.h>

#include "kernels/mla_attention_cuda.h"

namespace assay::kernels {
namespace {

constexpr int kHeads[] = {1, 6, 31, 32, 64, 72, 128};

TEST(MlaSplits, CoverTheKeysInAtMostAsManyAsAGpuTakesAtOnce) {
  for (const int heads : kHeads)
    for (int n = 1; n < 70000; n = n < 300 ? n + 1 : n + 61) {
      const int keys = mla_split_keys(heads, n), splits = (n + keys - 1) / keys;
      ASSERT_EQ(keys % kMlaSplitStep, 0) << heads << " heads, " << n << " keys";
      ASSERT_LE(splits, mla_most_splits(heads)) << heads << " heads, " << n << " keys";
      // No longer than it has to be.
      const int shorter = keys - kMlaSplitStep;
      ASSERT_GT(n, shorter * mla_most_splits(heads)) << heads << " heads, " << n << " keys";
    }
}

// Rows of a run have one length of split, for runs end at multiples of the limit.
TEST(MlaSplits, LengthsChangeAtMultiplesOfTheRunLimitAlone) {
  for (const int heads : kHeads)
    for (int n = 1; n < 70000; ++n)
      ASSERT_EQ(mla_split_keys(heads, n) != mla_split_keys(heads, n + 1),
                n % mla_run_limit(heads) == 0)
          << heads << " heads, " << n << " keys";
}

// 32 (row, head) pairs to a block, or one row.
TEST(MlaSplits, RowsOfARunFillABlock) {
  for (const int heads : kHeads) {
    const int rows = mla_rows_of_run(heads);
    ASSERT_TRUE(rows == 1 || (rows > 1 && rows * heads <= 32)) << heads;
    ASSERT_GT((rows + 1) * heads, 32) << heads;
  }
}

}  // namespace
}  // namespace assay::kernels
