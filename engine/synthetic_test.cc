// Random weights in a model's shape: a checkpoint that loads and computes, the same for the same
// seed, stored as its config says, and never taken for a model.
#include "engine/synthetic.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <map>
#include <utility>

#include "base/check.h"
#include "base/file.h"
#include "engine/checkpoint/inspect.h"
#include "engine/engine.h"
#include "engine/oracle_parity.h"
#include "engine/synthetic_tensors.h"

namespace assay::engine {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Synthetic : public testing::Test {
 protected:
  Synthetic() {
    std::string pattern = (fs::temp_directory_path() / "assay-synthetic-XXXXXX").string();
    CHECK(mkdtemp(pattern.data()) != nullptr);
    dir_ = pattern;
  }
  ~Synthetic() override { fs::remove_all(dir_); }

  static fs::path bundled(const char* build) { return micro_glm_dir(build); }
  Result<SyntheticSummary> make(const char* name, const fs::path& config,
                                const SyntheticOptions& options) const {
    return synthesize(config, bundled("model"), dir_ / name, options);
  }
  // A config.json of micro-glm, changed.
  fs::path changed(const std::function<void(Json&)>& change) const {
    Json config = *read_json(bundled("model") / "config.json");
    change(config);
    fs::path path = dir_ / "config.json";
    CHECK(write_file_atomic(path, config.dump()).has_value());
    return path;
  }
  std::ptrdiff_t n_entries() const {
    return std::distance(fs::directory_iterator(dir_), fs::directory_iterator());
  }
  std::string fingerprint(const char* name) const {
    const auto checkpoint = Checkpoint::open(dir_ / name);
    CHECK(checkpoint.has_value()) << checkpoint.error().message;
    return *checkpoint->fingerprint();
  }
  // Of a model that loads: logits after some tokens, on the CPU.
  void expect_finite_logits(const char* name) const {
    auto engine = Engine::load(dir_ / name, {.n_threads = 2});
    ASSERT_TRUE(engine) << engine.error().message;
    EXPECT_THAT(engine->info().synthetic, HasSubstr("random weights"));
    EXPECT_EQ(engine->info().to_json()["synthetic"], engine->info().synthetic);
    Sequence s = engine->new_sequence();
    s.feed(std::vector<int>{5, 17, 200, 3, 1000, 2});
    Sequence* batch[] = {&s};
    engine->step(batch);
    ASSERT_EQ(s.n_logit_rows(), 1);
    double square = 0;
    for (const float v : s.logits()) {
      ASSERT_TRUE(std::isfinite(v));
      square += static_cast<double>(v) * static_cast<double>(v);
    }
    const double spread = std::sqrt(square / engine->info().vocab);
    EXPECT_GT(spread, 0.1);
    EXPECT_LT(spread, 10);
  }

