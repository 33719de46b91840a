#include <algorithm>
#include <span>

#include "base/check.h"
#include "engine/comm/comm.h"
#include "engine/comm/meeting.h"

namespace assay::engine {
namespace {

struct Shared {
  explicit Shared(int n)
      : meeting(n), values(static_cast<std::size_t>(n)), rows(static_cast<std::size_t>(n)) {}
  Meeting meeting;
  // By rank: what is being added up, or gathered.
  std::vector<float*> values;
  std::vector<std::span<const float* const>> rows;
};

class ThreadComm final : public Comm {
 public:
  ThreadComm(int rank, std::shared_ptr<Shared> shared) : rank_(rank), shared_(std::move(shared)) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(shared_->values.size()); }
  void enter() override {}
  void meet() override { shared_->meeting.meet(); }
  bool agree(bool yes) override { return shared_->meeting.agree(rank_, yes); }
  void reserve(std::size_t) override {}

  // Each rank adds up its share of the elements, for all.
  void sum(float* values, std::size_t n, kernels::CudaStream stream) override {
    CHECK(stream == nullptr) << "these ranks have no device";
    const auto rank = static_cast<std::size_t>(rank_);
    std::vector<float*>& of_rank = shared_->values;
    of_rank[rank] = values;
    meet();
    for (std::size_t i = n * rank / of_rank.size(); i < n * (rank + 1) / of_rank.size(); ++i) {
      float total = of_rank[0][i];
      for (std::size_t r = 1; r < of_rank.size(); ++r) total += of_rank[r][i];
      for (float* v : of_rank) v[i] = total;
    }
    meet();
  }

  void gather(std::span<const float* const> rows, std::span<const int> cuts, float* whole,
              kernels::CudaStream stream) override {
    CHECK(stream == nullptr) << "these ranks have no device";
    shared_->rows[static_cast<std::size_t>(rank_)] = rows;
    meet();
    for (std::size_t r = 0; rank_ == 0 && r < shared_->rows.size(); ++r)
      for (std::size_t i = 0; i < rows.size(); ++i)
        std::copy_n(shared_->rows[r][i], part_width(cuts, static_cast<int>(r)),
                    whole + i * static_cast<std::size_t>(cuts.back()) + cuts[r]);
    meet();
  }

 private:
  const int rank_;
  const std::shared_ptr<Shared> shared_;
};

}  // namespace

Result<Comms> new_thread_comms(int n_ranks) {
  CHECK(n_ranks > 0) << n_ranks;
  const auto shared = std::make_shared<Shared>(n_ranks);
  Comms comms;
  for (int r = 0; r < n_ranks; ++r) comms.push_back(std::make_unique<ThreadComm>(r, shared));
  return comms;
}

}  // namespace assay::engine
