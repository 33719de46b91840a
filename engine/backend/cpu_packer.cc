#include "engine/backend/cpu_packer.h"

#include "engine/backend/matrix_view.h"

namespace assay::engine {
namespace {

using kernels::PackedMatrix;
using kernels::WeightMatrix;

const void* place_of(const Matrix& m) {
  if (const auto* vq = std::get_if<kernels::VqMatrix>(&m.codes)) return vq->codes;
  if (const auto* scaled = std::get_if<kernels::ScaledMatrix>(&m.codes)) return scaled->values;
  return m.data;
}

}  // namespace

CpuMatrix CpuPacker::pack(const Matrix& m) {
  if (m.empty()) return {};
  const auto [it, is_new] = matrices_.try_emplace(place_of(m));
  if (is_new) it->second = CpuMatrix::pack(arena_, m);
  return it->second;
}

PackedMatrix CpuPacker::pack_in_turn(const Matrix& a, const Matrix& b) {
  const auto [it, is_new] = pairs_.try_emplace({place_of(a), place_of(b)});
  if (is_new) it->second = PackedMatrix::pack_in_turn(arena_, view(a), view(b));
  return it->second;
}

const CpuPacker::KvUp& CpuPacker::pack_kv_up(const ModelConfig& c, const Matrix& m) {
  const auto [it, is_new] = kv_ups_.try_emplace(place_of(m));
  KvUp& out = it->second;
  if (!is_new) return out;
  // Sliced by head and transposed, so a quantised one is expanded.
  const std::vector<float> expanded = m.is_dense() ? std::vector<float>() : to_floats(m);
  const WeightMatrix kv_b =
      m.is_dense() ? view(m)
                   : WeightMatrix{expanded.data(), kernels::WeightType::kF32, m.n_rows, m.n_cols};
  for (int h = 0; h < c.n_heads; ++h) {
    const int first = h * (c.qk_nope + c.v_head);
    out.key.push_back(PackedMatrix::pack_transposed(arena_, rows_of(kv_b, first, c.qk_nope)));
    out.value.push_back(PackedMatrix::pack(arena_, rows_of(kv_b, first + c.qk_nope, c.v_head)));
  }
  return out;
}

}  // namespace assay::engine
