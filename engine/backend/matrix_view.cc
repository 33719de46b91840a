#include "engine/backend/matrix_view.h"

#include "base/check.h"

namespace assay::engine {

kernels::WeightMatrix view(const Matrix& m) {
  CHECK(m.is_dense()) << m.name;
  const kernels::WeightType type = m.dtype == DType::kBf16  ? kernels::WeightType::kBf16
                                   : m.dtype == DType::kF16 ? kernels::WeightType::kF16
                                                            : kernels::WeightType::kF32;
  return {m.data, type, m.n_rows, m.n_cols};
}

kernels::WeightMatrix rows_of(const kernels::WeightMatrix& w, int first, int n) {
  const std::int64_t bytes = w.type == kernels::WeightType::kF32 ? 4 : 2;
  return {static_cast<const std::byte*>(w.data) + first * bytes * w.n_cols, w.type, n, w.n_cols};
}

kernels::VqMatrix rows_of(const kernels::VqMatrix& w, int first, int n) {
  kernels::VqMatrix part = w;
  part.codes += std::ptrdiff_t{first} * w.row_words() * 4;
  part.scales += std::ptrdiff_t{first} * w.n_groups() * 2;
  part.n_rows = n;
  return part;
}

void row_to_floats(const Matrix& m, int row, float* out) {
  if (m.is_dense()) {
    const kernels::WeightMatrix w = view(m);
    const std::int64_t first = std::int64_t{row} * m.n_cols;
    for (int c = 0; c < m.n_cols; ++c) out[c] = kernels::weight_at(w, first + c);
  }
  const auto expand = [&](const auto& w) {
    for (int c = 0; c < m.n_cols; ++c) out[c] = kernels::weight_at(w, row, c);
  };
  if (const auto* vq = std::get_if<kernels::VqMatrix>(&m.codes)) expand(*vq);
  if (const auto* scaled = std::get_if<kernels::ScaledMatrix>(&m.codes)) expand(*scaled);
}

std::vector<float> to_floats(const Matrix& m) {
  const auto n_cols = static_cast<std::size_t>(m.n_cols);
  std::vector<float> out(static_cast<std::size_t>(m.n_rows) * n_cols);
  for (int r = 0; r < m.n_rows; ++r)
    row_to_floats(m, r, out.data() + static_cast<std::size_t>(r) * n_cols);
  return out;
}

}  // namespace assay::engine
