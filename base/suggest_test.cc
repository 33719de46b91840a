#include "base/suggest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace assay {
namespace {

TEST(Suggest, EditDistanceCountsInsertionsDeletionsAndSubstitutions) {
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("same", "same"), 0);
}

TEST(Suggest, ATypoFindsItsName) {
  const std::vector<std::string> names = {"arithmetic", "needles", "all"};
  EXPECT_EQ(nearest("arithmetc", names), "arithmetic");
  EXPECT_EQ(suggestion("needle", names), " Did you mean 'needles'?");
}

TEST(Suggest, AnUnrelatedNameListsWhatIsKnown) {
  const std::vector<std::string> names = {"ja", "en"};
  EXPECT_EQ(nearest("fr", names), "");
  EXPECT_EQ(suggestion("fr", names), " Known: ja, en.");
  const std::vector<std::string> many(1105, "case");
  EXPECT_THAT(suggestion("no such thing", many), ::testing::EndsWith("case and 1093 more."));
}

}  // namespace
}  // namespace assay
