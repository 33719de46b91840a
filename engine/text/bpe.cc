#include "engine/text/bpe.h"

#include <queue>
#include <tuple>

namespace assay::text {

void Bpe::encode(std::string_view bytes, std::vector<int>* ids) const {
  struct Symbol {
    int id, previous, next;  // a doubly linked list over the word
  };
  struct Candidate {
    int rank, left, left_id, right_id, result;
    bool operator>(const Candidate& o) const {
      return std::tie(rank, left) > std::tie(o.rank, o.left);
    }
  };
  const int n = static_cast<int>(bytes.size());
  std::vector<Symbol> symbols(bytes.size());
  for (int i = 0; i < n; ++i)
    symbols[i] = {byte_id[static_cast<unsigned char>(bytes[i])], i - 1, i + 1 < n ? i + 1 : -1};

  // A heap of possible merges: a word of n bytes costs n log n, however long a run of letters a
  // prompt may hold.
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap;
  const auto consider = [&](int left) {
    if (left < 0 || symbols[left].next < 0) return;
    const int a = symbols[left].id, b = symbols[symbols[left].next].id;
    if (const auto it = merges.find(key(a, b)); it != merges.end())
      heap.push({it->second.rank, left, a, b, it->second.result});
  };
  for (int i = 0; i + 1 < n; ++i) consider(i);
  while (!heap.empty()) {
    const Candidate c = heap.top();
    heap.pop();
    Symbol& left = symbols[c.left];
    // Stale: one of the two has merged with something else since.
    if (left.id != c.left_id || left.next < 0 || symbols[left.next].id != c.right_id) continue;
    Symbol& right = symbols[left.next];
    left.id = c.result;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = c.left;
    consider(left.previous);
    consider(c.left);
  }
  for (int i = 0; i >= 0 && i < n; i = symbols[i].next) ids->push_back(symbols[i].id);
}

}  // namespace assay::text
