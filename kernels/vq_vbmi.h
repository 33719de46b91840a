// Look-ups of partial sums with AVX-512 VBMI, which Highway 1.0 has no operation for: two registers
// are a table of 128 bytes, so 256 floats are four byte planes of four registers each.
#pragma once

#include <cstddef>

namespace assay::kernels {

bool have_vbmi();  // and the AVX-512 of CpuTarget::kAvx512

// 256 floats to four planes of 256 bytes, in place.
void vbmi_split_planes(float* table);

// sum = (add ? sums[row] : 0) + table_0[index_0] + table_1[index_1] + … for n_blocks blocks of 64
// rows: the codes of one are (n_tables, 64) bytes in PackedVq's order. Then either
// y[row] += scale · sum, or sums[row] = sum, where more of the scale group follows.
struct VqLookUp {
  const std::byte* codes;
  std::size_t block_bytes;  // from a block's codes to the next block's
  int n_blocks;
  const float* tables;  // (n_tables, 256); vbmi_look_up: split into planes
  int n_tables;
  float* sums;  // (n_blocks, 64)
  bool add;
  const std::byte* scales;  // 64 in binary16; null: to sums. Blocks are as far apart as codes
  float* y;                 // (n_blocks, 64)
  const std::byte* next;    // codes that are read after these, fetched meanwhile
};
void vbmi_look_up(const VqLookUp& args);

}  // namespace assay::kernels
