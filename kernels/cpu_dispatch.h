// For the HWY_ONCE part of a *_cpu.cc: calls `function` as compiled for `target`. A model chooses
// its target once, when it is loaded, and two models with different targets can live in one
// process; Highway's own dispatch is one global choice.
#pragma once

#include "base/check.h"
#include "hwy/highway.h"
#include "kernels/cpu_target.h"

#if (HWY_TARGETS & HWY_AVX3) && (HWY_TARGETS & HWY_AVX2)
#define ASSAY_CPU_CALL(target, function, ...)                                       \
  ((target) == ::assay::kernels::CpuTarget::kAvx512 ? N_AVX3::function(__VA_ARGS__) \
                                                    : N_AVX2::function(__VA_ARGS__))
#else
#define ASSAY_CPU_CALL(target, function, ...) \
  (CHECK(false) << "built without " << cpu_target_name(target))
#endif
