#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/checkpoint/tiny_quantised.h"
#include "engine/checkpoint/weights.h"

namespace assay::engine {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// The modules that the tests quantise: each fits its format's sizes.
constexpr const char* kGate = "model.layers.1.mlp.experts.0.gate_proj";  // [10, 16]
constexpr const char* kUp = "model.layers.1.mlp.experts.0.up_proj";      // [10, 16]
constexpr const char* kDown = "model.layers.1.mlp.experts.0.down_proj";  // [16, 10]
constexpr const char* kO = "model.layers.0.self_attn.o_proj";            // [16, 10]
constexpr const char* kHead = "lm_head";                                 // [40, 16]

std::vector<double> values_of(const Matrix& m) {
  std::vector<double> out;
  for (int r = 0; r < m.n_rows; ++r)
    for (int c = 0; c < m.n_cols; ++c) {
      if (const auto* vq = std::get_if<kernels::VqMatrix>(&m.codes))
        out.push_back(kernels::weight_at(*vq, r, c));
      else if (const auto* scaled = std::get_if<kernels::ScaledMatrix>(&m.codes))
        out.push_back(kernels::weight_at(*scaled, r, c));
    }
  return out;
}

struct Bound {
  TinyCheckpoint folder;
  std::optional<Checkpoint> checkpoint;
  ModelWeights weights;
  std::string error;  // "" where it bound
};
std::unique_ptr<Bound> bind(const TinyQuantised& tiny, bool with_codebooks = true) {
  auto out = std::make_unique<Bound>();
  tiny.write(out->folder);
  if (!with_codebooks) fs::remove(out->folder.dir / "vq_codebooks.safetensors");
  auto checkpoint = Checkpoint::open(out->folder.dir);
  if (!checkpoint) {
    out->error = checkpoint.error().message;
    return out;
  }
  out->checkpoint = *std::move(checkpoint);
  auto weights = bind_weights(*out->checkpoint);
  if (weights)
    out->weights = *std::move(weights);
  else
    out->error = weights.error().message;
  return out;
}

void expect_values(const Matrix& m, const std::vector<double>& expected) {
  const std::vector<double> got = values_of(m);
  ASSERT_EQ(got.size(), expected.size()) << m.name;
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_NEAR(got[i], expected[i], 1e-7 * std::abs(expected[i])) << m.name << " element " << i;
}

TEST(QuantisedWeights, TiersMixPerExpertAndProjection) {
  TinyQuantised tiny;
  tiny.vq(kGate, 1, 8);
  tiny.vq(kUp, 2, 4);
  tiny.vq(kDown, 1.5, 2);  // 3-bit indices; 10 columns are a group of 8 and one of 2
  const auto bound = bind(tiny);
  ASSERT_EQ(bound->error, "");
  const MlpWeights& expert = bound->weights.layers[1].experts[0];
  expect_values(expert.gate, tiny.weights[kGate]);
  expect_values(expert.up, tiny.weights[kUp]);
  expect_values(expert.down, tiny.weights[kDown]);
  EXPECT_TRUE(bound->weights.layers[1].experts[1].gate.is_dense()) << "not listed, so as it was";
}

TEST(QuantisedWeights, AStackOfExpertsHoldsTheSameMatrices) {
  TinyQuantised apart;
  for (int l = 1; l < 3; ++l)
    for (int e = 0; e < 3; ++e)
      for (const char* part : {"gate_proj", "up_proj", "down_proj"})
        apart.vq(fmt::format("model.layers.{}.mlp.experts.{}.{}", l, e, part), 4, 2);
  TinyQuantised stacks = apart;
  stacks.stack_experts(4, 2);
  const auto a = bind(apart), b = bind(stacks);
  ASSERT_EQ(a->error, "");
  ASSERT_EQ(b->error, "");
  for (int l = 1; l < 3; ++l)
    for (std::size_t e = 0; e < 3; ++e)
      for (const auto part : {&MlpWeights::gate, &MlpWeights::up, &MlpWeights::down})
        EXPECT_EQ(values_of(a->weights.layers[static_cast<std::size_t>(l)].experts[e].*part),
                  values_of(b->weights.layers[static_cast<std::size_t>(l)].experts[e].*part));
}

TEST(QuantisedWeights, TheSpineIsGptqOfFourAndEightBits) {
  TinyQuantised tiny;
  tiny.gptq("model.layers.0.mlp.gate_proj", 4);  // [24, 16]
  tiny.gptq(kHead, 8);
  const auto bound = bind(tiny);
  ASSERT_EQ(bound->error, "");
  expect_values(bound->weights.layers[0].mlp.gate, tiny.weights["model.layers.0.mlp.gate_proj"]);
  expect_values(bound->weights.lm_head, tiny.weights[kHead]);
}

TEST(QuantisedWeights, Fp8HasAScaleForEachBlock) {
  TinyQuantised tiny;
  tiny.fp8(kO, 4);
  const auto bound = bind(tiny);
  ASSERT_EQ(bound->error, "") << "what is not fp8 in an fp8 checkpoint is read as it is";
  expect_values(bound->weights.layers[0].o, tiny.weights[kO]);
}

TEST(QuantisedWeights, AqlmCodesAreReadModuloTheBook) {
  for (const int index_bits : {8, 12}) {
    TinyQuantised tiny;
    tiny.aqlm(kGate, 8, 2, index_bits);
    const auto bound = bind(tiny);
    ASSERT_EQ(bound->error, "");
    const std::vector<double> got = values_of(bound->weights.layers[1].experts[0].gate);
    for (std::size_t i = 0; i < got.size(); ++i)  // the sum of two codewords rounds
      EXPECT_NEAR(got[i], tiny.weights[kGate][i], 1e-9) << i;
  }
}

TEST(QuantisedWeights, AqlmScalesMayBeOfTheModelsDtype) {
  for (const char* dtype : {"BF16", "F32"}) {
    TinyQuantised tiny;
    tiny.aqlm(kGate, 8, 1, 8, dtype);
    const auto bound = bind(tiny);
    ASSERT_EQ(bound->error, "") << dtype;
    expect_values(bound->weights.layers[1].experts[0].gate, tiny.weights[kGate]);
  }
}

TEST(QuantisedWeights, AqlmScalesThatBinary16LacksAreRefused) {
  const std::string scales = std::string(kGate) + ".scales";
  const auto with = [&](const char* dtype, std::uint32_t value) {  // as element 3
    TinyQuantised tiny;
    tiny.aqlm(kGate, 8, 1, 8, dtype);
    std::string& bytes = tiny.tensors[scales].bytes;
    const std::size_t width = bytes.size() / 10;
    for (std::size_t b = 0; b < width; ++b)
      bytes[3 * width + b] = static_cast<char>(value >> 8 * (b + 4 - width));
    return bind(tiny)->error;
  };
  EXPECT_EQ(with("F32", 0x3C802000), "") << "one unit of binary16 above 2^-6";
  EXPECT_EQ(with("F32", 0x33800000), "") << "2^-24, its least";
  EXPECT_EQ(with("F32", 0xC77FE000), "") << "-65504, its largest";
  EXPECT_THAT(with("F32", 0x3C801000), AllOf(HasSubstr(scales), HasSubstr("element 3"),
                                             HasSubstr("Store the scales as F16")));
  EXPECT_THAT(with("F32", 0x33000000), HasSubstr("element 3")) << "2^-25";
  EXPECT_THAT(with("BF16", 0x47800000), HasSubstr("element 3 is 65536 in BF16"));
  EXPECT_THAT(with("BF16", 0x7FC00000), AllOf(HasSubstr(scales), HasSubstr("NaN")));
}

void rename(TinyQuantised& tiny, const std::string& from, const std::string& to) {
  auto node = tiny.tensors.extract(from);
  node.key() = to;
  tiny.tensors.insert(std::move(node));
}

TEST(QuantisedWeights, UnknownSuffixesAreFoundByDtypeAndShape) {
  TinyQuantised tiny;
  tiny.vq(kGate, 1, 8);
  const std::string module = kGate;
  rename(tiny, module + ".vq_codes", module + ".indices");
  rename(tiny, module + ".vq_scales", module + ".norms");
  const auto bound = bind(tiny);
  ASSERT_EQ(bound->error, "");
  expect_values(bound->weights.layers[1].experts[0].gate, tiny.weights[kGate]);

  // Tensors of other shapes do not hide them, though what nobody asked for is still refused.
  tiny.tensors[module + ".a"] = {"I32", {2, 3}, std::string(24, '\0')};
  tiny.tensors[module + ".b"] = {"F16", {5, 2}, std::string(20, '\0')};
  EXPECT_THAT(bind(tiny)->error, AllOf(HasSubstr("0 wrong, 0 missing, 2 surplus"),
                                       HasSubstr(module + ".a"), HasSubstr(module + ".b")));
  // A second one of the right shape could as well be meant.
  tiny.tensors[module + ".a"] = tiny.tensors[module + ".indices"];
  EXPECT_THAT(bind(tiny)->error,
              HasSubstr("one I32 tensor [10, 1] and one F16 tensor [10, 2]; there are 2 and 1"));
}

struct Damage {
  const char* name;
  void (*damage)(TinyQuantised&);
  std::vector<std::string> says;
};
void PrintTo(const Damage& d, std::ostream* out) { *out << d.name; }
class DamagedCheckpoint : public ::testing::TestWithParam<Damage> {};

TEST_P(DamagedCheckpoint, IsRefusedWithWhatAndWhere) {
  TinyQuantised tiny;
  tiny.vq(kGate, 1, 8);
  tiny.vq(kUp, 2, 4);
  tiny.gptq("model.layers.0.mlp.gate_proj", 4);
  GetParam().damage(tiny);
  const auto bound = bind(tiny);
  for (const std::string& text : GetParam().says) EXPECT_THAT(bound->error, HasSubstr(text));
}

TinyTensor& tensor(TinyQuantised& t, const std::string& name) {
  CHECK(t.tensors.contains(name)) << name;
  return t.tensors[name];
}
const std::string kGateModule = kGate;
const std::string kMlpGate = "model.layers.0.mlp.gate_proj";

const std::vector<Damage> kDamages = {
    Damage{
        "WrongD", [](TinyQuantised& t) { t.extra(kGate)["d"] = 4; }, {"a codebook [16, 4]", kGate}},
    Damage{"DThatMakesNoIndex",
           [](TinyQuantised& t) { t.extra(kGate)["bits"] = 1.3; },
           {kGate, "index of 10.4 bits"}},
    Damage{"NoD", [](TinyQuantised& t) { t.extra(kGate).erase("d"); }, {kGate, ".d is absent"}},
    Damage{"OddWordCount",
           [](TinyQuantised& t) {
             TinyTensor& codes = tensor(t, kGateModule + ".vq_codes");
             codes.shape = {10, 3};
             codes.bytes.resize(120);
           },
           {".vq_codes: shape [10, 3], expected [10, 1]"}},
    Damage{"ScalesOfAnotherGroup",
           [](TinyQuantised& t) { t.config["quantization_config"]["group_size"] = 16; },
           {".vq_scales: shape [10, 2], expected [10, 1]"}},
    Damage{"DThatDoesNotDivideTheGroup",
           [](TinyQuantised& t) { t.extra(kGate)["group_size"] = 12; },
           {"group_size 12 is no multiple of d = 8"}},
    Damage{"CodebookOfAnotherSize",
           [](TinyQuantised& t) {
             t.codebooks["cb_d8_k256"].shape = {128, 8};
             t.codebooks["cb_d8_k256"].bytes.resize(2048);
           },
           {"missing: a codebook [256, 8] in vq_codebooks.safetensors"}},
    Damage{"TwoCodebooksOfOneSize",
           [](TinyQuantised& t) { t.codebooks["other"] = t.codebooks["cb_d8_k256"]; },
           {"two codebooks of 256 codewords of 8 values"}},
    Damage{"NanInAScale",
           [](TinyQuantised& t) {
             std::string& b = tensor(t, kGateModule + ".vq_scales").bytes;
             b[2] = 0, b[3] = 0x7E;
           },
           {".vq_scales", "NaN", "element 1"}},
    Damage{"InfinityInACodebook",
           [](TinyQuantised& t) {
             std::string& b = t.codebooks["cb_d8_k256"].bytes;
             b[0] = 0, b[1] = 0x7C;
           },
           {"cb_d8_k256", "infinity", "element 0"}},
    Damage{"PaddingThatIsNotZero",
           [](TinyQuantised& t) { tensor(t, kGateModule + ".vq_codes").bytes[4 * 3 + 2] = 1; },
           {".vq_codes: row 3, the last word is 0x0001", "lowest 16 bits"}},
    Damage{"CodewordsOfMoreValuesThanAreSupported",
           [](TinyQuantised& t) { t.extra(kGate)["d"] = 128; },
           {kGate, ".d is 128, expected an integer from 1 to 64"}},
    Damage{"CodesMissing",
           [](TinyQuantised& t) { t.tensors.erase(kGateModule + ".vq_codes"); },
           {"missing: " + kGateModule + ".vq_codes and .vq_scales"}},
    Damage{"AWholeLayerMissing",
           [](TinyQuantised& t) {
             std::erase_if(t.tensors,
                           [](const auto& i) { return i.first.starts_with("model.layers.1."); });
           },
           {"missing: model.layers.1.", "more"}},
    Damage{"ListedButDense",
           [](TinyQuantised& t) {
             t.extra("lm_head") = {{"bits", 8}};
           },
           {"lm_head.weight", "says gptq", "BF16"}},
    Damage{"QuantisedButNotListed",
           [](TinyQuantised& t) { t.config["quantization_config"]["extra_config"].erase(kGate); },
           {kGateModule + ".vq_codes: quantised, but config.json"}},
    Damage{"ZerosOfAnotherGroup",
           [](TinyQuantised& t) {
             tensor(t, kMlpGate + ".qzeros").shape = {1, 6};
           },
           {".qzeros: shape [1, 6], expected [2, 3]"}},
    Damage{"ActivationOrder",
           [](TinyQuantised& t) {
             TinyTensor g{"I32", {16}, std::string(64, '\0')};
             g.bytes[0] = 1;
             t.tensors[kMlpGate + ".g_idx"] = g;
           },
           {".g_idx: column 0 is in group 1, expected 0"}},
    Damage{"BitsOfFive",
           [](TinyQuantised& t) { t.extra(kMlpGate)["bits"] = 5; },
           {"bits is 5, expected 4, 8, or 16 and more"}},
    Damage{"AnUnknownMethod",
           [](TinyQuantised& t) { t.config["quantization_config"]["quant_method"] = "awq"; },
           {"quant_method is \"awq\"", "aqlm or fp8"}},
    Damage{"AnUnknownFormat",
           [](TinyQuantised& t) { t.extra(kGate)["format"] = "marlin"; },
           {kGate, "format is \"marlin\""}}};
INSTANTIATE_TEST_SUITE_P(All, DamagedCheckpoint, ::testing::ValuesIn(kDamages),
                         ::testing::PrintToStringParamName());

TEST(QuantisedWeights, AMissingCodebookFileIsNamed) {
  TinyQuantised tiny;
  tiny.vq(kGate, 1, 8);
  EXPECT_THAT(bind(tiny, false)->error,
              AllOf(HasSubstr("vq_codebooks.safetensors is missing"), HasSubstr("codebooks")));
}

// A book may be shorter than its indices could address.
TEST(QuantisedWeights, ACodeBeyondItsBookIsAnError) {
  TinyQuantised tiny;
  for (int l = 1; l < 3; ++l)
    for (int e = 0; e < 3; ++e)
      for (const char* part : {"gate_proj", "up_proj", "down_proj"})
        tiny.vq(fmt::format("model.layers.{}.mlp.experts.{}.{}", l, e, part), 4, 2);
  tiny.stack_experts(4, 2);
  for (auto& [path, entry] : tiny.config["vq"]["modules"].items()) entry["K"] = 250;
  TinyTensor& book = tiny.codebooks["cb_d2_k256"];
  book.shape = {250, 2};
  book.bytes.resize(1000);
  EXPECT_THAT(bind(tiny)->error, AllOf(HasSubstr("switch_mlp"), HasSubstr("the book has 250")));
  for (auto& [path, entry] : tiny.config["vq"]["modules"].items()) entry["K"] = 100;
  EXPECT_THAT(bind(tiny)->error, HasSubstr("K is 100 and nbits 8"));
}

TEST(QuantisedWeights, AnFp8NanIsNamed) {
  TinyQuantised tiny;
  tiny.fp8(kO, 4);
  tiny.tensors[std::string(kO) + ".weight"].bytes[5] = '\x7F';
  EXPECT_THAT(bind(tiny)->error,
              AllOf(HasSubstr("o_proj.weight"), HasSubstr("NaN"), HasSubstr("element 5")));
}

}  // namespace
}  // namespace assay::engine
