// Mixtures of two builds of micro-glm: the bits of either at the ends, and what lies between.
#include "engine/mixture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/file.h"
#include "engine/checkpoint/tiny_checkpoint.h"
#include "engine/plant.h"

namespace assay::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::string kGolden = std::string(ASSAY_SOURCE_DIR) + "/golden/micro-glm/";
const std::string kDense = kGolden + "model", kVq = kGolden + "vq-1.71";
constexpr const char* kText =
    "12 + 30 = 42. 東京は日本の首都です。 The capital of France is Paris.";

using Path = std::vector<std::string>;

// Logits of every token, `chunk` tokens a step; 1 is the way that decoding goes.
std::vector<float> logits_of(Engine engine, int chunk = 512) {
  Sequence s = engine.new_sequence();
  s.keep_all_logits(true);
  const std::vector<int> ids = *engine.tokenizer().encode(kText);
  std::vector<float> all;
  for (std::size_t at = 0; at < ids.size(); at += static_cast<std::size_t>(chunk)) {
    s.feed(std::span(ids).subspan(at, std::min(ids.size() - at, static_cast<std::size_t>(chunk))));
    Sequence* batch[] = {&s};
    engine.step(batch);
    all.insert(all.end(), s.logits().begin(), s.logits().end());
  }
  return all;
}
std::vector<float> logits_of(const std::string& dir, const EngineOptions& options) {
  auto engine = Engine::load(dir, options);
  CHECK(engine.has_value()) << engine.error().message;
  return logits_of(*std::move(engine));
}
double worst_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = a.size() == b.size() ? 0 : INFINITY;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    worst = std::max(worst, static_cast<double>(std::abs(a[i] - b[i])));
  return worst;
}

Mixture open(const std::string& base, const std::string& candidate,
             const EngineOptions& options = {.n_threads = 1}) {
  auto mixture = Mixture::open(base, candidate, options);
  CHECK(mixture.has_value()) << mixture.error().message;
  return *std::move(mixture);
}
Engine mixed(const Mixture& m, std::span<const int> chosen,
             Mixture::Direction direction = Mixture::Direction::kBaseIntoCandidate) {
  auto engine = m.mix(chosen, direction);
  CHECK(engine.has_value()) << engine.error().message;
  return *std::move(engine);
}
std::vector<int> all_of(const Mixture& m) {
  std::vector<int> all(m.differing().size());
  std::iota(all.begin(), all.end(), 0);
  return all;
}
// Sites whose path begins so.
std::vector<int> under(const Mixture& m, const Path& prefix) {
  std::vector<int> out;
  for (std::size_t i = 0; i < m.differing().size(); ++i) {
    const Path path = m.differing()[i].path();
    if (path.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), path.begin()))
      out.push_back(static_cast<int>(i));
  }
  return out;
}
std::vector<Path> paths_of(const Mixture& m) {
  std::vector<Path> out;
  for (const WeightSite& site : m.differing()) out.push_back(site.path());
  return out;
}

// A damaged copy, removed at the end.
struct Planted {
  Planted(const std::string& model, std::string_view written) {
    const auto fault = parse_fault(written);
    CHECK(fault.has_value()) << fault.error().message;
    const Result<void> done = plant(model, *fault, parent.dir / "copy");
    CHECK(done.has_value()) << done.error().message;
  }
  std::string dir() const { return (parent.dir / "copy").string(); }
  TinyCheckpoint parent;
};

TEST(Mixture, AllSitesAreTheBaseAndNoneTheCandidateToTheBit) {
  const EngineOptions options{.n_threads = 2};
  const Mixture m = open(kDense, kVq, options);
  const auto base = logits_of(kDense, options), candidate = logits_of(kVq, options);
  ASSERT_NE(base, candidate);
  EXPECT_EQ(logits_of(*m.base().share(1)), base);
  EXPECT_EQ(logits_of(*m.candidate().share(1)), candidate);
  EXPECT_EQ(logits_of(mixed(m, {})), candidate);
  EXPECT_EQ(logits_of(mixed(m, all_of(m))), base);
  const auto back = Mixture::Direction::kCandidateIntoBase;
  EXPECT_EQ(logits_of(mixed(m, {}, back)), base);
  EXPECT_EQ(logits_of(mixed(m, all_of(m), back)), candidate);
}

