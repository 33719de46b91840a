#include "engine/backend/backend.h"

#include "base/check.h"
#include "engine/comm/comm.h"

namespace assay::engine {

void sample_on_host(Backend& backend, int vocab, std::span<const int> rows,
                    std::span<const SampleRequest> requests, std::span<Sampled> out) {
  CHECK(requests.size() == rows.size() && out.size() == rows.size())
      << rows.size() << " rows, " << requests.size() << " requests, room for " << out.size();
  const auto n = static_cast<std::size_t>(vocab);
  std::vector<float> logits(rows.size() * n);
  backend.logits(rows, logits);
  for (std::size_t i = 0; i < rows.size(); ++i)
    out[i] = sample(std::span(logits).subspan(i * n, n), requests[i]);
}

void sample_of_ranks_on_host(Backend& backend, Comm& comm, std::span<const int> vocab_cuts,
                             std::span<const int> rows, std::span<const SampleRequest> requests,
                             std::span<Sampled> out) {
  const int rank = comm.rank();
  const auto n = part_width(vocab_cuts, rank), vocab = static_cast<std::size_t>(vocab_cuts.back());
  std::vector<float> part(rows.size() * n), whole(rank == 0 ? rows.size() * vocab : 0);
  backend.logits(rows, part);
  std::vector<const float*> part_rows;
  for (std::size_t i = 0; i < rows.size(); ++i) part_rows.push_back(part.data() + i * n);
  comm.gather(part_rows, vocab_cuts, rank == 0 ? whole.data() : nullptr, nullptr);
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = sample(std::span(whole).subspan(i * vocab, vocab), requests[i]);
}

}  // namespace assay::engine
