// Which of a step's rows have logits in a device's scratch, and where: rows that are asked for
// twice, for the host and for a sample, are multiplied once. Numbers only; the scratch is somebody
// else's (cuda_scratch.h).
#pragma once

#include <span>
#include <vector>

namespace assay::engine {

class LogitPlaces {
 public:
  explicit LogitPlaces(int n_places) : row_at_(static_cast<std::size_t>(n_places), kNobody) {}

  void clear();  // another step's rows are others

  // Rows `row`, `row` + 1, … whose logits are to be made at `place`, `place` + 1, …
  struct Missing {
    int row, place, n;
  };
  // A place for each of the rows, all different and no more than there are places. Those that are
  // there stay, the others take the first that are left; what has to be made is added to `missing`.
  std::vector<int> put(std::span<const int> rows, std::vector<Missing>& missing);

 private:
  static constexpr int kNobody = -1;
  std::vector<int> row_at_;  // (n_places)
};

}  // namespace assay::engine