TEST(Mixture, TheReferenceBackendMixesToo) {
  const EngineOptions options{.backend = "reference", .n_threads = 2};
  const Mixture m = open(kDense, kVq, options);
  EXPECT_EQ(logits_of(mixed(m, all_of(m))), logits_of(*m.base().share(2)));
  EXPECT_EQ(logits_of(mixed(m, {})), logits_of(*m.candidate().share(2)));
}

TEST(Mixture, WhatIsTheSameInBothIsNoSite) {
  const Mixture m = open(kDense, kVq);
  EXPECT_THAT(under(m, {"embedding"}), IsEmpty()) << "kept in bf16";
  EXPECT_THAT(under(m, {"layer 3", "norms"}), IsEmpty());
  EXPECT_EQ(under(m, {"lm_head"}).size(), 1u);
  EXPECT_EQ(under(m, {"layer 3", "experts"}).size(), 48u);
  EXPECT_EQ(under(m, {"layer 3", "experts", "expert 5"}).size(), 3u);
  EXPECT_THAT(paths_of(open(kVq, kVq)), IsEmpty());
}

TEST(Mixture, OneExpertChangesOnlyThat) {
  const Planted both(kDense, "expert-scale:experts=3/5+4/1,factor=3"),
      one(kDense, "expert-scale:experts=4/1,factor=3");
  const Mixture m = open(kDense, both.dir());
  EXPECT_THAT(paths_of(m), ElementsAre(Path{"layer 3", "experts", "expert 5", "gate_proj"},
                                       Path{"layer 3", "experts", "expert 5", "up_proj"},
                                       Path{"layer 3", "experts", "expert 5", "down_proj"},
                                       Path{"layer 4", "experts", "expert 1", "gate_proj"},
                                       Path{"layer 4", "experts", "expert 1", "up_proj"},
                                       Path{"layer 4", "experts", "expert 1", "down_proj"}));
  const EngineOptions options{.n_threads = 1};
  EXPECT_EQ(logits_of(mixed(m, under(m, {"layer 3"}))), logits_of(one.dir(), options));
  EXPECT_EQ(logits_of(mixed(m, under(m, {"layer 4"}), Mixture::Direction::kCandidateIntoBase)),
            logits_of(one.dir(), options));
  EXPECT_NE(logits_of(mixed(m, under(m, {"layer 3"}))), logits_of(both.dir(), options));
}

TEST(Mixture, AnExpertMayHaveItsProjectionsInTwoForms) {
  // Gate in bf16, up and down as codes; and the experts beside it as codes. Backends agree as far
  // as they do on each build (parity_vq_test's bound), and cpu's decoding has the bits of its
  // prefill.
  const Mixture cpu = open(kDense, kVq), reference = open(kDense, kVq, {.backend = "reference"});
  std::vector<int> chosen = under(cpu, {"layer 3", "experts", "expert 5", "gate_proj"});
  for (const Path& path : {Path{"layer 2", "experts", "expert 7"}, Path{"layer 4", "attention"},
                           Path{"layer 5", "shared expert", "down_proj"}})
    for (const int site : under(cpu, path)) chosen.push_back(site);
  for (int e = 0; e < 16; e += 2)
    for (const int site : under(cpu, {"layer 6", "experts", fmt::format("expert {}", e)}))
      chosen.push_back(site);
  const auto logits = logits_of(mixed(cpu, chosen));
  EXPECT_LT(worst_difference(logits, logits_of(mixed(reference, chosen))), 2e-3);
  EXPECT_EQ(logits_of(mixed(cpu, chosen), 1), logits);
  EXPECT_NE(logits, logits_of(mixed(cpu, {})));
}

TEST(Mixture, SettingsAreASiteOfTheirOwn) {
  const Planted copy(kVq, "rope-half-split");
  const Mixture m = open(kVq, copy.dir());
  EXPECT_THAT(paths_of(m), ElementsAre(Path{"config.json"}));
  const EngineOptions options{.n_threads = 1};
  EXPECT_EQ(logits_of(mixed(m, all_of(m))), logits_of(kVq, options));
  EXPECT_NE(logits_of(mixed(m, {})), logits_of(kVq, options));
}

TEST(Mixture, ABadFolderIsNamed) {
  const auto m = Mixture::open(kDense, kGolden + "nothing");
  ASSERT_FALSE(m.has_value());
  EXPECT_THAT(m.error().message, HasSubstr("nothing is not a folder"));
}

}  // namespace
}  // namespace assay::engine
