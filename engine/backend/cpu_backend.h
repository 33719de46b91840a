// The executor of the cpu backend: an activation buffer per role, scratch per thread, one pool.
//
// Every output element is computed by one fixed chain of operations, whoever computes it, so how
// work is shared out below changes the speed and never a bit.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "engine/backend/act_width.h"
#include "engine/backend/backend.h"
#include "engine/backend/cpu_cache.h"
#include "engine/backend/cpu_model.h"
#include "kernels/aligned_array.h"
#include "kernels/indexer.h"
#include "kernels/mla_attention.h"

namespace assay::engine {

class CpuBackend final : public Backend {
 public:
  CpuBackend(std::shared_ptr<const CpuModel> model, int n_threads);

  std::unique_ptr<KvCache> new_cache(int n_tokens) override;
  void begin_step(const StepRows& rows) override;
  void embed() override;
  void set_residual(std::span<const float> rows) override;
  void rms_norm(int layer, Norm norm, Act in, Act out) override;
  void project(int layer, Projection projection, Act in, Act out) override;
  void project_add(int layer, Projection projection, Act in, Act out) override;
  void append_kv(int layer) override;
  void index(int layer) override;
  void mla_attention(int layer, bool sparse) override;
  void mlp(int layer) override;
  void route(int layer) override;
  void moe(int layer) override;
  void logits(std::span<const int> rows, std::span<float> out) override;
  void sample(std::span<const int> rows, std::span<const SampleRequest> requests,
              std::span<Sampled> out) override {
    sample_on_host(*this, c_.vocab, rows, requests, out);
  }
  void clear_residual() override;
  void sum_residual(Comm& comm) override;
  void sample_of_ranks(Comm& comm, std::span<const int> vocab_cuts, std::span<const int> rows,
                       std::span<const SampleRequest> requests, std::span<Sampled> out) override {
    sample_of_ranks_on_host(*this, comm, vocab_cuts, rows, requests, out);
  }
  void end_step() override;
  std::vector<float> read(Act act) const override;
  Routing read_routing() const override;
  Selection read_selection() const override;

 private:
  using Floats = kernels::AlignedArray<float>;

  // Queries that share a pass over the keys: consecutive rows of one sequence on all their keys, or
  // one row on its selection.
  struct MlaTile {
    int first_row, n_rows;
    int first_head, n_heads;
    const int* keys = nullptr;  // (n_keys) positions, or nullptr: 0 … the row's own position
    int n_keys = 0;             // of the last row
    int first_work = 0;         // where its blocks begin in block_work_
    int n_pairs() const { return n_rows * n_heads; }
    bool by_key() const { return n_rows == 1 && keys == nullptr; }  // lanes are keys, not pairs
    int n_blocks() const { return (n_keys + kernels::kMlaKeyBlock - 1) / kernels::kMlaKeyBlock; }
  };
  struct MlaScratch {
    int n_lanes = 0;
    Floats absorbed;    // (pairs, kv_row)
    Floats transposed;  // (kv_row, lanes)
    Floats softmax;     // max and sum: (2, lanes)
    Floats latent;      // (pairs, stride)
    kernels::MlaState state();
    Floats block;                // one block's scores
    std::vector<int> n_visible;  // (lanes): of one block's keys
  };
  // A piece of work: some tokens through one expert (or the shared one).
  struct ExpertTile {
    const CpuMlp* mlp;
    int first, n;  // in expert_pairs_
  };
  // What one thread works in.
  struct Slot {
    MlaScratch mla;
    Floats gate_up, hidden, scores;
    Floats vq;  // kernels::vq_scratch()
    kernels::TopKSelector top_k;
    std::vector<const float*> x;
    std::vector<float*> y;
    std::vector<kernels::VqProduct> products;
  };

