// What this thread's core does in registers and its first-level cache, in operations per second.
#pragma once

#include <chrono>
#include <cstdint>

#include "kernels/vq.h"

namespace assay::kernels {

template <class Work>
double seconds_of(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The clock: a chain of additions, one a cycle. Of a register to itself: with a constant some cores
// would join additions while they rename.
inline double dependent_adds_per_s() {
  constexpr int kRepeat = 10000;
  const double s = seconds_of([&] {
    std::uint64_t a = 1;
    for (int i = 0; i < kRepeat; ++i)
      asm volatile(
          "add %0, %0\n add %0, %0\n add %0, %0\n add %0, %0\n add %0, %0\n"
          "add %0, %0\n add %0, %0\n add %0, %0\n add %0, %0\n add %0, %0\n"
          : "+r"(a));
  });
  return 10 * kRepeat / s;
}

inline double independent_adds_per_s() {
  constexpr int kRepeat = 10000;
  const double s = seconds_of([&] {
    std::uint64_t a = 1, b = 2, c = 3, d = 4, e = 5, f = 6;
    for (int i = 0; i < kRepeat; ++i)
      asm volatile(
          "add %0, %0\n add %1, %1\n add %2, %2\n add %3, %3\n add %4, %4\n add %5, %5\n"
          "add %0, %0\n add %1, %1\n add %2, %2\n add %3, %3\n add %4, %4\n add %5, %5\n"
          : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f));
  });
  return 12 * kRepeat / s;
}

// Codes per second of a look-up's inner loop without its memory: the instructions of one step, as
// the compiler puts them, on registers and one table.
inline double vbmi_steps_per_s() {
  constexpr int kRepeat = 2000, kCodes = 64;
  const double s = seconds_of([&] {
    for (int i = 0; i < kRepeat; ++i)
      asm volatile(
          "vpmovb2m %%zmm0, %%k1\n"
          "vmovdqa64 %%zmm0, %%zmm2\n vpermi2b %%zmm1, %%zmm1, %%zmm2\n"
          "vmovdqa64 %%zmm0, %%zmm3\n vpermi2b %%zmm1, %%zmm1, %%zmm3\n"
          "vmovdqu8 %%zmm3, %%zmm2%{%%k1%}\n"
          "vmovdqa64 %%zmm0, %%zmm4\n vpermi2b %%zmm1, %%zmm1, %%zmm4\n"
          "vmovdqa64 %%zmm0, %%zmm5\n vpermi2b %%zmm1, %%zmm1, %%zmm5\n"
          "vmovdqu8 %%zmm5, %%zmm4%{%%k1%}\n"
          "vmovdqa64 %%zmm0, %%zmm6\n vpermi2b %%zmm1, %%zmm1, %%zmm6\n"
          "vmovdqa64 %%zmm0, %%zmm7\n vpermi2b %%zmm1, %%zmm1, %%zmm7\n"
          "vmovdqu8 %%zmm7, %%zmm6%{%%k1%}\n"
          "vmovdqa64 %%zmm0, %%zmm8\n vpermi2b %%zmm1, %%zmm1, %%zmm8\n"
          "vmovdqa64 %%zmm0, %%zmm9\n vpermi2b %%zmm1, %%zmm1, %%zmm9\n"
          "vmovdqu8 %%zmm9, %%zmm8%{%%k1%}\n"
          "vpunpcklbw %%zmm4, %%zmm2, %%zmm3\n vpunpckhbw %%zmm4, %%zmm2, %%zmm5\n"
          "vpunpcklbw %%zmm8, %%zmm6, %%zmm7\n vpunpckhbw %%zmm8, %%zmm6, %%zmm9\n"
          "vpunpcklwd %%zmm7, %%zmm3, %%zmm2\n vpunpckhwd %%zmm7, %%zmm3, %%zmm4\n"
          "vpunpcklwd %%zmm9, %%zmm5, %%zmm6\n vpunpckhwd %%zmm9, %%zmm5, %%zmm8\n"
          "vaddps %%zmm2, %%zmm10, %%zmm10\n vaddps %%zmm4, %%zmm11, %%zmm11\n"
          "vaddps %%zmm6, %%zmm12, %%zmm12\n vaddps %%zmm8, %%zmm13, %%zmm13\n" ::
              : "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                "xmm12", "xmm13");  // k1: unknown to code without AVX-512
    asm volatile("vzeroupper");
  });
  return kCodes * kRepeat / s;
}

// Eight codes from rax, and their sums in xmm6 … xmm13.
#define ASSAY_EIGHT_LOADS                                                           \
  "mov (%1), %%rax\n"                                                               \
  "movzbl %%al, %%ecx\n movzbl %%ah, %%edx\n shr $16, %%rax\n"                      \
  "vaddss (%0,%%rcx,4), %%xmm6, %%xmm6\n vaddss (%0,%%rdx,4), %%xmm7, %%xmm7\n"     \
  "movzbl %%al, %%ecx\n movzbl %%ah, %%edx\n shr $16, %%rax\n"                      \
  "vaddss (%0,%%rcx,4), %%xmm8, %%xmm8\n vaddss (%0,%%rdx,4), %%xmm9, %%xmm9\n"     \
  "movzbl %%al, %%ecx\n movzbl %%ah, %%edx\n shr $16, %%rax\n"                      \
  "vaddss (%0,%%rcx,4), %%xmm10, %%xmm10\n vaddss (%0,%%rdx,4), %%xmm11, %%xmm11\n" \
  "movzbl %%al, %%ecx\n movzbl %%ah, %%edx\n"                                       \
  "vaddss (%0,%%rcx,4), %%xmm12, %%xmm12\n vaddss (%0,%%rdx,4), %%xmm13, %%xmm13\n"
#define ASSAY_GATHER(at, sum)                        \
  "vpmovzxbd " at                                    \
  "(%1), %%ymm0\n vpcmpeqd %%ymm1, %%ymm1, %%ymm1\n" \
  "vgatherdps %%ymm1, (%0,%%ymm0,4), %%ymm2\n vaddps %%ymm2, " sum ", " sum "\n"
#define ASSAY_LOOK_UP_CLOBBERS                                                                 \
  "rax", "rcx", "rdx", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", \
      "xmm9", "xmm10", "xmm11", "xmm12", "xmm13"

struct OneTable {
  alignas(64) float sums[256] = {};
  alignas(64) std::uint8_t codes[32] = {};
  OneTable() {
    for (int i = 0; i < 32; ++i) codes[i] = static_cast<std::uint8_t>(i * 71);
  }
};

inline double gather_steps_per_s() {
  constexpr int kRepeat = 2000, kCodes = 32;
  const OneTable t;
  const double s = seconds_of([&] {
    for (int i = 0; i < kRepeat; ++i)
      asm volatile(ASSAY_GATHER("8", "%%ymm3") ASSAY_GATHER("16", "%%ymm4")
                       ASSAY_GATHER("24", "%%ymm5") ASSAY_EIGHT_LOADS ::"r"(t.sums),
                   "r"(t.codes)
                   : ASSAY_LOOK_UP_CLOBBERS, "memory");
    asm volatile("vzeroupper");
  });
  return kCodes * kRepeat / s;
}

inline double scalar_steps_per_s() {
  constexpr int kRepeat = 5000, kCodes = 8;
  const OneTable t;
  const double s = seconds_of([&] {
    for (int i = 0; i < kRepeat; ++i)
      asm volatile(ASSAY_EIGHT_LOADS ::"r"(t.sums), "r"(t.codes)
                   : ASSAY_LOOK_UP_CLOBBERS, "memory");
  });
  return kCodes * kRepeat / s;
}
#undef ASSAY_EIGHT_LOADS
#undef ASSAY_GATHER
#undef ASSAY_LOOK_UP_CLOBBERS

inline double steps_per_s(VqFetch fetch) {
  return fetch == VqFetch::kVbmi     ? vbmi_steps_per_s()
         : fetch == VqFetch::kGather ? gather_steps_per_s()
                                     : scalar_steps_per_s();
}

}  // namespace assay::kernels
