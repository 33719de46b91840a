// What a token or a prompt is held against where GPUs compute: arithmetic, without a GPU.
#include "harness/cli/bench_roof.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace assay::cli {
namespace {

using engine::DeviceRoof;
using engine::EngineInfo;
using ::testing::HasSubstr;

// 1000 bytes of weights, 100 more where the index chooses; 10 a key, of which 8 at most are looked
// at then, and 1 a key that is scored.
constexpr engine::TokenBytes kToken = {
    .weights = 1000, .index_weights = 100, .per_key = 10, .per_index_key = 1};

EngineInfo info(const char* attention) {
  EngineInfo i{};
  i.attention = attention;
  i.index_topk = 8;
  i.fma_per_token = 50;
  i.fma_lm_head = 20;
  return i;
}

TEST(DeviceRoof, ATokenReadsWeightsAndTheKeysThatItSees) {
  EXPECT_EQ(info("dense").decode_bytes(kToken, 100), 1000 + 10 * 100);
  EXPECT_EQ(info("sparse").decode_bytes(kToken, 8), 1000 + 10 * 8);
  EXPECT_EQ(info("sparse").decode_bytes(kToken, 9), 1000 + 100 + 10 * 8 + 9);
}

TEST(DeviceRoof, OfOneGpuIsItsReadsOverATokensBytes) {
  const DeviceRoof roof[] = {{.read_bytes_per_s = 1e6, .half_fma_per_s = 1, .token = kToken}};
  // Keys 5, 6 and 7: 1060 bytes on average.
  const DecodeRoof decode = device_decode_roof(info("dense"), roof, 5, 3);
  EXPECT_DOUBLE_EQ(decode.per_s, 1e6 / 1060);
  EXPECT_DOUBLE_EQ(decode.bytes["weights"].get<double>(), 1000);
  EXPECT_DOUBLE_EQ(decode.bytes["cache"].get<double>(), 60);
  EXPECT_THAT(decode.text, HasSubstr("that a token needs on the GPU"));
  EXPECT_EQ(decode.token_reads_per_s, 0);
}

TEST(DeviceRoof, OfSeveralIsTheOneThatReadsLongest) {
  DeviceRoof roofs[] = {{.read_bytes_per_s = 1e6, .half_fma_per_s = 3e6, .token = kToken},
                        {.read_bytes_per_s = 5e5, .half_fma_per_s = 1e6, .token = kToken}};
  EXPECT_DOUBLE_EQ(device_decode_roof(info("dense"), roofs, 1, 1).per_s, 5e5 / 1010);
  roofs[1].token.weights = 10;  // a fifth of the bytes at half the speed
  const DecodeRoof decode = device_decode_roof(info("dense"), roofs, 1, 1);
  EXPECT_DOUBLE_EQ(decode.per_s, 1e6 / 1010);
  EXPECT_THAT(decode.text, HasSubstr("reads longest"));
  // Products are shared: four million a second together; 2 tokens and one head are 120.
  EXPECT_DOUBLE_EQ(device_prefill_per_s(info("dense"), roofs, 2), 2 * 4e6 / 120);
}

}  // namespace
}  // namespace assay::cli
