#include "engine/comm/rank_group.h"

#include "base/check.h"

namespace assay::engine {
namespace {

std::mutex one_at_a_time;

}  // namespace

std::unique_lock<std::mutex> no_work_of_ranks() { return std::unique_lock(one_at_a_time); }

RankGroup::RankGroup(Comms comms) : comms_(std::move(comms)) {
  for (std::size_t r = 0; r < comms_.size(); ++r) threads_.emplace_back([this, r] { serve(r); });
}

RankGroup::~RankGroup() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  for (std::thread& t : threads_) t.join();
}

void RankGroup::run(const std::function<void(Comm&)>& work) {
  const auto alone = no_work_of_ranks();
  std::unique_lock lock(mutex_);
  work_ = &work;
  n_busy_ = size();
  ++generation_;
  changed_.notify_all();
  changed_.wait(lock, [&] { return n_busy_ == 0; });
}

void RankGroup::serve(std::size_t rank) {
  comms_[rank]->enter();
  std::unique_lock lock(mutex_);
  for (int seen = 0;;) {
    changed_.wait(lock, [&] { return ends_ || generation_ != seen; });
    if (ends_) break;
    seen = generation_;
    const std::function<void(Comm&)>& work = *work_;
    lock.unlock();
    work(*comms_[rank]);
    lock.lock();
    if (--n_busy_ == 0) changed_.notify_all();
  }
  lock.unlock();
  comms_[rank].reset();  // where its device is, and all at once: NCCL may wait for the others
}

}  // namespace assay::engine
