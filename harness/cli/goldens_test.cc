// Every committed golden is read by something, and the bundled models are held to theirs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "harness/engine_target.h"
#include "harness/find_suites.h"
#include "harness/golden_check.h"

namespace assay::harness {
namespace {

const fs::path kRoot = fs::path(ASSAY_SOURCE_DIR) / "golden";

// golden/<model>/<build> with a config.json.
std::vector<fs::path> bundled_models() {
  std::vector<fs::path> out;
  for (const auto& model : fs::directory_iterator(kRoot))
    for (const auto& build : fs::directory_iterator(model.path()))
      if (fs::exists(build.path() / "config.json")) out.push_back(build.path());
  return out;
}

std::set<fs::path> committed_goldens() {
  std::set<fs::path> out;
  for (const auto& model : fs::directory_iterator(kRoot))
    if (fs::is_directory(model.path() / "runs"))
      for (const auto& run : fs::directory_iterator(model.path() / "runs")) out.insert(run.path());
  return out;
}

TEST(Goldens, BundledModelsAreHeldToThemAndNoneIsLeftUnread) {
  std::set<fs::path> unread = committed_goldens();
  const std::string all[] = {"all"};
  for (const fs::path& model : bundled_models()) {
    SCOPED_TRACE(model.string());
    auto engine = engine::Engine::load(model, {.n_threads = 1});
    ASSERT_TRUE(engine) << engine.error().message;
    EngineTarget target(*std::move(engine), 0);
    const auto folders = find_goldens(kRoot, target.identity());
    ASSERT_TRUE(folders) << folders.error().message;
    EXPECT_FALSE(folders->empty()) << "no golden says what this model computes";
    for (const fs::path& folder : *folders) {
      SCOPED_TRACE(folder.string());
      unread.erase(folder);
      const auto golden = read_golden(folder);
      ASSERT_TRUE(golden) << golden.error().message;
      PlanOptions options;
      options.profile = *parse_profile(golden->profile);
      auto found = find_suites(all, fs::path(ASSAY_SOURCE_DIR) / "suites");
      ASSERT_TRUE(found) << found.error().message;
      std::set<std::string> named;
      for (const Json& suite : golden->suites) named.insert(suite.at("name"));
      std::erase_if(found->suites,
                    [&](const Suite& suite) { return named.erase(suite.name) == 0; });
      EXPECT_THAT(named, testing::IsEmpty()) << "suites that are there no more";
      const auto plan = make_plan(std::move(found->suites), options);
      ASSERT_TRUE(plan) << plan.error().message;
      const GoldenCheck check = check_golden(*golden, folder.string(), *plan, target);
      EXPECT_EQ(check.reason, "");
      EXPECT_EQ(check.n_left_out, 0) << "replies that no suite asks for any more: accept again";
      EXPECT_EQ(check.n_replies, static_cast<int>(golden->replies.size()));
      EXPECT_FALSE(check.diverged()) << to_json(check).dump(1).substr(0, 4000);
      EXPECT_EQ(check.n_ties, 0) << "the engine's bits are the same everywhere";
    }
  }
  EXPECT_THAT(unread, testing::IsEmpty()) << "goldens of no bundled model: remove them";
}

TEST(Goldens, FoldersHoldNothingElse) {
  for (const fs::path& folder : committed_goldens()) {
    std::set<std::string> names;
    for (const auto& file : fs::directory_iterator(folder)) names.insert(file.path().filename());
    EXPECT_EQ(names, (std::set<std::string>{"golden.json", "replies.jsonl.gz"})) << folder;
  }
}

}  // namespace
}  // namespace assay::harness
