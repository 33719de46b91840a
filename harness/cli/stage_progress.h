// What assay quantize says while it works: how far it is, in layers where it goes by layers, and
// how long it will take once that can be known.
#pragma once

#include <array>
#include <string>
#include <string_view>

namespace assay::cli {

class StageProgress {
 public:
  // Of the model: layers 0 to n_dense - 1 have no experts, and take another time than the rest.
  StageProgress(int n_layers, int n_dense) : n_layers_(n_layers), n_dense_(n_dense) {}

  // The line that is due at now_s since the beginning, or "": one for every stage, every other
  // second, and for every layer that is encoded. Encoding counts every round's layers, and after
  // them what is in no layer.
  std::string line(std::string_view stage, int done, int total, double now_s);

 private:
  enum Kind { kDense, kSparse, kEnds, kKinds };

  bool goes_by_layers() const;
  Kind kind_of(int piece) const;
  std::string done_text(int done, int total) const;
  std::string left(int done, int total, double now_s) const;
  std::string left_by_layers(int done, int total) const;

  int n_layers_, n_dense_;
  std::string stage_;
  double begun_s_ = 0, shown_s_ = -1, piece_begun_s_ = 0;
  std::array<double, kKinds> piece_s_{};  // of the last piece of each kind; 0: not known
  int first_ = 0, done_ = 0;
};

}  // namespace assay::cli
