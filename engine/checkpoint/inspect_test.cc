#include "engine/checkpoint/inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/checkpoint/tiny_quantised.h"

namespace assay::engine {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

CheckpointSummary summary_of(const fs::path& dir) {
  const auto checkpoint = Checkpoint::open(dir);
  EXPECT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  return *inspect(*checkpoint);
}

CheckpointSummary summary_of(const Json& config, const TinyTensors& tensors) {
  const TinyCheckpoint tiny;
  tiny.write("config.json", config.dump());
  tiny.write_single(tensors);
  return summary_of(tiny.dir);
}

RoleSummary role(const CheckpointSummary& summary, std::string_view name) {
  const auto found = std::find_if(summary.roles.begin(), summary.roles.end(),
                                  [name](const RoleSummary& r) { return r.role == name; });
  return found == summary.roles.end() ? RoleSummary{} : *found;
}

// Counted by hand from config.json.
TEST(Inspect, CountsMicroGlm) {
  const auto s = summary_of(fs::path(ASSAY_SOURCE_DIR) / "golden/micro-glm/model");
  const std::int64_t expert = 3 * 96 * 320;
  EXPECT_EQ(s.n_parameters, 15'106'528);
  EXPECT_EQ(role(s, "routed experts").n_tensors, 6 * 16 * 3);
  EXPECT_EQ(role(s, "routed experts").n_parameters, 6 * 16 * expert);
  EXPECT_EQ(role(s, "shared experts").n_parameters, 6 * expert);
  EXPECT_EQ(role(s, "dense MLP").n_parameters, 3 * 768 * 320);
  EXPECT_EQ(role(s, "router").n_parameters, 6 * (16 * 320 + 16));
  EXPECT_EQ(role(s, "router").dtypes, "BF16 + F32");
  EXPECT_EQ(role(s, "indexer").n_parameters, 4 * (256 * 192 + 64 * 320 + 4 * 320 + 2 * 64));
  EXPECT_EQ(role(s, "attention").n_parameters,
            7 * (192 * 320 + 384 * 192 + 160 * 320 + 576 * 128 + 320 * 384));
  EXPECT_EQ(role(s, "norms").n_parameters, 7 * (2 * 320 + 192 + 128) + 320);
  EXPECT_EQ(role(s, "embedding").n_parameters, 3072 * 320);
  EXPECT_EQ(role(s, "lm head").n_parameters, 3072 * 320);
  // Not read for a token: all rows of the embedding but one, and 12 of 16 experts.
  EXPECT_EQ(s.n_active_parameters, 15'106'528 - 3071 * 320 - 6 * 12 * expert);
  EXPECT_EQ(s.n_active_bytes, 2 * s.n_active_parameters + 2 * 6 * 16) << "bf16, but f32 biases";
}

TEST(Inspect, BothExpertLayoutsHaveEqualCounts) {
  const auto a = summary_of(tiny_config(), tiny_tensors());
  const auto b = summary_of(tiny_config(), stacked(tiny_tensors()));
  EXPECT_EQ(a.n_parameters, b.n_parameters);
  EXPECT_EQ(a.n_active_parameters, b.n_active_parameters);
  EXPECT_EQ(a.n_active_bytes, b.n_active_bytes);
  EXPECT_EQ(role(b, "routed experts").n_tensors, 4);
}

TEST(Inspect, ATiedEmbeddingIsReadWholeAndOnce) {
  Json tied = tiny_config();
  tied["tie_word_embeddings"] = true;
  TinyTensors with_copy = tiny_tensors(), without = tiny_tensors();
  with_copy["lm_head.weight"] = with_copy["model.embed_tokens.weight"];
  without.erase("lm_head.weight");
  const auto untied = summary_of(tiny_config(), tiny_tensors());
  EXPECT_EQ(summary_of(tied, without).n_active_parameters, untied.n_active_parameters - 16);
  EXPECT_EQ(summary_of(tied, with_copy).n_active_parameters, untied.n_active_parameters - 16);
}

TEST(Inspect, WhatIsStoredButNotUsedIsNotActive) {
  Json config = tiny_config();
  config["num_nextn_predict_layers"] = 1;
  TinyTensors tensors = tiny_tensors();
  const auto before = summary_of(config, tensors);
  tensors["model.layers.3.mlp.experts.0.up_proj.weight"] = {"BF16", {5}, std::string(10, 'x')};
  const auto after = summary_of(config, tensors);
  EXPECT_EQ(role(after, "not used (MTP)").n_parameters, 5);
  EXPECT_EQ(after.n_parameters, before.n_parameters + 5);
  EXPECT_EQ(after.n_active_parameters, before.n_active_parameters);
  EXPECT_EQ(after.n_active_bytes, before.n_active_bytes);
}

TEST(Inspect, TensorsThatDoNotFitTheConfigAreAnError) {
  const auto error_of = [](const TinyTensors& tensors) {
    const TinyCheckpoint tiny;
    tiny.write_single(tensors);
    const auto summary = inspect(*Checkpoint::open(tiny.dir));
    return summary ? "" : summary.error().message;
  };
  TinyTensors tensors = tiny_tensors();
  EXPECT_EQ(error_of(tensors), "");
  tensors.erase("model.layers.1.mlp.experts.0.up_proj.weight");
  tensors["mystery"] = {"I8", {3}, "abc"};
  tensors["model.norm.weight"] = {"BF16", {5}, std::string(10, 'x')};
  EXPECT_THAT(
      error_of(tensors),
      AllOf(HasSubstr("do not fit config.json (1 wrong, 1 missing, 1 surplus; assay inspect"),
            HasSubstr("model.norm.weight: shape [5], expected [16]"),
            HasSubstr("missing: model.layers.1.mlp.experts.0.up_proj.weight"),
            HasSubstr("surplus: mystery")));
}

constexpr double kRoutedWeights = 2 * 3 * 3 * 160;  // layers, experts, projections of 160
constexpr const char* kGate = "model.layers.1.mlp.experts.0.gate_proj";  // [10, 16]

CheckpointSummary summary_of(const TinyQuantised& quantised) {
  const TinyCheckpoint folder;
  quantised.write(folder);
  return summary_of(folder.dir);
}

TierSummary tier(const CheckpointSummary& summary, std::string_view format) {
  const auto found = std::find_if(summary.tiers.begin(), summary.tiers.end(),
                                  [&](const TierSummary& t) { return t.format == format; });
  return found == summary.tiers.end() ? TierSummary{} : *found;
}

TEST(Inspect, ADenseCheckpointHasTheBitsOfItsDtype) {
  const auto s = summary_of(tiny_config(), tiny_tensors());
  EXPECT_EQ(s.routed_code_bits, 16);
  EXPECT_EQ(s.routed_total_bits, 16);
  EXPECT_EQ(s.bits_per_parameter(), 16);
  EXPECT_EQ(to_json(s)["bits"], (Json{{"routed_experts_total", 16.0}, {"all_tensors", 16.0}}));
  EXPECT_FALSE(to_json(s).contains("quantisation"));
}

TEST(Inspect, AqlmIsNamedSoAndItsCodebooksCount) {
  struct Case {
    int n_books;
    const char *scales, *format;
  };
  for (const auto& [n_books, scales, format] :
       {Case{1, "F16", "aqlm 1 bit (d 8, K 256, 1 book)"},
        Case{2, "F32", "aqlm 2 bits (d 8, K 256, 2 books)"}}) {
    TinyQuantised tiny;
    tiny.aqlm(kGate, 8, n_books, 8, scales);
    const auto s = summary_of(tiny);
    const TierSummary t = tier(s, format);
    ASSERT_EQ(t.n_weights, 160) << format;
    EXPECT_EQ(t.n_code_bits, n_books * 160);
    EXPECT_EQ(t.n_scale_bits, 10 * (n_books == 1 ? 16 : 32));
    EXPECT_EQ(t.n_codebook_bits, n_books * 256 * 8 * 16);
    EXPECT_EQ(t.total_bits(), (t.n_code_bits + t.n_scale_bits + t.n_codebook_bits) / 160);
    EXPECT_DOUBLE_EQ(s.routed_codebook_bits, t.n_codebook_bits / kRoutedWeights);
    EXPECT_DOUBLE_EQ(s.routed_total_bits,
                     (t.total_bits() * 160 + 16 * (kRoutedWeights - 160)) / kRoutedWeights);
  }
}

TEST(Inspect, AGlobalCodebookCountsOnceInTheRoutedTotalWhateverUsesIt) {
  TinyQuantised tiny;
  tiny.vq(kGate, 1, 8);
  tiny.vq("model.layers.2.mlp.experts.1.up_proj", 1, 8);
  tiny.vq("model.layers.1.mlp.shared_experts.up_proj", 2, 4);  // another, which no expert reads
  const auto s = summary_of(tiny);
  EXPECT_EQ(tier(s, "vq 1 bit (d 8, K 256)").n_codebook_bits, 0);
  EXPECT_EQ(tier(s, "vq 1 bit (d 8, K 256)").total_bits(), 1 + 1 + 16.0 / 8)
      << "16 bits pad each row of 16";
  EXPECT_DOUBLE_EQ(s.routed_codebook_bits, 256 * 8 * 16 / kRoutedWeights);
  EXPECT_DOUBLE_EQ(s.routed_total_bits,
                   (320 * 4 + 16 * (kRoutedWeights - 320) + 256 * 8 * 16) / kRoutedWeights);
}

TEST(Inspect, AqlmsCodesAreCountedAsTheyAreStored) {
  TinyQuantised tiny;
  tiny.aqlm(kGate, 8, 1, 12);  // twelve bits in an I16
  const TierSummary t = tier(summary_of(tiny), "aqlm 1.5 bits (d 8, K 4096, 1 book)");
  EXPECT_EQ(t.n_code_bits, 10 * 2 * 12);
  EXPECT_EQ(t.n_padding_bits, 10 * 2 * 4);
}

// What is counted per weight is what is stored: codes with the padding of their rows, scales,
// books.
TEST(Inspect, TotalBitsOfExpertsAreTheBytesOfTheirTensors) {
  TinyQuantised tiny;
  int n = 0;
  for (const char* layer : {"1", "2"})
    for (const char* expert : {"0", "1", "2"})
      for (const char* projection : {"gate_proj", "up_proj", "down_proj"}) {
        const auto module =
            fmt::format("model.layers.{}.mlp.experts.{}.{}", layer, expert, projection);
        tiny.vq(module, n++ % 2 == 0 ? 1.5 : 2, 2);
      }
  const TinyCheckpoint folder;
  tiny.write(folder);
  const auto checkpoint = Checkpoint::open(folder.dir);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  double n_bytes = 0;
  for (const auto& [name, tensor] : checkpoint->tensors())
    if (name.find("mlp.experts.") != std::string::npos || name.starts_with("cb"))
      n_bytes += static_cast<double>(tensor->bytes.size());
  const auto s = summary_of(folder.dir);
  EXPECT_GT(s.routed_padding_bits, 0);
  EXPECT_DOUBLE_EQ(s.routed_total_bits * kRoutedWeights, 8 * n_bytes);
  EXPECT_DOUBLE_EQ(s.routed_total_bits, s.routed_code_bits + s.routed_padding_bits +
                                            s.routed_scale_bits + s.routed_codebook_bits);
  EXPECT_EQ(to_json(s)["quantisation"]["routed_padding_bits"], s.routed_padding_bits);
}

}  // namespace
}  // namespace assay::engine
