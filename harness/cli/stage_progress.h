// What assay quantize says while it works: a stage's own pace, and once a layer is encoded, about
// when all is done.
#pragma once

#include <string>
#include <string_view>

namespace assay::cli {

class StageProgress {
 public:
  // The line that is due at now_s since the beginning, or "": one for every stage, every other
  // second, and for every layer that is encoded.
  std::string line(std::string_view stage, int done, int total, double now_s);

 private:
  std::string left(int done, int total, double now_s) const;

  std::string stage_;
  double begun_s_ = 0, shown_s_ = -1, piece_begun_s_ = 0, last_piece_s_ = 0;
  int first_ = 0, done_ = 0;
};

}  // namespace assay::cli
