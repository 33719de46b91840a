// Who has which tokens of a fixed room: sequences' caches, each of one piece. Numbers only; the
// memory is somebody else's (cuda_cache.h).
#pragma once

#include <map>
#include <optional>
#include <vector>

namespace assay::engine {

class ExtentPool {
 public:
  explicit ExtentPool(int n_tokens) : size_(n_tokens), n_free_(n_tokens) {}

  int size() const { return size_; }
  int n_free() const { return n_free_; }  // all holes together

  // The first hole of n > 0 tokens: where it begins; none is as large: nothing.
  std::optional<int> take(int n);
  void give_back(int first);

  struct Move {
    int from, to, n;  // to < from; the two may overlap
  };
  // Closes the holes, so that the next take succeeds if n_free is enough. What it returns has to be
  // carried out in that order.
  std::vector<Move> compact();

 private:
  const int size_;
  int n_free_;
  std::map<int, int> taken_;  // first token → tokens
};

}  // namespace assay::engine
