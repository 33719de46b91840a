// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC'11). A number is a pure function of (key, counter), so a sample does not depend on
// what else was drawn before it.
#pragma once

#include <array>
#include <cstdint>

namespace assay {

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

// Uniform in [0, 1) with 53 bits, keyed by (seed, stream, position): stream is a case, position a
// token.
double uniform_at(std::uint64_t seed, std::uint64_t stream, std::uint64_t position);

}  // namespace assay
