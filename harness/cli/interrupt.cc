#include "harness/cli/interrupt.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <utility>

#include "harness/cli/verb.h"

namespace assay::cli {
namespace {

std::atomic<bool> is_interrupted = false;  // set by a signal, read by any thread
static_assert(std::atomic<bool>::is_always_lock_free);

void on_interrupt(int signal) {
  is_interrupted = true;
  std::signal(signal, SIG_DFL);
}

std::atomic<const EndAtInterrupt::Last*> last = nullptr;
static_assert(std::atomic<const EndAtInterrupt::Last*>::is_always_lock_free);

// Nothing but what a signal's handler may call.
void end_now(int) {
  if (const EndAtInterrupt::Last* l = last) {
    for (const std::string& file : l->half_written) unlink(file.c_str());
    [[maybe_unused]] const auto n = write(STDERR_FILENO, l->words.data(), l->words.size());
  }
  _exit(kInterrupted);
}

}  // namespace

void watch_interrupts() {
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
}

bool interrupted() { return is_interrupted; }

EndAtInterrupt::EndAtInterrupt(std::string words,
                               const std::vector<std::filesystem::path>& half_written)
    : last_{std::move(words), {}} {
  for (const std::filesystem::path& file : half_written)
    last_.half_written.push_back(file.string());
  last = &last_;
  std::signal(SIGINT, end_now);
  std::signal(SIGTERM, end_now);
}

EndAtInterrupt::~EndAtInterrupt() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  last = nullptr;
}

}  // namespace assay::cli
