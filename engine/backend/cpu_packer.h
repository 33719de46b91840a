// Packs matrices for the cpu backend, each once: models that share matrices (engine/mixture.h)
// share the packed ones.
#pragma once

#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/backend/cpu_matrix.h"
#include "engine/checkpoint/config.h"

namespace assay::engine {

// Knows a matrix by where its data lies, so whatever it has packed must stay mapped while it packs.
// Owns every packed matrix. Not thread-safe.
class CpuPacker {
 public:
  CpuMatrix pack(const Matrix& m);
  // Two dense ones, as kernels::PackedMatrix::pack_in_turn.
  kernels::PackedMatrix pack_in_turn(const Matrix& a, const Matrix& b);

  // kv_b by head: key rows transposed [kv_lora, qk_nope], value rows [v_head, kv_lora].
  struct KvUp {
    std::vector<kernels::PackedMatrix> key, value;
  };
  const KvUp& pack_kv_up(const ModelConfig& config, const Matrix& kv_b);

 private:
  kernels::WeightArena arena_;
  std::unordered_map<const void*, CpuMatrix> matrices_;
  std::map<std::pair<const void*, const void*>, kernels::PackedMatrix> pairs_;
  std::unordered_map<const void*, KvUp> kv_ups_;
};

}  // namespace assay::engine
