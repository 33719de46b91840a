// Planted faults: what each changes in a copy, to the bit, and that nothing else does.
#include "engine/plant.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/check.h"
#include "engine/backend/matrix_view.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/tiny_checkpoint.h"
#include "engine/checkpoint/weights.h"
#include "engine/engine.h"

namespace assay::engine {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

const std::string kGolden = std::string(ASSAY_SOURCE_DIR) + "/golden/micro-glm/";
const std::string kDense = kGolden + "model", kVq = kGolden + "vq-1.71";

Fault fault(std::string_view written) {
  auto parsed = parse_fault(written);
  CHECK(parsed.has_value()) << parsed.error().message;
  return *std::move(parsed);
}

// A copy with one fault, removed at the end.
class Planted {
 public:
  Planted(const std::string& model, std::string_view written) {
    const Result<void> done = plant(model, fault(written), dir());
    CHECK(done.has_value()) << done.error().message;
    auto opened = Checkpoint::open(dir());
    CHECK(opened.has_value()) << opened.error().message;
    checkpoint_ = *std::move(opened);
  }
  fs::path dir() const { return parent_.dir / "copy"; }
  const Checkpoint& checkpoint() const { return *checkpoint_; }
  ModelWeights weights() const {
    auto bound = bind_weights(checkpoint(), false);
    CHECK(bound.has_value()) << bound.error().message;
    return *std::move(bound);
  }

