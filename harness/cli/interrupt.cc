#include "harness/cli/interrupt.h"

#include <atomic>
#include <csignal>

namespace assay::cli {
namespace {

std::atomic<bool> is_interrupted = false;  // set by a signal, read by any thread
static_assert(std::atomic<bool>::is_always_lock_free);

void on_interrupt(int signal) {
  is_interrupted = true;
  std::signal(signal, SIG_DFL);
}

}  // namespace

void watch_interrupts() {
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
}

bool interrupted() { return is_interrupted; }

}  // namespace assay::cli
