// Of a GPU's memory, what a model's plan promises to executors that are not made yet: the driver
// calls it free, so another model's plan has to be told.
#pragma once

#include <cstddef>
#include <functional>

#include "base/result.h"
#include "engine/backend/memory_plan.h"

namespace assay::engine {

// A model's, on its device. What it promises is given back with it. From any thread.
class MemoryPromise {
 public:
  explicit MemoryPromise(int device);
  ~MemoryPromise();
  MemoryPromise(const MemoryPromise&) = delete;
  MemoryPromise& operator=(const MemoryPromise&) = delete;

  // What `plan` returns is promised, instead of what was before; it is given what other models'
  // executors will still take of the device. One plan at a time in this process.
  using Planner = std::function<Result<MemoryPlan>(std::size_t promised_bytes)>;
  Result<MemoryPlan> plan(const Planner& plan);
  // All that is promised on a device, for a model that has no plan yet.
  static std::size_t bytes_on(int device);

  // Held by an executor while it has its memory: that is no promise any more.
  class Kept {
   public:
    explicit Kept(MemoryPromise& promise);
    ~Kept();
    Kept(const Kept&) = delete;
    Kept& operator=(const Kept&) = delete;

   private:
    MemoryPromise& promise_;
  };

 private:
  std::size_t bytes() const;
  static std::size_t bytes_on(int device, const MemoryPromise* except);

  const int device_;
  MemoryPlan plan_;
  int n_kept_ = 0;
};

}  // namespace assay::engine