 private:
  TinyCheckpoint parent_;
  std::optional<Checkpoint> checkpoint_;
};

struct Original {
  explicit Original(const std::string& dir)
      : checkpoint(*Checkpoint::open(dir)), weights(*bind_weights(checkpoint)) {}
  Checkpoint checkpoint;
  ModelWeights weights;
};

// Tensors that are not the same in both.
std::vector<std::string> changed(const Checkpoint& a, const Checkpoint& b) {
  std::set<std::string> names, out;
  for (const Checkpoint* c : {&a, &b})
    for (const auto& [name, tensor] : c->tensors()) names.insert(name);
  for (const std::string& name : names) {
    const TensorView *x = a.find(name), *y = b.find(name);
    if (x == nullptr || y == nullptr || x->dtype != y->dtype || x->shape != y->shape ||
        !std::equal(x->bytes.begin(), x->bytes.end(), y->bytes.begin(), y->bytes.end()))
      out.insert(name);
  }
  return {out.begin(), out.end()};
}

// Files of the copy that are not links to the original's.
std::vector<std::string> written(const fs::path& dir) {
  std::set<std::string> out;
  for (const auto& entry : fs::directory_iterator(dir))
    if (!entry.is_symlink()) out.insert(entry.path().filename());
  return {out.begin(), out.end()};
}

// Logits of a short text; the engine must load it.
std::vector<float> logits_of(const std::string& dir, bool check_finite = true) {
  auto engine = Engine::load(dir, {.n_threads = 1, .check_finite = check_finite});
  CHECK(engine.has_value()) << engine.error().message;
  Sequence s = engine->new_sequence();
  s.feed(*engine->tokenizer().encode("12 + 30 = 42. 東京は日本の首都です。"));
  Sequence* batch[] = {&s};
  while (s.n_pending() > 0) engine->step(batch);
  return {s.logits().begin(), s.logits().end()};
}

std::string error_of(const std::string& model, std::string_view written) {
  const TinyCheckpoint parent;
  const auto parsed = parse_fault(written);
  if (!parsed) return parsed.error().message;
  const Result<void> done = plant(model, *parsed, parent.dir / "copy");
  EXPECT_FALSE(fs::exists(parent.dir / "copy")) << written << " left a folder behind";
  return done ? "" : done.error().message;
}

TEST(Fault, NamesAreReadAsTheyAreWritten) {
  for (const char* name :
       {"expert-scale:experts=3/5+4/0,factor=1.05", "expert-swap:experts=3/5+3/9",
        "shared-drop:layer=3", "rope-half-split", "indexer-rope-half-split", "chat-template",
        "chat-tags:tags=<|user|>+<|assistant|>", "tier-dim:bits=1.5", "tier-dim:bits=1.5,layer=3",
        "codes-shift", "codes-shift:layer=0", "codes-flip:layer=3", "logit-nan:token=100"})
    EXPECT_EQ(name_of(fault(name)), name);
}

TEST(Fault, WhatIsNotUnderstoodIsNamed) {
  const auto error = [](std::string_view text) { return parse_fault(text).error().message; };
  EXPECT_THAT(error("expert-scael"), AllOf(HasSubstr("unknown fault 'expert-scael'"),
                                           HasSubstr("expert-scale:experts=3/5")));
  EXPECT_THAT(error("expert-scale:factor=2"), HasSubstr("experts is missing"));
  EXPECT_THAT(error("expert-scale:experts=3/5,factor=two"), HasSubstr("factor is 'two'"));
  EXPECT_THAT(error("expert-scale:experts=3/5,factor=-2"), HasSubstr("from 0 up"));
  EXPECT_THAT(error("expert-scale:experts=3.5,factor=2"), HasSubstr("LAYER/EXPERT"));
  EXPECT_THAT(error("expert-scale:experts=3/5,factor=2,factor=3"), HasSubstr("'factor=3'"));
  EXPECT_THAT(error("expert-swap:experts=3/5+4/5"), HasSubstr("two of one layer"));
  EXPECT_THAT(error("expert-swap:experts=3/5+3/5"), HasSubstr("two of one layer"));
  EXPECT_THAT(error("shared-drop:layer=3,expert=2"), HasSubstr("'expert=2' is not understood"));
  EXPECT_THAT(error("chat-tags:tags=<think>"), HasSubstr("two added tokens"));
}

TEST(Plant, AScaledExpertIsTwiceItselfAndNothingElseChanges) {
  const std::string prefix = "model.layers.3.mlp.experts.5.";
  const std::map<std::string, std::string> suffix_of = {{kDense, ".weight"}, {kVq, ".vq_scales"}};
  for (const auto& [model, suffix] : suffix_of) {
    const Original original(model);
    const Planted copy(model, "expert-scale:experts=3/5,factor=2");
    EXPECT_THAT(changed(original.checkpoint, copy.checkpoint()),
                ElementsAre(prefix + "down_proj" + suffix, prefix + "gate_proj" + suffix,
                            prefix + "up_proj" + suffix));
    const ModelWeights weights = copy.weights();
    for (const auto part : {&MlpWeights::gate, &MlpWeights::up, &MlpWeights::down}) {
      std::vector<float> twice = to_floats(original.weights.layers[3].experts[5].*part);
      for (float& x : twice) x *= 2;
      EXPECT_EQ(to_floats(weights.layers[3].experts[5].*part), twice);
    }
    EXPECT_NE(logits_of(copy.dir()), logits_of(model));
  }
}

TEST(Plant, OnlyTheShardsThatChangeAreWritten) {
  const Planted copy(kVq, "expert-scale:experts=3/5,factor=1.05");
  EXPECT_THAT(written(copy.dir()), ElementsAre("model-00004-of-00008.safetensors"));
  EXPECT_TRUE(fs::exists(copy.dir() / "tokenizer.json")) << "a link to a link";
  EXPECT_FALSE(fs::exists(copy.dir() / "quantisation.json")) << "its fingerprint would not hold";
  EXPECT_TRUE(fs::exists(Planted(kVq, "rope-half-split").dir() / "quantisation.json"));
}

TEST(Plant, SwappedExpertsHaveEachOthersWeightsThoughTheirTiersDiffer) {
  const Original original(kVq);
  const auto& experts = original.weights.layers[4].experts;
  // Two experts of layer 4 whose gate has different tiers: config.json has to change too.
  const auto dim = [&](int e) { return std::get<kernels::VqMatrix>(experts[e].gate.codes).dim; };
  int other = 1;
  while (other < 16 && dim(other) == dim(0)) ++other;
  ASSERT_LT(other, 16);
  const Planted copy(kVq, fmt::format("expert-swap:experts=4/0+4/{}", other));
  const ModelWeights weights = copy.weights();
  for (const auto part : {&MlpWeights::gate, &MlpWeights::up, &MlpWeights::down}) {
    EXPECT_EQ(to_floats(weights.layers[4].experts[0].*part), to_floats(experts[other].*part));
    EXPECT_EQ(to_floats(weights.layers[4].experts[other].*part), to_floats(experts[0].*part));
  }
  EXPECT_THAT(changed(original.checkpoint, copy.checkpoint()),
              Each(testing::AnyOf(
                  testing::StartsWith("model.layers.4.mlp.experts.0."),
                  testing::StartsWith(fmt::format("model.layers.4.mlp.experts.{}.", other)))));
  EXPECT_NE(logits_of(copy.dir()), logits_of(kVq));
}

TEST(Plant, ADroppedSharedExpertAddsNothing) {
  for (const std::string& model : {kDense, kVq}) {
    const Planted copy(model, "shared-drop:layer=2");
    EXPECT_THAT(to_floats(copy.weights().layers[2].mlp.down), Each(0.0F));
    EXPECT_THAT(changed(*Checkpoint::open(model), copy.checkpoint()), SizeIs(1));
    EXPECT_NE(logits_of(copy.dir()), logits_of(model));
  }
}

TEST(Plant, HalfSplitRopeIsInConfigAlone) {
  const Planted rope(kDense, "rope-half-split"), index(kDense, "indexer-rope-half-split");
  EXPECT_FALSE(rope.checkpoint().config().rope_interleave);
  EXPECT_TRUE(rope.checkpoint().config().indexer_rope_interleave);
  EXPECT_FALSE(index.checkpoint().config().indexer_rope_interleave);
  EXPECT_THAT(written(rope.dir()), ElementsAre("config.json"));
  EXPECT_THAT(changed(*Checkpoint::open(kDense), rope.checkpoint()), IsEmpty());
  EXPECT_NE(logits_of(rope.dir()), logits_of(kDense));
  EXPECT_EQ(logits_of(index.dir()), logits_of(kDense)) << "shorter than index_topk: not seen";
  EXPECT_THAT(error_of(rope.dir(), "rope-half-split"), HasSubstr("false already"));
}

TEST(Plant, AChangedChatTemplateIsRefusedByTheReader) {
  const Planted copy(kDense, "chat-template");
  const auto engine = Engine::load(copy.dir());
  ASSERT_FALSE(engine.has_value());
  EXPECT_THAT(engine.error().message, HasSubstr("unknown chat template"));
}

TEST(Plant, ExchangedTagsAreOtherIdsOfTheSameText) {
  const Planted copy(kVq, "chat-tags:tags=<|user|>+<|assistant|>");
  const auto was = *text::Tokenizer::load(kVq + "/tokenizer.json");
  const auto is = *text::Tokenizer::load(copy.dir() / "tokenizer.json");
  const std::string text = "[gMASK]<sop><|user|>2 + 2?<|assistant|><think>";
  std::vector<int> expected = *was.encode(text);
  const int user = *was.id_of("<|user|>"), assistant = *was.id_of("<|assistant|>");
  for (int& id : expected) id = id == user ? assistant : id == assistant ? user : id;
  EXPECT_EQ(*is.encode(text), expected);
  EXPECT_THAT(error_of(kVq, "chat-tags:tags=<|user|>+<|usr|>"),
              HasSubstr("no added token <|usr|>"));
}

TEST(Plant, ATierWithHalfItsDimensionIsReadFromTheSameTable) {
  const Original original(kVq);
  const Planted copy(kVq, "tier-dim:bits=1.5,layer=3");
  EXPECT_THAT(changed(original.checkpoint, copy.checkpoint()), ElementsAre("cb1.5.d4"));
  const ModelWeights weights = copy.weights();
  int n_halved = 0;
  for (int l = 1; l < 7; ++l)
    for (int e = 0; e < 16; ++e) {
      const Matrix &a = original.weights.layers[l].experts[e].up,
                   &b = weights.layers[l].experts[e].up;
      const auto& was = std::get<kernels::VqMatrix>(a.codes);
      const auto& is = std::get<kernels::VqMatrix>(b.codes);
      if (l != 3 || was.index_bits != 12 || was.dim != 8) {
        EXPECT_EQ(to_floats(a), to_floats(b));
        continue;
      }
      ++n_halved;
      ASSERT_EQ(is.dim, 4);
      ASSERT_EQ(is.index_bits, 6);
      for (int r = 0; r < b.n_rows; ++r)
        for (int c = 0; c < b.n_cols; ++c) {
          // Two of the new indices are one of the old, its low half first.
          const int index = kernels::vq_index(was, r, c / 8);
          const int half = c % 8 < 4 ? index & 63 : index >> 6;
          ASSERT_EQ(kernels::weight_at(is, r, c),
                    kernels::vq_scale(was, r, c / 128) * was.codebook[4 * half + c % 4]);
        }
    }
  EXPECT_EQ(n_halved, 15);
  EXPECT_NE(logits_of(copy.dir()), logits_of(kVq));
  EXPECT_THAT(error_of(kVq, "tier-dim:bits=2.5"), HasSubstr("no routed expert here has a tier"));
  EXPECT_THAT(error_of(kDense, "tier-dim:bits=1.5"), HasSubstr("stored as VQ codes"));
}

// Index of sub-vector j of a row whose stream begins one bit late.
int shifted(const kernels::VqMatrix& w, int row, int j) {
  const int next = j + 1 < w.n_subvectors() ? kernels::vq_index(w, row, j + 1) : 0;
  return kernels::vq_index(w, row, j) >> 1 | (next & 1) << (w.index_bits - 1);
}

TEST(Plant, CodesOffByABitAreThoseIndices) {
  const Original original(kVq);
  const Planted late(kVq, "codes-shift:layer=3"), flipped(kVq, "codes-flip");
  EXPECT_THAT(changed(original.checkpoint, late.checkpoint()),
              AllOf(SizeIs(48), Each(HasSubstr("layers.3.mlp.experts."))));
  EXPECT_THAT(changed(original.checkpoint, flipped.checkpoint()), SizeIs(6 * 48));
  const ModelWeights a = late.weights(), b = flipped.weights();  // bind checks the padding bits
  for (int e = 0; e < 16; ++e)
    for (const auto part : {&MlpWeights::gate, &MlpWeights::up, &MlpWeights::down}) {
      const auto codes = [&](const ModelWeights& w) {
        return std::get<kernels::VqMatrix>((w.layers[3].experts[e].*part).codes);
      };
      const kernels::VqMatrix was = codes(original.weights);
      for (int r = 0; r < was.n_rows; ++r)
        for (int j = 0; j < was.n_subvectors(); ++j) {
          ASSERT_EQ(kernels::vq_index(codes(a), r, j), shifted(was, r, j));
          ASSERT_EQ(kernels::vq_index(codes(b), r, j), kernels::vq_index(was, r, j) ^ 1);
        }
    }
  EXPECT_NE(logits_of(late.dir()), logits_of(kVq));
  EXPECT_NE(logits_of(flipped.dir()), logits_of(kVq));
}

TEST(Plant, ANanReachesOneLogit) {
  for (const std::string& model : {kDense, kVq}) {
    const Planted copy(model, "logit-nan:token=100");
    const auto refused = Engine::load(copy.dir());
    ASSERT_FALSE(refused.has_value());
    EXPECT_THAT(refused.error().message, AllOf(HasSubstr("lm_head."), HasSubstr("NaN")));
    std::vector<float> logits = logits_of(copy.dir(), false), expected = logits_of(model);
    EXPECT_TRUE(std::isnan(logits[100]));
    logits[100] = expected[100] = 0;
    EXPECT_EQ(logits, expected);
  }
}

TEST(Plant, SmallModelsToo) {
  const TinyCheckpoint tiny;
  tiny.write_sharded(tiny_tensors());
  const Planted copy(tiny.dir, "expert-scale:experts=1/2+2/0,factor=0.5");
  EXPECT_THAT(changed(*Checkpoint::open(tiny.dir), copy.checkpoint()), SizeIs(6));
}

TEST(Plant, WhatCannotBePlantedIsSaid) {
  EXPECT_THAT(error_of(kDense, "expert-scale:experts=0/5,factor=2"),
              HasSubstr("layer 0 has no experts, expected 1 to 6"));
  EXPECT_THAT(error_of(kDense, "expert-scale:experts=3/16,factor=2"),
              HasSubstr("layer 3 has no expert 16, expected 0 to 15"));
  EXPECT_THAT(error_of(kDense, "expert-swap:experts=3/5+3/16"), HasSubstr("no expert 16"));
  EXPECT_THAT(error_of(kDense, "expert-scale:experts=3/5,factor=1"), HasSubstr("changes nothing"));
  EXPECT_THAT(error_of(kVq, "expert-scale:experts=3/5,factor=1e8"), HasSubstr("beyond F16"));
  EXPECT_THAT(error_of(kDense, "shared-drop:layer=7"), HasSubstr("layer 7 has no experts"));
  EXPECT_THAT(error_of(kDense, "codes-shift"), HasSubstr("stored as VQ codes"));
  EXPECT_THAT(error_of(kDense, "logit-nan:token=3072"), HasSubstr("expected 0 to 3071"));
  const TinyCheckpoint tiny;
  tiny.write_single(stacked(tiny_tensors()));
  EXPECT_THAT(error_of(tiny.dir, "expert-scale:experts=1/0,factor=2"),
              HasSubstr("stacked in one tensor"));
  EXPECT_THAT(error_of("no-such-folder", "rope-half-split"), HasSubstr("is not a folder"));
  const Result<void> there = plant(kDense, fault("rope-half-split"), tiny.dir);
  ASSERT_FALSE(there.has_value());
  EXPECT_THAT(there.error().message, HasSubstr("is there already"));
}

}  // namespace
}  // namespace assay::engine
