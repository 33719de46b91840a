#include "engine/backend/cuda_scratch.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "kernels/indexer_cuda.h"
#include "kernels/mla_attention_cuda.h"

namespace assay::engine {
namespace {

constexpr int kLeastKeys = 256;                        // that scratch and launches are made for
constexpr std::size_t kScores = std::size_t{1} << 26;  // 256 MiB, where rows are many

bool scores_keys(const ModelConfig& c, const StepLimits& limits, int max_keys) {
  return limits.sparse && max_keys > c.index_topk;
}

// At least a decode step's, and a run's.
int score_rows_of(const ModelConfig& c, const StepLimits& limits, int max_keys) {
  const auto affordable = static_cast<int>(kScores / static_cast<std::size_t>(max_keys));
  return std::min(limits.n_rows,
                  std::max({affordable, limits.n_sequences,
                            kernels::index_rows_of_run(std::max(1, c.index_n_heads))}));
}

std::size_t area(int rows, int width) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(width);
}

}  // namespace

int CudaScratch::bucket(int n_keys) {
  return static_cast<int>(std::bit_ceil(static_cast<unsigned>(std::max(n_keys, kLeastKeys))));
}

CudaScratch::CudaScratch(const CudaModel& m, const StepLimits& limits, kernels::CudaStream stream,
                         kernels::DeviceBudget& budget)
    : max_keys(bucket(limits.n_positions)),
      score_rows(score_rows_of(m.c, limits, max_keys)),
      products(m, limits.n_rows, stream, budget) {
  const ModelConfig& c = m.c;
  const auto rows = [&](int width) { return area(limits.n_rows, width); };
  for (int a = 0; a < kNumActs; ++a)
    acts[static_cast<std::size_t>(a)] =
        budget.array<float>(rows(act_width(static_cast<Act>(a), c)));
  const int k = c.n_experts_per_token;
  for (auto& [array, width] :
       {std::pair{&absorbed, c.n_heads * c.kv_row()}, std::pair{&latent, c.n_heads * c.kv_lora},
        std::pair{&router_logits, c.n_experts}, std::pair{&expert_weight, k},
        std::pair{&routing_margin, 1}, std::pair{&selection_margin, 1},
        std::pair{&index_q, c.index_n_heads * c.index_head_dim},
        std::pair{&index_weights, c.index_n_heads}, std::pair{&index_k, c.index_head_dim}})
    *array = budget.array<float>(rows(width));
  for (auto& [array, width] :
       {std::pair{&expert, k}, std::pair{&selected, c.index_topk}, std::pair{&n_selected, 1}})
    *array = budget.array<int>(rows(width));
  if (scores_keys(c, limits, max_keys)) scores = budget.array<float>(area(score_rows, max_keys));
  const int attended = limits.sparse ? std::min(max_keys, c.index_topk) : max_keys,
            rows_of_run = limits.sparse ? 1 : kernels::mla_rows_of_run(c.n_heads);
  attention_parts = budget.array<float>(kernels::mla_most_parts(
      limits.n_rows, rows_of_run, c.n_heads, c.kv_lora, c.qk_rope, attended));
  logits = budget.array<float>(area(limits.n_sequences, c.vocab));
  if (c.n_sampled() > 0) sampler.emplace(c.n_sampled(), limits.n_sequences, budget);
  if (c.n_sampled() > c.vocab)
    gathered_logits = budget.array<float>(area(limits.n_sequences, c.n_sampled()));
  // Two tables of pointers, two of angles, positions, tokens and two of runs, of which the index's
  // may have two values a row, each aligned.
  upload.reserve(2 * sizeof(float*) * rows(c.n_layers) + sizeof(float) * rows(c.qk_rope) +
                     5 * sizeof(int) * (rows(1) + 1) + 8 * std::size_t{16},
                 budget);
}

}  // namespace assay::engine
