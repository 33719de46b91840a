#include "harness/cli/interrupt.h"

#include <csignal>

namespace assay::cli {
namespace {

volatile std::sig_atomic_t interrupt_signal = 0;

void on_interrupt(int signal) {
  interrupt_signal = 1;
  std::signal(signal, SIG_DFL);
}

}  // namespace

void watch_interrupts() {
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
}

bool interrupted() { return interrupt_signal != 0; }

}  // namespace assay::cli
