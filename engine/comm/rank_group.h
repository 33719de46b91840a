// The ranks of a tensor-parallel model that are in this process: a thread each, for as long as the
// model lives, so that each keeps its device and what it records there.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/comm/comm.h"

namespace assay::engine {

// One work of a RankGroup is done at a time, in the whole process; who holds this keeps all away.
std::unique_lock<std::mutex> no_work_of_ranks();

class RankGroup {
 public:
  explicit RankGroup(Comms comms);  // each is dropped on its rank's thread, at the end
  ~RankGroup();
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;

  int size() const { return static_cast<int>(comms_.size()); }

  // work(comm) on every rank's own thread; returns when all are done. One work at a time, whoever
  // asks, of all groups of this process, which may have the same devices: others wait. So sums of
  // two callers never mix, and nothing is allocated on a device while a sum waits there for its
  // peers. Work must not run work.
  void run(const std::function<void(Comm&)>& work);

 private:
  void serve(std::size_t rank);

  Comms comms_;
  std::mutex mutex_;
  std::condition_variable changed_;
  const std::function<void(Comm&)>* work_ = nullptr;
  int generation_ = 0, n_busy_ = 0;
  bool ends_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace assay::engine
