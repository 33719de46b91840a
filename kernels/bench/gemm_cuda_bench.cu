// Products of many rows on a GPU's tensor cores: GLM-5.2's and micro-glm's spine beside cuBLASLt on
// the same operands. Each result is checked first.
#ifdef ASSAY_HAVE_CUBLASLT
#include <cublasLt.h>
#endif

#include <algorithm>
#include <memory>

#include "kernels/bench/cuda_registry.h"
#include "kernels/bench/gemm_bench_data.cuh"
#include "kernels/bench/spine_bench_data.cuh"
#include "kernels/cuda_check.cuh"

namespace assay::kernels {
namespace {

// Of bf16 both operands; y in float32. The algorithm is the first that cuBLASLt proposes.
#ifdef ASSAY_HAVE_CUBLASLT
#define CUBLASLT_CHECK(call)                                                 \
  if (const cublasStatus_t status = (call); status != CUBLAS_STATUS_SUCCESS) \
  CHECK(false) << #call << ": " << cublasLtGetStatusString(status)

class CublasLt {
 public:
  // y (n_tokens, n_rows) = x (n_tokens, n_cols) wᵀ; to a column-major library, yᵀ = w xᵀ.
  CublasLt(int n_rows, int n_cols, int n_tokens) {
    CUBLASLT_CHECK(cublasLtCreate(&handle_));
    CUBLASLT_CHECK(cublasLtMatmulDescCreate(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t transposed = CUBLAS_OP_T;
    CUBLASLT_CHECK(cublasLtMatmulDescSetAttribute(product_, CUBLASLT_MATMUL_DESC_TRANSA,
                                                  &transposed, sizeof transposed));
    CUBLASLT_CHECK(cublasLtMatrixLayoutCreate(&w_, CUDA_R_16BF, static_cast<std::uint64_t>(n_cols),
                                              static_cast<std::uint64_t>(n_rows), n_cols));
    CUBLASLT_CHECK(cublasLtMatrixLayoutCreate(&x_, CUDA_R_16BF, static_cast<std::uint64_t>(n_cols),
                                              static_cast<std::uint64_t>(n_tokens), n_cols));
    CUBLASLT_CHECK(cublasLtMatrixLayoutCreate(&y_, CUDA_R_32F, static_cast<std::uint64_t>(n_rows),
                                              static_cast<std::uint64_t>(n_tokens), n_rows));
    cublasLtMatmulPreference_t preference;
    CUBLASLT_CHECK(cublasLtMatmulPreferenceCreate(&preference));
    const std::size_t n_bytes = workspace_.size();
    CUBLASLT_CHECK(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &n_bytes, sizeof n_bytes));
    int n_found = 0;
    CUBLASLT_CHECK(cublasLtMatmulAlgoGetHeuristic(handle_, product_, w_, x_, y_, y_, preference, 1,
                                                  &best_, &n_found));
    CHECK(n_found == 1) << n_rows << " x " << n_cols << ", " << n_tokens << " rows";
    CUBLASLT_CHECK(cublasLtMatmulPreferenceDestroy(preference));
  }
  ~CublasLt() {
    cublasLtMatrixLayoutDestroy(w_), cublasLtMatrixLayoutDestroy(x_);
    cublasLtMatrixLayoutDestroy(y_), cublasLtMatmulDescDestroy(product_), cublasLtDestroy(handle_);
  }
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  void run(const void* w, const Bf16* x, float* y, CudaStream stream) const {
    const float one = 1, zero = 0;
    CUBLASLT_CHECK(cublasLtMatmul(handle_, product_, &one, w, w_, x, x_, &zero, y, y_, y, y_,
                                  &best_.algo, workspace_.data(), workspace_.size(), stream));
  }

 private:
  cublasLtHandle_t handle_{};
  cublasLtMatmulDesc_t product_{};
  cublasLtMatrixLayout_t w_{}, x_{}, y_{};
  cublasLtMatmulHeuristicResult_t best_{};
  DeviceBytes workspace_{std::size_t{64} << 20};
};
#endif

struct Shape {
  const char* model;
  const char* name;
  int n_rows, n_cols;
};
constexpr Shape kShapes[] = {{"glm-5.2", "q_b", 16384, 2048},  {"glm-5.2", "o", 6144, 16384},
                             {"glm-5.2", "gate", 12288, 6144}, {"glm-5.2", "kv_a", 576, 6144},
                             {"micro-glm", "q_b", 384, 192},   {"micro-glm", "o", 320, 384},
                             {"micro-glm", "gate", 768, 320}};

// Some results in every part of y.
bool is_right(const std::vector<float>& y, const HostMatrix& m, const Shape& s,
              const std::vector<float>& x, int n_tokens) {
  for (int t = 0; t < n_tokens; t += std::max(1, n_tokens / 7))
    for (int r = 0; r < s.n_rows; r += s.n_rows / 13) {
      double sum = 0, size = 0;
      for (int c = 0; c < s.n_cols; ++c) {
        const auto at = area(t, s.n_cols) + static_cast<std::size_t>(c);
        const double p = as_bf16(m.at(r, c)) * as_bf16(static_cast<double>(x[at]));
        sum += p;
        size += std::abs(p);
      }
      const auto got = static_cast<double>(y[area(t, s.n_rows) + static_cast<std::size_t>(r)]);
      if (!(std::abs(got - sum) <= (s.n_cols + 16) * 0x1p-22 * size)) return false;
    }
  return true;
}

// Of what is not bf16: decoded at once where an engine would, or for every tile.
void gemm_on(benchmark::State& state, const Shape& s, const std::string& kind, int n_tokens,
             bool by_cublaslt, bool at_once = true) {
  const HostMatrix& host = spine_matrix(kind, s.n_rows, s.n_cols);
  const double bytes = file_bytes(host);
  const int n = std::min(n_cold_copies(bytes), 64);
  const std::string shape = "gemm/" + std::string(s.model) + "/" + s.name + "/";
  const MatrixCopies& w =
      kept<MatrixCopies>(shape + kind, [&] { return std::make_unique<MatrixCopies>(host, n); });
  const Activations& a = kept<Activations>(shape + std::to_string(n_tokens), [&] {
    return std::make_unique<Activations>(n_tokens, s.n_cols);
  });
  const DeviceArray<float> y(poison(area(n_tokens, s.n_rows)));
#ifdef ASSAY_HAVE_CUBLASLT
  std::unique_ptr<CublasLt> library;
  if (by_cublaslt) library = std::make_unique<CublasLt>(s.n_rows, s.n_cols, n_tokens);
#endif
  const DeviceArray<Bf16> room(at_once ? decode_room(w.at(0)) : 0);
  const auto run = [&](int i, CudaStream stream) {
    const DeviceMatrix m = w.at(i);
#ifdef ASSAY_HAVE_CUBLASLT
    if (by_cublaslt) return library->run(m.values, a.rounded.data(), y.data(), stream);
#endif
    CHECK(!by_cublaslt);
    gemm_cuda(m, a.rounded.data(), n_tokens, y.data(), s.n_rows, false, {room.data(), room.size()},
              stream);
  };
  run(0, nullptr);
  if (!is_right(y.host(), host, s, a.x, n_tokens)) {
    state.SkipWithError("wrong result");
    return;
  }
  time_launches(state, n, bytes, static_cast<double>(n_tokens) * s.n_rows * s.n_cols, run);
  add_flops(state, 2.0 * s.n_rows * s.n_cols * n_tokens);
}

}  // namespace

void register_gemm_cuda_benchmarks() {
  for (const int n_tokens : {32, 128, 512, 2048}) {
    const std::string rows = "/rows:" + std::to_string(n_tokens);
    for (const Shape& s : kShapes) {
      const std::string name = "gemm_cuda/" + std::string(s.model) + "/" + s.name + rows;
#ifdef ASSAY_HAVE_CUBLASLT
      add_cuda_benchmark(name + "/bf16/cublaslt", [=](benchmark::State& state) {
        gemm_on(state, s, "bf16", n_tokens, true);
      });
#endif
      for (const char* kind : {"bf16", "gptq8", "gptq4", "fp8"})
        add_cuda_benchmark(name + "/" + kind, [=](benchmark::State& state) {
          gemm_on(state, s, kind, n_tokens, false);
        });
      for (const char* kind : {"gptq8", "gptq4", "fp8"})
        add_cuda_benchmark(name + "/" + kind + "/by_tile", [=](benchmark::State& state) {
          gemm_on(state, s, kind, n_tokens, false, false);
        });
    }
  }
}

}  // namespace assay::kernels
