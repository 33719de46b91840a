#include "engine/backend/backend.h"

#include "base/check.h"

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

}  // namespace assay::engine
