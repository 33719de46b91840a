#include "harness/cli/stage_progress.h"

#include <fmt/format.h>

#include <algorithm>

namespace assay::cli {
namespace {

// "1:05", "2:13:20".
std::string clock_text(double seconds) {
  const auto s = static_cast<long>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

}  // namespace

bool StageProgress::goes_by_layers() const {
  constexpr std::array kStages = {"focus", "statistics", "kept", "kept layers", "encoding"};
  return std::find(kStages.begin(), kStages.end(), stage_) != kStages.end();
}

StageProgress::Kind StageProgress::kind_of(int piece) const {
  const int layer = piece % (n_layers_ + 1);
  return layer == n_layers_ ? kEnds : layer < n_dense_ ? kDense : kSparse;
}

// "2 of 7 layers done", as an interrupted run and whoever opens its folder say it.
std::string StageProgress::done_text(int done, int total) const {
  if (!goes_by_layers()) return fmt::format("{}/{} done", done, total);
  const int n_rounds = std::max(1, total / (n_layers_ + 1));
  const int round = std::min(done / (n_layers_ + 1), n_rounds - 1);
  const int n_done = done - round * (n_layers_ + 1);
  return fmt::format("{} of {} layers done{}{}", std::min(n_done, n_layers_), n_layers_,
                     n_rounds > 1 ? fmt::format(" in round {} of {}", round + 1, n_rounds) : "",
                     n_done > n_layers_ ? ", and what is in no layer" : "");
}

// The last piece of a kind says what the next will take. Nothing is said before there was one of
// each kind that is left; but what is in no layer counts for nothing until it was seen, which is
// little beside layers of experts.
std::string StageProgress::left_by_layers(int done, int total) const {
  double left_s = 0;
  for (int piece = done; piece < total; ++piece) {
    const Kind kind = kind_of(piece);
    if (piece_s_[kind] == 0 && kind != kEnds) return "";
    left_s += piece_s_[kind];
  }
  return left_s == 0 ? ""
                     : fmt::format("  about {} {}", clock_text(left_s),
                                   stage_ == "encoding" ? "to the end" : "for this stage");
}

std::string StageProgress::left(int done, int total, double now_s) const {
  if (done == first_ || done == total) return "";
  if (goes_by_layers()) return left_by_layers(done, total);
  return fmt::format("  about {} for this stage",
                     clock_text((now_s - begun_s_) / (done - first_) * (total - done)));
}

std::string StageProgress::line(std::string_view stage, int done, int total, double now_s) {
  const bool is_new = stage != stage_;
  if (is_new) {
    stage_ = stage;
    begun_s_ = piece_begun_s_ = now_s;
    piece_s_ = {};
    first_ = done_ = done;
  }
  if (goes_by_layers() && done > done_) {
    piece_s_[kind_of(done_)] = (now_s - piece_begun_s_) / (done - done_);
    piece_begun_s_ = now_s;
  }
  const bool is_encoded = stage_ == "encoding" && done > done_;
  done_ = done;
  if (!is_new && !is_encoded && done < total && now_s - shown_s_ < 2) return "";
  shown_s_ = now_s;
  return fmt::format("{:<12} {}  {:.0f} s{}\n", stage, done_text(done, total), now_s,
                     left(done, total, now_s));
}

}  // namespace assay::cli
