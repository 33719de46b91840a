// Bytes through the ring of pinned buffers, and a model's weights in one piece of memory. Need a
// GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix.h"
#include "kernels/upload_ring.h"

namespace assay::kernels {
namespace {

using UploadRingTest = Cuda;
using Bytes = std::vector<std::uint8_t>;

Bytes random_bytes(std::size_t n, unsigned seed) {
  std::mt19937 draw(seed);
  Bytes out(n);
  for (std::uint8_t& b : out) b = static_cast<std::uint8_t>(draw());
  return out;
}

TEST_F(UploadRingTest, EveryByteArrivesInItsPlaceAndNoOtherIsTouchedButGaps) {
  constexpr std::uint8_t kPoison = 0xa5;
  const std::size_t slot = std::size_t{1} << 20;  // of a ring for so few bytes
  struct Piece {
    std::size_t first, n;
  };
  // One after the other, with gaps that are bridged, at and beyond a slot's end, a piece of several
  // slots, back to an earlier place, far ahead, and one that fills a slot exactly.
  const std::vector<Piece> pieces = {{0, 100},
                                     {100, 1},
                                     {256, 3000},
                                     {3256 + UploadRing::kMaxGap - 1, 77},
                                     {3588 + UploadRing::kMaxGap, slot - 1},
                                     {1100000, 7 * slot + 13},
                                     {3300, 9},
                                     {9 * slot, slot},
                                     {11 * slot, slot / 2},
                                     {11 * slot + slot / 2 + 5, slot}};
  const std::size_t n_bytes = 13 * slot;
  Bytes expected(n_bytes, kPoison);
  const DeviceArray<std::uint8_t> device(expected);
  UploadRing ring(3);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const auto [first, n] = pieces[i];
    Bytes host = random_bytes(n, static_cast<unsigned>(i));
    std::copy(host.begin(), host.end(), expected.begin() + static_cast<std::ptrdiff_t>(first));
    ring.copy(device.data() + first, host.data(), n);
    std::fill(host.begin(), host.end(), 0);  // it has been read
  }
  ring.finish();
  Bytes got = device.host();
  // What lies between two that travelled together may have become zero.
  const auto is_bridged = [](std::size_t i) {
    return (i >= 101 && i < 256) || (i >= 3256 && i < 3256 + UploadRing::kMaxGap - 1) ||
           (i >= 11 * slot + slot / 2 && i < 11 * slot + slot / 2 + 5);
  };
  for (std::size_t i = 0; i < n_bytes; ++i) {
    if (is_bridged(i) && got[i] == 0 && expected[i] == kPoison) continue;
    ASSERT_EQ(got[i], expected[i]) << "byte " << i;
  }
}

// Slots of 16 MiB are filled by several threads.
TEST_F(UploadRingTest, SoDoManyBytesAtOnce) {
  const std::size_t n = (std::size_t{40} << 20) + 7;
  const Bytes host = random_bytes(n, 1);
  const DeviceArray<std::uint8_t> device(Bytes(n + 64, 0xa5));
  UploadRing ring(std::size_t{64} << 20);
  ring.copy(device.data() + 64, host.data(), n);
  ring.finish();
  const Bytes got = device.host();
  EXPECT_TRUE(std::equal(host.begin(), host.end(), got.begin() + 64));
  EXPECT_EQ(Bytes(got.begin(), got.begin() + 64), Bytes(64, 0xa5));
}

TEST_F(UploadRingTest, ItCanBeUsedAgainAfterFinish) {
  const DeviceArray<std::uint8_t> device(Bytes(4096, 0));
  UploadRing ring(4096);
  for (unsigned round = 0; round < 5; ++round) {
    const Bytes host = random_bytes(4096, round);
    ring.copy(device.data(), host.data(), host.size());
    ring.finish();
    EXPECT_EQ(device.host(), host) << "round " << round;
  }
}

TEST_F(UploadRingTest, PinnedMemoryThatCannotBeHadIsAnErrorThatSaysHowMuch) {
  constexpr std::size_t kTooMuch = std::size_t{1} << 50;
  try {
    const PinnedBytes bytes(kTooMuch);
    FAIL() << "a petabyte was pinned";
  } catch (const NoPinnedMemory& e) {
    EXPECT_EQ(e.n_bytes, kTooMuch);
  }
  const PinnedBytes some(4096);
  EXPECT_NE(some.data(), nullptr);
  synchronise(nullptr);  // nobody is blamed later
}

TEST_F(UploadRingTest, AModelsMatricesLieInOnePieceOfMemory) {
  constexpr int kMatrices = 40, kRows = 33, kCols = 50;  // 6600 bytes: no multiple of 256
  const std::size_t one = sizeof(float) * kRows * kCols;
  const std::size_t before = n_cuda_allocations();
  DeviceWeights memory(kMatrices * (one + DeviceWeights::kAlignment));
  const std::size_t of_ring = n_cuda_allocations() - before;
  std::vector<std::vector<float>> host;
  std::vector<DeviceMatrix> device;
  for (int i = 0; i < kMatrices; ++i) {
    host.emplace_back(kRows * kCols);
    for (std::size_t k = 0; k < host.back().size(); ++k)
      host.back()[k] = static_cast<float>(i) * 1e4f + static_cast<float>(k);
    device.push_back(memory.add(WeightMatrix{host.back().data(), WeightType::kF32, kRows, kCols}));
  }
  memory.finish();
  EXPECT_EQ(n_cuda_allocations(), before + of_ring + 1);
  EXPECT_EQ(memory.bytes(), kMatrices * one);
  for (std::size_t i = 0; i < device.size(); ++i) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(device[i].values) % DeviceWeights::kAlignment, 0u);
    std::vector<float> got(host[i].size());
    copy_to_host(got.data(), device[i].values, one, nullptr);
    ASSERT_EQ(got, host[i]) << "matrix " << i;
  }
}

TEST_F(UploadRingTest, MoreThanWasExpectedIsThereAllTheSame) {
  DeviceWeights memory(1000);
  std::vector<std::vector<float>> host;
  std::vector<const float*> device;
  for (int i = 0; i < 20; ++i) {
    host.emplace_back(static_cast<std::size_t>(100 << (i % 15)), static_cast<float>(i));
    device.push_back(memory.add(host.back()));
  }
  memory.finish();
  for (std::size_t i = 0; i < device.size(); ++i) {
    std::vector<float> got(host[i].size());
    copy_to_host(got.data(), device[i], got.size() * sizeof(float), nullptr);
    ASSERT_EQ(got, host[i]) << i;
  }
}

}  // namespace
}  // namespace assay::kernels
