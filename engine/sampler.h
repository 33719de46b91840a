// From one row of logits to one token: kernels/sample.h, which a GPU's kernels must agree with.
#pragma once

#include "kernels/sample.h"

namespace assay::engine {

using kernels::logsumexp;
using kernels::sample;
using kernels::sample_at;
using kernels::Sampled;
using kernels::SampleKey;
using kernels::SampleRequest;
using kernels::SamplingParams;

}  // namespace assay::engine
