#include "engine/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "engine/checkpoint/tiny_checkpoint.h"

namespace assay::engine {
namespace {

using ::testing::HasSubstr;

Result<std::vector<TensorView>> parse(const std::string& bytes) {
  return parse_safetensors(std::as_bytes(std::span(bytes)), "x.safetensors");
}

std::string file_of(const std::string& json, std::size_t n_data, std::uint64_t claimed = ~0ull) {
  std::string out(8, '\0');
  const std::uint64_t n = claimed == ~0ull ? json.size() : claimed;
  for (int i = 0; i < 8; ++i) out[i] = static_cast<char>(n >> (8 * i));
  return out + json + std::string(n_data, '\1');
}

std::string error_of(const std::string& json, std::size_t n_data, std::uint64_t claimed = ~0ull) {
  const auto result = parse(file_of(json, n_data, claimed));
  EXPECT_FALSE(result.has_value()) << json;
  if (result) return "";
  EXPECT_THAT(result.error().message, HasSubstr("x.safetensors"));
  return result.error().message;
}

TEST(Safetensors, ReadsTensorsMetadataAndEmptyOnes) {
  const std::string file = file_of(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[0,5],"data_offsets":[8,8]},"c":{"dtype":"I8","shape":[],"data_offsets":[8,9]}})",
      9);
  const auto tensors = parse(file);
  ASSERT_TRUE(tensors.has_value()) << tensors.error().message;
  ASSERT_EQ(tensors->size(), 3u);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[0].n_elements(), 2);
  EXPECT_EQ((*tensors)[1].n_elements(), 0);
  EXPECT_EQ((*tensors)[2].bytes.size(), 1u) << "a scalar has one element";
}

// A shard of a quantised model has thousands of tensors: what takes their square takes minutes
// here.
TEST(Safetensors, AHeaderOfManyTensorsIsReadInTimeProportionalToThem) {
  std::string json = "{";
  for (int i = 0; i < 60000; ++i)
    json += fmt::format(R"({}"t{}":{{"dtype":"I8","shape":[1],"data_offsets":[{},{}]}})",
                        i == 0 ? "" : ",", i, i, i + 1);
  const auto begin = std::chrono::steady_clock::now();
  const auto tensors = parse(file_of(json + "}", 60000));
  ASSERT_TRUE(tensors) << tensors.error().message;
  EXPECT_EQ(tensors->size(), 60000u);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST(Safetensors, ADamagedHeaderSaysWhatIsWrong) {
  EXPECT_THAT(error_of("{}", 0, 1ull << 62), HasSubstr("limit"));
  EXPECT_THAT(error_of("{}", 0, 5000), HasSubstr("truncated"));
  EXPECT_THAT(parse("1234").error().message, HasSubstr("4 bytes long"));
  EXPECT_THAT(error_of("{\"a\":", 0), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of("[]", 0), HasSubstr("not a JSON object"));
  EXPECT_THAT(error_of(std::string(100'000, '['), 0), HasSubstr("nested"));
  EXPECT_THAT(error_of(R"({"__metadata__":{"a":1}})", 0), HasSubstr("__metadata__"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32"}})", 0), HasSubstr("tensor a"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F4","shape":[1],"data_offsets":[0,4]}})", 4),
              HasSubstr("F4"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4),
              HasSubstr("shape"));
  EXPECT_THAT(
      error_of(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", 4),
      HasSubstr("larger than any memory"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})", 8),
              HasSubstr("needs 4 bytes"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4),
              HasSubstr("[4, 0)"));
}

TEST(Safetensors, WhatOtherReadersWouldReadDifferentlyIsAnError) {
  EXPECT_THAT(error_of(std::string("{}\0 and more", 12), 0), HasSubstr("zero byte at 2"));
  EXPECT_THAT(
      error_of(R"({"a":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}})", 4),
      HasSubstr("dtype twice"));
  EXPECT_THAT(
      error_of(R"({"a":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]}})", 0),
      HasSubstr("larger than any memory"))
      << "a size that is negative as int64";
}

TEST(Safetensors, AGitLfsPointerIsRecognised) {
  EXPECT_THAT(parse("version https://git-lfs.github.com/spec/v1\noid sha256:0\n").error().message,
              HasSubstr("git lfs pull"));
}

TEST(Safetensors, AHostileNameIsShortAndPrintableInMessages) {
  const std::string name = R"(\u001b[2J)" + std::string(100'000, 'x');
  const auto message = error_of("{\"" + name + "\":{\"dtype\":\"F32\"}}", 0);
  EXPECT_LT(message.size(), 400u);
  EXPECT_EQ(message.find('\x1b'), std::string::npos);
}

TEST(Safetensors, EveryByteOfTheDataBelongsToExactlyOneTensor) {
  EXPECT_THAT(
      error_of(
          R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
          8),
      HasSubstr("overlap"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8),
              HasSubstr("belong to no tensor"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 8),
              HasSubstr("the file has 8"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 3),
              HasSubstr("truncated"));
  EXPECT_THAT(
      error_of(
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
          4),
      HasSubstr("twice"));
}

TEST(Safetensors, EveryTruncationIsAnError) {
  const std::string file = safetensors_bytes(tiny_tensors());
  for (std::size_t n = 0; n < file.size(); n += n < 200 ? 1 : 97)
    EXPECT_FALSE(parse(file.substr(0, n)).has_value()) << n;
}

TEST(Safetensors, EveryFlippedBitOfTheHeaderIsAnErrorOrStaysInsideTheFile) {
  const std::string good = file_of(
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"I8","shape":[3],"data_offsets":[8,11]}})",
      11);
  int n_parsed = 0;
  for (std::size_t i = 0; i + 11 < good.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      std::string file = good;
      file[i] = static_cast<char>(file[i] ^ (1 << bit));
      const auto tensors = parse(file);
      if (!tensors) continue;
      ++n_parsed;  // a renamed tensor, or F32 read as I32: only a name or a type that fits changed
      for (const TensorView& t : *tensors) {
        EXPECT_EQ(t.bytes.size(), static_cast<std::size_t>(t.n_elements()) * bytes_of(t.dtype));
        EXPECT_LE(t.bytes.data() + t.bytes.size(),
                  std::as_bytes(std::span(file)).data() + file.size());
      }
    }
  EXPECT_LT(n_parsed, 60);
}

}  // namespace
}  // namespace assay::engine