  fs::path dir_;
};

TEST_F(Synthetic, LoadsAndComputesInTheReleasesForms) {
  const auto made = make("out", bundled("model"), {.n_layers = 5, .seed = 1});
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ(made->n_layers, 5);
  EXPECT_EQ(made->of_layers, 7);
  expect_finite_logits("out");
  const auto checkpoint = Checkpoint::open(dir_ / "out");
  EXPECT_EQ(checkpoint->config().synthetic,
            "random weights in the shape of the first 5 of 7 layers");
  EXPECT_EQ(checkpoint->config().n_full_indexers(), 3);
  const auto summary = inspect(*checkpoint);
  ASSERT_TRUE(summary) << summary.error().message;
  EXPECT_EQ(summary->synthetic, checkpoint->config().synthetic);
  EXPECT_NEAR(summary->routed_code_bits, 1.71, 0.01);
  std::map<std::string, int> spine, routed;
  for (const TierSummary& t : summary->tiers)
    (t.routed ? routed : spine)[t.routed ? t.format : t.projection + " " + t.format] += t.n_modules;
  EXPECT_EQ(routed["vq 1 bit (d 8, K 256)"] + routed["vq 2 bits (d 4, K 256)"] +
                routed["vq 3 bits (d 4, K 4096)"],
            4 * 16 * 3);
  EXPECT_EQ(spine["q_b_proj gptq 8 bit"], 5);
  EXPECT_EQ(spine["o_proj gptq 4 bit"], 5);
}

TEST_F(Synthetic, TheSameSeedMakesTheSameBytesWhateverTheThreads) {
  for (const auto& [name, seed, threads] : {std::tuple{"a", 1, 1}, {"b", 1, 3}, {"c", 2, 3}})
    ASSERT_TRUE(
        make(name, bundled("model"),
             {.n_layers = 2, .seed = static_cast<std::uint64_t>(seed), .n_threads = threads}));
  EXPECT_EQ(fingerprint("a"), fingerprint("b"));
  EXPECT_EQ(*read_file(dir_ / "a/config.json"), *read_file(dir_ / "b/config.json"));
  EXPECT_NE(fingerprint("a"), fingerprint("c"));
}

// Its 1.5-bit rows end within a word, whose padding a reader wants zero.
TEST_F(Synthetic, ABuildsConfigSaysHowModulesAreStored) {
  ASSERT_TRUE(make("out", bundled("vq-1.71") / "config.json", {.n_layers = 3}));
  expect_finite_logits("out");
  const auto build = Checkpoint::open(bundled("vq-1.71")), like = Checkpoint::open(dir_ / "out");
  int n_routed = 0;
  for (const auto& [module, form] : like->config().quantisation.modules()) {
    const ModuleFormat& there = build->config().quantisation.of(module);
    EXPECT_EQ(form.kind, there.kind) << module;
    EXPECT_EQ(form.bits, there.bits) << module;
    EXPECT_EQ(form.group, there.group) << module;
    n_routed += form.kind == ModuleFormat::Kind::kVq;
    EXPECT_EQ(module.find("model.layers.3."), std::string::npos) << module;
  }
  EXPECT_EQ(n_routed, 2 * 16 * 3);
  for (const auto& [name, tensor] : like->tensors()) {
    ASSERT_NE(build->find(name), nullptr) << name;
    EXPECT_EQ(build->find(name)->shape, tensor->shape) << name;
  }
}

TEST_F(Synthetic, LoadsInFp8AndWithoutASparseLayer) {
  const auto fp8 = changed([](Json& c) {
    c["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {32, 32}}};
  });
  ASSERT_TRUE(make("fp8", fp8, {.n_layers = 2}));
  expect_finite_logits("fp8");
  ASSERT_TRUE(make("dense", bundled("model"), {.n_layers = 1}));
  expect_finite_logits("dense");
}

TEST_F(Synthetic, WidthsThatAFormDoesNotDivideStayInBf16) {
  const auto odd = changed([](Json& c) {
    c["moe_intermediate_size"] = 94;
    c["n_routed_experts"] = 5;
  });
  const auto made = make("out", odd, {.n_layers = 2});
  ASSERT_TRUE(made);
  EXPECT_GT(made->n_left_dense, 0) << "and it is said";
  expect_finite_logits("out");
  EXPECT_EQ(make("plain", bundled("model"), {.n_layers = 2})->n_left_dense, 0);
}

TEST_F(Synthetic, RefusesAndLeavesNothing) {
  const auto expect = [&](const Result<SyntheticSummary>& result, const auto& matcher) {
    ASSERT_FALSE(result);
    EXPECT_THAT(result.error().message, matcher);
    EXPECT_FALSE(fs::exists(dir_ / "out"));
  };
  expect(make("out", bundled("model"), {.n_layers = 8}),
         AllOf(HasSubstr("8 layers"), HasSubstr("1 to 7")));
  expect(make("out", dir_ / "nowhere.json", {}), HasSubstr("nowhere.json"));
  expect(make("out", changed([](Json& c) { c["vocab_size"] = 300, c["eos_token_id"] = 3; }), {}),
         AllOf(HasSubstr("tokenizer.json"), HasSubstr("vocab_size is 300")));
  expect(make("out", changed([](Json& c) {
                c["quantization_config"] = {{"quant_method", "aqlm"},
                                            {"in_group_size", 8},
                                            {"num_codebooks", 2},
                                            {"nbits_per_codebook", 8}};
              }),
              {}),
         HasSubstr("stored as aqlm"));
  expect(make("out", changed([](Json& c) {
                c["quantization_config"] = {{"quant_method", "gptq"}, {"bits", 4}};
              }),
              {}),
         AllOf(HasSubstr("weights_proj"), HasSubstr("do not divide")));
}

TEST_F(Synthetic, NothingIsOverwritten) {
  fs::create_directory(dir_ / "out");  // an empty folder is as good as none
  ASSERT_TRUE(make("out", bundled("model"), {.n_layers = 1}));
  const std::string before = fingerprint("out");
  const auto again = make("out", bundled("model"), {.n_layers = 1, .seed = 9});
  ASSERT_FALSE(again);
  EXPECT_THAT(again.error().message,
              AllOf(HasSubstr("there already"), HasSubstr("Choose another")));
  EXPECT_EQ(fingerprint("out"), before);
  const auto of_itself = make("next", dir_ / "out" / "config.json", {});
  ASSERT_FALSE(of_itself);
  EXPECT_THAT(of_itself.error().message, HasSubstr("synthetic model itself"));
}

// What is in the folder beside what is there already.
TEST_F(Synthetic, WhatOthersPutThereMeanwhileStays) {
  fs::create_directory(dir_ / "out");
  const auto made = make("out", bundled("model"),
                         {.n_layers = 1, .on_file = [&](int, int, auto) {
                            CHECK(write_file_atomic(dir_ / "out" / "notes", "mine").has_value());
                          }});
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().message, HasSubstr("came to be there meanwhile"));
  EXPECT_EQ(*read_file(dir_ / "out" / "notes"), "mine");
  EXPECT_EQ(n_entries(), 1) << "nothing half made is left";
}

TEST_F(Synthetic, OfTwoAtOnceOneIsWholeAndTheOtherSaysSo) {
  bool is_first = true;
  const auto first =
      make("out", bundled("model"), {.n_layers = 1, .on_file = [&](int, int, auto) {
                                       if (!std::exchange(is_first, false)) return;
                                       EXPECT_TRUE(make("out", bundled("model"), {.n_layers = 2}));
                                     }});
  ASSERT_FALSE(first);
  EXPECT_EQ(Checkpoint::open(dir_ / "out")->config().n_layers, 2);
  EXPECT_EQ(n_entries(), 1);
}

TEST_F(Synthetic, AFolderMayBeNamedWithASlashBehindIt) {
  const auto made = make("out/", bundled("model"), {.n_layers = 1});
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_TRUE(fs::exists(dir_ / "out" / "config.json"));
}

TEST_F(Synthetic, WhatAKilledProcessLeftIsClearedAndNothingElse) {
  std::vector<std::string> notes;
  const auto made = [&] {
    return make("out", bundled("model"), {.n_layers = 1, .on_note = [&](const std::string& note) {
                                            notes.push_back(note);
                                          }});
  };
  // Left by a child that is killed in the middle of it, so with nobody's lock.
  const pid_t child = ::fork();
  if (child == 0) {
    (void)make("out", bundled("model"),
               {.n_layers = 1, .n_threads = 1, .on_file = [](int, int, auto) {
                  ::kill(::getpid(), SIGKILL);
                }});
    _exit(1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  const fs::path left = dir_ / fmt::format(".out.unfinished-{}-0", child);
  ASSERT_TRUE(fs::exists(left));
  const std::vector<std::string> others = {".out.unfinished-notes", ".out.unfinished-1",
                                           ".outer.unfinished-1-0", "out.unfinished-1-0"};
  for (const std::string& name : others) fs::create_directory(dir_ / name);
  ASSERT_TRUE(write_file_atomic(dir_ / ".out.unfinished-2-0", "a file"));
  fs::create_directory_symlink(others[0], dir_ / ".out.unfinished-3-0");
  fs::create_directory(dir_ / ".out.unfinished-4-0");
  const int living = ::open((dir_ / ".out.unfinished-4-0").c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(::flock(living, LOCK_EX), 0);

  ASSERT_TRUE(made());
  EXPECT_THAT(notes, testing::ElementsAre(
                         AllOf(HasSubstr(left.string()), HasSubstr("by a process that is gone"))));
  EXPECT_FALSE(fs::exists(left));
  EXPECT_EQ(n_entries(), 8) << "what was made, four others, a file, a link, a living process's";
  ::close(living);
}

TEST_F(Synthetic, OneThatIsStoppedLeavesNothing) {
  const auto stopped = make("out", bundled("model"), {.n_layers = 1, .stop = [] { return true; }});
  ASSERT_FALSE(stopped);
  EXPECT_EQ(n_entries(), 0);
}

TEST_F(Synthetic, IsMadeInNoOtherModelsFolder) {
  ASSERT_TRUE(make("out", bundled("model"), {.n_layers = 1}));
  const auto inside = make("out/more/shape", bundled("model"), {.n_layers = 1});
  ASSERT_FALSE(inside);
  EXPECT_THAT(inside.error().message, HasSubstr("lies inside"));
  EXPECT_FALSE(fs::exists(dir_ / "out" / "more"));
  fs::create_directory_symlink(dir_ / "nowhere", dir_ / "link");
  const auto nowhere = make("link", bundled("model"), {.n_layers = 1});
  ASSERT_FALSE(nowhere);
  EXPECT_THAT(nowhere.error().message, HasSubstr("a link to nothing"));
}

TEST_F(Synthetic, TheBundledShapeIsGlm52) {
  const auto config = load_config(bundled("model") / "../../../docs/shapes/glm-5.2");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->n_layers, 78);
  EXPECT_EQ(config->n_full_indexers(), 21);
  const auto model = synthetic_model(*config);
  ASSERT_TRUE(model) << model.error().message;
  double n_parameters = 0;
  for (const SyntheticTensor& t : model->tensors)
    n_parameters += static_cast<double>(t.n_bytes()) / static_cast<double>(bytes_of(t.dtype));
  EXPECT_NEAR(n_parameters, 743.4e9, 0.1e9) << "as its maker counts, without the layer that "
                                               "predicts several tokens";
}

}  // namespace
}  // namespace assay::engine
