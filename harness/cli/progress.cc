#include "harness/cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/plural.h"
#include "harness/cli/say.h"

namespace assay::cli {
namespace {

constexpr double kPlainEvery_s = 5;

std::string clock_text(double seconds) {
  const long s = static_cast<long>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

}  // namespace

std::string progress_text(const harness::Progress& p, int width) {
  std::string out;
  if (width > 0) {
    const int filled = p.n_total == 0 ? width : width * p.n_done / p.n_total;
    out = fmt::format("[{}{}]  ", std::string(static_cast<std::size_t>(filled), '#'),
                      std::string(static_cast<std::size_t>(width - filled), '.'));
  }
  out += fmt::format("{}/{}", p.n_done, counted(p.n_total, "sample"));
  if (p.n_earlier > 0) out += fmt::format(" ({} from before)", p.n_earlier);
  if (p.elapsed_s > 0 && p.n_tokens > 0)  // some count samples only
    out += fmt::format("  {:.0f} tok/s", static_cast<double>(p.n_tokens) / p.elapsed_s);
  const int n_new = p.n_done - p.n_earlier;
  if (p.finished) {
    out += fmt::format("  in {}", clock_text(p.elapsed_s));
  } else if (n_new > 0) {
    out += fmt::format("  eta {}", clock_text(p.elapsed_s * (p.n_total - p.n_done) / n_new));
  }
  return out;
}

ProgressPrinter::ProgressPrinter() : terminal_(::isatty(STDERR_FILENO) != 0) {}

void ProgressPrinter::show(const harness::Progress& progress) {
  if (terminal_) {
    say("\r\x1b[K{}{}", progress_text(progress, 30), progress.finished ? "\n" : "");
  } else if (progress.finished || progress.elapsed_s - last_s_ >= kPlainEvery_s) {
    say("{}\n", progress_text(progress, 0));
    last_s_ = progress.elapsed_s;
  }
  std::fflush(stderr);
}

Bar::Bar(const std::string& what) { say("{}\n", what); }

void Bar::show(int n_done, int n_total) {
  progress_.n_done = n_done;
  progress_.n_total = n_total;
  progress_.elapsed_s =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  progress_.finished = n_done == n_total;
  printer_.show(progress_);
}

}  // namespace assay::cli
