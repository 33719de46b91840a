// A codebook as blocks of columns see it. In a column sweep the error of codeword c in block b is
// |y − scale · c R_bb|² with y = w R_bb + s: R_bb is the factor's own block, s what errors to the
// left do (column_sweep.h).
#pragma once

#include <vector>

#include "base/thread_pool.h"
#include "engine/quantize/codebook.h"
#include "engine/quantize/column_sweep.h"
#include "engine/quantize/hessian.h"

namespace assay::engine {

class BlockTables {
 public:
  // Without a factor, as without feedback: R_bb is the identity, and s is not asked for.
  BlockTables(const Codebook& book, const HessianFactor* factor, ThreadPool& pool)
      : book_(book), factor_(factor), pool_(pool) {}

  // Tables of the blocks from column `first` to before `end`; those of before are gone.
  void prepare(int first, int end);
  // (n_codes, dim + 1) of the block that begins at `col`: c R_bb and half of its squared norm, what
  // nearest_codewords searches.
  const float* at(int col) const;
  // y (dim, ColumnSweep::kLanes) of a block.
  void targets(const ColumnSweep::Block& b, float* y) const;

 private:
  void fill(int col, float* table) const;

  const Codebook& book_;
  const HessianFactor* factor_;
  ThreadPool& pool_;
  int first_col_ = 0;
  std::vector<float> tables_;
};

}  // namespace assay::engine
