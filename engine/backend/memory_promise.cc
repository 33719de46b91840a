#include "engine/backend/memory_promise.h"

#include <algorithm>
#include <mutex>
#include <set>

namespace assay::engine {
namespace {

// Of the process, because its models share the devices.
std::mutex mutex;
std::set<const MemoryPromise*>& all() {
  static std::set<const MemoryPromise*> promises;
  return promises;
}

}  // namespace

MemoryPromise::MemoryPromise(int device) : device_(device) {
  const std::lock_guard lock(mutex);
  all().insert(this);
}

MemoryPromise::~MemoryPromise() {
  const std::lock_guard lock(mutex);
  all().erase(this);
}

std::size_t MemoryPromise::bytes() const {
  if (!plan_.is_planned()) return 0;
  return static_cast<std::size_t>(std::max(0, plan_.n_executors - n_kept_)) *
         plan_.executor_bytes();
}

std::size_t MemoryPromise::bytes_on(int device, const MemoryPromise* except) {
  std::size_t total = 0;
  for (const MemoryPromise* p : all())
    if (p != except && p->device_ == device) total += p->bytes();
  return total;
}

std::size_t MemoryPromise::bytes_on(int device) {
  const std::lock_guard lock(mutex);
  return bytes_on(device, nullptr);
}

Result<MemoryPlan> MemoryPromise::plan(const Planner& plan) {
  const std::lock_guard lock(mutex);
  ASSAY_TRY(plan_, plan(bytes_on(device_, this)));
  return plan_;
}

MemoryPromise::Kept::Kept(MemoryPromise& promise) : promise_(promise) {
  const std::lock_guard lock(mutex);
  ++promise_.n_kept_;
}

MemoryPromise::Kept::~Kept() {
  const std::lock_guard lock(mutex);
  --promise_.n_kept_;
}

}  // namespace assay::engine
