#include "engine/backend/logit_places.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace assay::engine {
namespace {

using testing::ElementsAre;
using testing::FieldsAre;
using testing::IsEmpty;

using Missing = std::vector<LogitPlaces::Missing>;

TEST(LogitPlaces, RowsThatFollowEachOtherAreOneProduct) {
  LogitPlaces places(8);
  Missing missing;
  EXPECT_THAT(places.put(std::vector{2, 3, 4, 7}, missing), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(missing, ElementsAre(FieldsAre(2, 0, 3), FieldsAre(7, 3, 1)));
}

TEST(LogitPlaces, ARowThatIsThereIsNotMadeAgain) {
  LogitPlaces places(8);
  Missing made, none;
  places.put(std::vector{2, 3, 4}, made);
  EXPECT_THAT(places.put(std::vector{4}, none), ElementsAre(2));
  EXPECT_THAT(none, IsEmpty());
}

// Rows 1 and 5 stand at places 1 and 3; what comes before, between and after them goes around.
TEST(LogitPlaces, NewRowsGoAroundThoseThatStay) {
  LogitPlaces places(5);
  Missing made, missing;
  places.put(std::vector{0, 1, 4, 5}, made);
  EXPECT_THAT(places.put(std::vector{1, 2, 3, 5, 6}, missing), ElementsAre(1, 0, 2, 3, 4));
  EXPECT_THAT(missing, ElementsAre(FieldsAre(2, 0, 1), FieldsAre(3, 2, 1), FieldsAre(6, 4, 1)));
  missing.clear();
  EXPECT_THAT(places.put(std::vector{0}, missing), ElementsAre(0)) << "its place is another's now";
  EXPECT_THAT(missing, ElementsAre(FieldsAre(0, 0, 1)));
}

TEST(LogitPlaces, AnotherStepsRowsAreOthers) {
  LogitPlaces places(4);
  Missing made, missing;
  places.put(std::vector{0, 1}, made);
  places.clear();
  EXPECT_THAT(places.put(std::vector{1}, missing), ElementsAre(0));
  EXPECT_THAT(missing, ElementsAre(FieldsAre(1, 0, 1)));
}

TEST(LogitPlacesDeathTest, MoreRowsThanPlacesAreABug) {
  LogitPlaces places(2);
  Missing missing;
  EXPECT_DEATH(places.put(std::vector{0, 1, 2}, missing), "3 rows, 2 places");
}

}  // namespace
}  // namespace assay::engine
