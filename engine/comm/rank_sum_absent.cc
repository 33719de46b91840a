// Instead of rank_sum.cu where NCCL has no device side (before 2.28): parts are gathered.
#include "base/check.h"
#include "engine/comm/rank_sum.h"

namespace assay::engine {

struct RankSum::OnDevice {};

RankSum::RankSum() = default;
RankSum::~RankSum() = default;
std::string RankSum::why_not(ncclComm_t) { return "built with NCCL before 2.28"; }
ncclResult_t RankSum::begin(ncclComm_t) { return ncclInvalidUsage; }
void RankSum::drop() {}
void RankSum::end() {}
void RankSum::sum(float*, std::size_t n, kernels::CudaStream) const { CHECK(takes(n)) << n; }

}  // namespace assay::engine
