// Rotary position embedding, interleaved pairs (2i, 2i+1) (Su et al. 2021; transformers'
// glm_moe_dsa). The rotated pair stays in place; transformers stores evens then odds, which changes
// no dot product.
#pragma once

#include <vector>

namespace assay::kernels {

// cos and sin of position * theta^(-2i/dim), i in [0, dim/2), with the angle rounded to float32 as
// the reference implementation has it. The same table serves every backend.
class RopeTable {
 public:
  RopeTable(double theta, int dim);
  void angles(int position, float* cosine, float* sine) const;  // (dim / 2) each
  int dim() const { return dim_; }

 private:
  int dim_;
  std::vector<float> inverse_frequency_;
};

// Rotates x (dim) in place. `interleaved` false rotates the pairs (i, i + dim/2) instead.
void rope_reference(const float* cosine, const float* sine, int dim, bool interleaved, float* x);
// In float32: a product, a product, a sum; no instruction set changes a bit of that.
void rope_cpu(const float* cosine, const float* sine, int dim, bool interleaved, float* x);

}  // namespace assay::kernels
