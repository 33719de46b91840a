#include "engine/backend/cpu_matrix.h"

#include "engine/backend/matrix_view.h"
#include "kernels/project.h"

namespace assay::engine {

CpuMatrix CpuMatrix::pack(kernels::WeightArena& arena, const Matrix& m) {
  CpuMatrix out;
  if (m.empty()) return out;
  out.n_rows_ = m.n_rows;
  out.n_cols_ = m.n_cols;
  if (m.is_dense()) {
    out.form_ = kernels::PackedMatrix::pack(arena, view(m));
  } else if (const auto* vq = std::get_if<kernels::VqMatrix>(&m.codes)) {
    out.form_ = kernels::PackedVq::pack(arena, *vq);
  } else {
    out.form_ = kernels::PackedScaled::pack(arena, std::get<kernels::ScaledMatrix>(m.codes));
  }
  return out;
}

std::size_t CpuMatrix::bytes() const {
  return std::visit([](const auto& form) { return form.bytes(); }, form_);
}

void CpuMatrix::multiply(kernels::CpuTarget target, const Product& p) const {
  if (const kernels::PackedVq* w = vq()) {
    const kernels::VqProduct one{w, p.y, p.first_block, p.last_block};
    kernels::vq_project_cpu(target, {.products = {&one, 1},
                                     .x = p.x,
                                     .n_tokens = p.n_tokens,
                                     .accumulate = p.accumulate,
                                     .scratch = p.scratch});
    return;
  }
  if (const kernels::PackedScaled* w = scaled()) {
    const kernels::ScaledProduct one{w, p.y, p.first_block, p.last_block};
    kernels::scaled_project_cpu(
        target,
        {.products = {&one, 1}, .x = p.x, .n_tokens = p.n_tokens, .accumulate = p.accumulate});
    return;
  }
  kernels::project_cpu(target, {.w = dense(),
                                .x = p.x,
                                .y = p.y,
                                .n_tokens = p.n_tokens,
                                .first_block = p.first_block,
                                .last_block = p.last_block,
                                .accumulate = p.accumulate});
}

}  // namespace assay::engine
