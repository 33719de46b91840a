// For tests on random data: another seed every time, printed, so that a failure can be had again
// with ASSAY_TEST_SEED=seed.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

namespace assay::kernels {

inline unsigned fresh_seed() {
  const char* wanted = std::getenv("ASSAY_TEST_SEED");
  const unsigned seed =
      wanted != nullptr ? static_cast<unsigned>(std::stoul(wanted)) : std::random_device{}();
  std::printf("ASSAY_TEST_SEED=%u\n", seed);
  return seed;
}

}  // namespace assay::kernels
