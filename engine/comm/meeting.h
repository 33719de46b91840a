// Where the threads of several ranks meet.
#pragma once

#include <algorithm>
#include <barrier>
#include <vector>

namespace assay::engine {

class Meeting {
 public:
  explicit Meeting(int n) : barrier_(n), said_(static_cast<std::size_t>(n)) {}

  void meet() { barrier_.arrive_and_wait(); }
  // Whether all said yes.
  bool agree(int rank, bool yes) {
    said_[static_cast<std::size_t>(rank)] = yes ? 1 : 0;
    meet();
    const bool all = std::all_of(said_.begin(), said_.end(), [](char s) { return s != 0; });
    meet();  // everyone has read
    return all;
  }

 private:
  std::barrier<> barrier_;
  std::vector<char> said_;  // by rank
};

}  // namespace assay::engine
