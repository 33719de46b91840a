#include "harness/cli/stage_progress.h"

#include <fmt/format.h>

namespace assay::cli {
namespace {

// "1:05", "2:13:20".
std::string clock_text(double seconds) {
  const auto s = static_cast<long>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

}  // namespace

// The stages before know nothing of what encoding takes. Within it the layer just done says more
// than the mean of all: the first ones have no experts and take a fraction of the others' time.
// What follows encoding is a matter of seconds.
std::string StageProgress::left(int done, int total, double now_s) const {
  if (done == first_ || done == total) return "";
  if (stage_ == "encoding")
    return fmt::format("  about {} to the end", clock_text(last_piece_s_ * (total - done)));
  return fmt::format("  eta of this stage {}",
                     clock_text((now_s - begun_s_) / (done - first_) * (total - done)));
}

std::string StageProgress::line(std::string_view stage, int done, int total, double now_s) {
  const bool is_new = stage != stage_;
  if (is_new) {
    stage_ = stage;
    begun_s_ = piece_begun_s_ = now_s;
    first_ = done_ = done;
  }
  const bool is_piece = stage_ == "encoding" && done > done_;
  if (is_piece) {
    last_piece_s_ = (now_s - piece_begun_s_) / (done - done_);
    piece_begun_s_ = now_s;
  }
  done_ = done;
  if (!is_new && !is_piece && done < total && now_s - shown_s_ < 2) return "";
  shown_s_ = now_s;
  return fmt::format("{:<12} {}/{} done  {:.0f} s{}\n", stage, done, total, now_s,
                     left(done, total, now_s));
}

}  // namespace assay::cli