  // body(slot, item) for every item; a slot is used by one thread at a time.
  template <class Body>
  void for_each(int n_items, const Body& body) {
    const int n_slots = static_cast<int>(slots_.size());
    if (n_slots == 1 || n_items <= 1) {
      for (int i = 0; i < n_items; ++i) body(slots_[0], i);
      return;
    }
    if (n_items <= n_slots) {
      pool_.parallel_for(n_items, [&](int i) { body(slots_[i], i); });
      return;
    }
    std::atomic<int> next{0};
    pool_.parallel_for(n_slots, [&](int s) {
      for (int i = next.fetch_add(1, std::memory_order_relaxed); i < n_items;
           i = next.fetch_add(1, std::memory_order_relaxed))
        body(slots_[s], i);
    });
  }

  float* act(Act a, int row) {
    return acts_[static_cast<int>(a)].data() + static_cast<std::ptrdiff_t>(row) * act_width(a, c_);
  }
  void rotate(int row, bool interleaved, float* x) const;
  void project_rows(const CpuMatrix& w, const float* x, int x_stride, float* y, int y_stride,
                    bool accumulate);
  // Single-token products that read the same input, in one parallel loop.
  void multiply_two(const CpuMatrix& a, float* y_a, const CpuMatrix& b, float* y_b, const float* x);
  void multiply(const CpuMatrix& w, const float* const* x, float* const* y, int n_tokens,
                bool accumulate);
  const CpuMatrix& matrix(int layer, Projection p) const;

  void plan_mla_tiles(bool sparse);
  void prepare_queries(const CpuLayer& layer, const MlaTile& tile, MlaScratch& scratch);
  void attend_block(int layer, const MlaTile& tile, int block, bool first,
                    const MlaScratch& queries, const kernels::MlaState& state, MlaScratch& own);
  void attend_by_block(int layer);
  void write_values(const CpuLayer& layer, const MlaTile& tile, MlaScratch& scratch);

  void append_index_keys(int layer);
  void score_and_select(Slot& slot, int layer, int first_row, int n_rows);

  void one_row_moe(const CpuLayer& layer);
  void one_row_coded_moe(const CpuLayer& layer);
  void many_rows_moe(const CpuLayer& layer, int first_row, int n_rows);
  void run_expert_tile(Slot& slot, const ExpertTile& tile, int first_row);
  void hidden_of(Slot& slot, const CpuMlp& mlp, const float* const* x, int n_tokens, int unit,
                 int end, float* hidden, std::ptrdiff_t stride);
  void coded_hidden_of(Slot& slot, const CpuMlp& mlp, const float* const* x, int n_tokens, int unit,
                       int end, float* hidden, std::ptrdiff_t stride);

  const std::shared_ptr<const CpuModel> model_;
  const CpuModel& m_;
  const ModelConfig& c_;
  ThreadPool pool_;
  std::vector<Slot> slots_;

  StepRows rows_;
  int n_ = 0;
  std::array<Floats, kNumActs> acts_;
  std::vector<CpuCache*> cache_of_;
  std::vector<int> position_of_;
  int kv_a_ready_ = -1;   // layer whose kKvLora was computed along with kQueryLora
  Floats cosine_, sine_;  // (n_rows, qk_rope / 2)
  std::vector<const float*> x_rows_;
  std::vector<float*> y_rows_;

  std::vector<MlaTile> tiles_;
  std::vector<MlaScratch> tile_scratch_;         // where several threads share a tile
  std::vector<std::pair<int, int>> block_work_;  // (tile, block)
  Floats partials_;

  Floats index_q_, index_k_, index_weights_;
  std::vector<int> selected_;    // (n_rows, index_topk)
  std::vector<int> n_selected_;  // (n_rows); kAll: every key up to the row's position
  std::vector<float> selection_margin_;
  static constexpr int kAll = -1;

  Floats router_logits_;
  std::vector<int> expert_;  // (n_rows, top_k)
  std::vector<float> weight_, route_margin_;
  std::vector<int> expert_pairs_;  // row * (top_k + 1) + k, grouped by expert; k = top_k: shared
  std::vector<ExpertTile> expert_tiles_;
  Floats expert_hidden_, expert_out_;
};

}  // namespace assay::engine
