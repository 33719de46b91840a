// What is planned and not taken is no other model's.
#include "engine/backend/memory_promise.h"

#include <gmock/gmock.h>

#include <memory>

namespace assay::engine {
namespace {

constexpr std::size_t kGiB = std::size_t{1} << 30;
constexpr int kDevice = 0, kOther = 1;

MemoryPromise::Planner planner(int n_executors, std::size_t* promised = nullptr) {
  return [=](std::size_t of_others) -> Result<MemoryPlan> {
    if (promised != nullptr) *promised = of_others;
    return MemoryPlan{.scratch_bytes = kGiB, .cache_bytes = kGiB, .n_executors = n_executors};
  };
}

TEST(MemoryPromise, IsWhatItsExecutorsHaveNotTakenYet) {
  MemoryPromise promise(kDevice);
  EXPECT_EQ(MemoryPromise::bytes_on(kDevice), 0u);
  const auto plan = promise.plan(planner(3));
  ASSERT_TRUE(plan);
  const std::size_t each = plan->executor_bytes();
  EXPECT_GT(each, 2 * kGiB) << "graphs take memory too";
  EXPECT_EQ(MemoryPromise::bytes_on(kDevice), 3 * each);
  {
    const MemoryPromise::Kept first(promise), second(promise);
    EXPECT_EQ(MemoryPromise::bytes_on(kDevice), each);
    const MemoryPromise::Kept third(promise), unplanned(promise);
    EXPECT_EQ(MemoryPromise::bytes_on(kDevice), 0u);
  }
  EXPECT_EQ(MemoryPromise::bytes_on(kDevice), 3 * each) << "workers come again";
}

TEST(MemoryPromise, IsToldToTheNextModelOfTheDeviceUntilItIsGone) {
  std::size_t promised = 1;
  auto base = std::make_unique<MemoryPromise>(kDevice);
  ASSERT_TRUE(base->plan(planner(2, &promised)));
  EXPECT_EQ(promised, 0u);
  MemoryPromise candidate(kDevice), elsewhere(kOther);
  ASSERT_TRUE(candidate.plan(planner(5, &promised)));
  EXPECT_EQ(promised, 2 * (MemoryPromise::bytes_on(kDevice) / 7));
  ASSERT_TRUE(elsewhere.plan(planner(1, &promised)));
  EXPECT_EQ(promised, 0u);
  base.reset();
  ASSERT_TRUE(candidate.plan(planner(5, &promised)));
  EXPECT_EQ(promised, 0u) << "its own of before is no other's";
}

TEST(MemoryPromise, AFailedPlanPromisesNothing) {
  MemoryPromise promise(kDevice);
  EXPECT_FALSE(
      promise.plan([](std::size_t) -> Result<MemoryPlan> { return fail("does not fit"); }));
  EXPECT_EQ(MemoryPromise::bytes_on(kDevice), 0u);
}

// As a base and a candidate are planned, of which executors come later.
TEST(MemoryPromise, TwoModelsNeverPlanMoreThanThereIs) {
  constexpr std::size_t kFree = 20 * kGiB;
  const auto plan_of = [](MemoryPromise& promise, std::size_t taken) {
    return promise.plan([&](std::size_t promised) {
      return fit({.limits = {.n_positions = 1024}, .scratch_bytes = kGiB / 8, .n_executors = 9}, 64,
                 65536, 256, {"GPU X", kFree - taken, kFree, promised});
    });
  };
  MemoryPromise base(kDevice), candidate(kDevice);
  const auto first = plan_of(base, 0);
  ASSERT_TRUE(first);
  const MemoryPromise::Kept own(base);  // one engine is there, eight are to come
  const auto second = plan_of(candidate, first->executor_bytes());
  ASSERT_TRUE(second);
  EXPECT_LT(second->cache_bytes, first->cache_bytes);
  EXPECT_LE(9 * (first->executor_bytes() + second->executor_bytes()), kFree);
}

}  // namespace
}  // namespace assay::engine
