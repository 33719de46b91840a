// What of the error that the plan predicts, with nearest codewords, is left once feedback, beam and
// descent are done.
#pragma once

#include <array>
#include <vector>

namespace assay::engine {

struct Kept {
  // By projection and tier. Of a layer without experts: empty.
  using OfLayer = std::array<std::vector<double>, 3>;
  std::vector<OfLayer> share;  // (n_layers); empty: not measured, the recipe's figures hold
  OfLayer all;                 // of all layers together
};

}  // namespace assay::engine
