// Tokens to rows of the embedding on a GPU: other tokens with every launch, of the whole table.
// Copies, so the result is the table's to the bit.
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/bench/cuda_registry.h"
#include "kernels/bench/model_bench_data.h"
#include "kernels/bench/spine_bench_data.cuh"
#include "kernels/layer_cuda.h"

namespace assay::kernels {
namespace {

struct Embedding {
  explicit Embedding(const BenchModel& m)
      : host(spine_matrix("bf16", m.vocab, m.hidden)), table(host.upload(memory)) {}
  const HostMatrix& host;
  DeviceWeights memory;
  DeviceMatrix table;
};

void embed_on(benchmark::State& state, const BenchModel& m, int n_rows) {
  const Embedding& e = kept<Embedding>(m.name, [&] { return std::make_unique<Embedding>(m); });
  const double bytes = static_cast<double>(n_rows) * (m.hidden * (2.0 + 4.0) + 4.0);
  const int n_copies = n_cold_copies(bytes);
  std::vector<int> tokens;
  for (std::size_t i = 0; i < area(n_copies, n_rows); ++i)
    tokens.push_back(static_cast<int>(uniform_at(1, 0, i) * m.vocab));
  const DeviceArray<int> d_tokens(tokens);
  const Copies<float> out(poison(area(n_rows, m.hidden)), n_copies);
  const auto launch = [&](int i, CudaStream stream) {
    embed_cuda(e.table, d_tokens.data() + area(i, n_rows), n_rows, out.at(i), stream);
  };
  const auto is_right = [&](int i) {
    launch(i, nullptr);
    const std::vector<float> got = out.host(i, area(n_rows, m.hidden));
    for (int r = 0; r < n_rows; ++r)
      for (int c = 0; c < m.hidden; ++c)
        if (!(static_cast<double>(got[area(r, m.hidden) + static_cast<std::size_t>(c)]) ==
              e.host.at(tokens[area(i, n_rows) + static_cast<std::size_t>(r)], c)))
          return false;
    return true;
  };
  if (!is_right(0) || !is_right(n_copies - 1)) {
    state.SkipWithError("wrong result");
    return;
  }
  time_launches(state, n_copies, bytes, 0, launch);
}

}  // namespace

void register_embed_cuda_benchmarks() { add_for_models("embed_cuda", embed_on); }

}  // namespace assay::kernels
