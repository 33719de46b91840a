#include "engine/backend/cpu_backend.h"

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "engine/comm/comm.h"
#include "kernels/norm.h"
#include "kernels/project.h"

namespace assay::engine {
namespace {

// Handing a loop to the other threads costs about a microsecond: some 30,000 multiply-adds.
constexpr std::int64_t kMinParallelWork = 30'000;
// Tokens of one work item: two register tiles of AVX-512, four of AVX2.
constexpr int kTokensPerItem = 24;
// Weights of one work item: they stay in a core's second-level cache while tokens pass by.
constexpr std::size_t kWeightBytesPerItem = 384 << 10;

int ceil_div(int a, int b) { return (a + b - 1) / b; }

}  // namespace

CpuBackend::CpuBackend(std::shared_ptr<const CpuModel> model, int n_threads)
    : model_(std::move(model)),
      m_(*model_),
      c_(m_.config),
      pool_(n_threads),
      slots_(static_cast<std::size_t>(pool_.n_threads())) {
  for (Slot& slot : slots_) slot.vq.reserve(kernels::vq_scratch());
}

std::unique_ptr<KvCache> CpuBackend::new_cache(int) { return std::make_unique<CpuCache>(c_); }

void CpuBackend::begin_step(const StepRows& rows) {
  rows_ = rows;
  n_ = rows.n_rows();
  const auto n = static_cast<std::size_t>(n_);
  for (int a = 0; a < kNumActs; ++a)
    acts_[a].reserve(n * static_cast<std::size_t>(act_width(static_cast<Act>(a), c_)));
  cache_of_.resize(n);
  position_of_.resize(n);
  for (const Segment& s : rows_.segments) {
    auto* cache = static_cast<CpuCache*>(s.cache);
    CHECK(cache->n_tokens() == s.first_position) << cache->n_tokens() << " " << s.first_position;
    cache->reserve(s.first_position + s.n_rows);
    for (int i = 0; i < s.n_rows; ++i) {
      cache_of_[s.first_row + i] = cache;
      position_of_[s.first_row + i] = s.first_position + i;
    }
  }
  const int half = c_.qk_rope / 2;
  cosine_.reserve(n * static_cast<std::size_t>(half));
  sine_.reserve(n * static_cast<std::size_t>(half));
  constexpr int kRows = 64;
  pool_.parallel_for(ceil_div(n_, kRows), [&](int i) {
    for (int r = i * kRows; r < std::min(n_, (i + 1) * kRows); ++r)
      m_.rope.angles(position_of_[r], &cosine_[static_cast<std::size_t>(r) * half],
                     &sine_[static_cast<std::size_t>(r) * half]);
  });
}

void CpuBackend::end_step() {
  for (const Segment& s : rows_.segments)
    static_cast<CpuCache*>(s.cache)->set_n_tokens(s.first_position + s.n_rows);
}

void CpuBackend::clear_residual() {
  std::fill_n(act(Act::kResidual, 0), static_cast<std::ptrdiff_t>(n_) * c_.hidden, 0.0f);
}

void CpuBackend::sum_residual(Comm& comm) {
  comm.sum(act(Act::kResidual, 0),
           static_cast<std::size_t>(n_) * static_cast<std::size_t>(c_.hidden), nullptr);
}

void CpuBackend::embed() {
  for (int r = 0; r < n_; ++r) {
    const std::int64_t first = static_cast<std::int64_t>(rows_.tokens[r]) * c_.hidden;
    float* out = act(Act::kResidual, r);
    for (int i = 0; i < c_.hidden; ++i) out[i] = kernels::weight_at(m_.embed, first + i);
  }
}

void CpuBackend::rms_norm(int layer, Norm norm, Act in, Act out) {
  const std::vector<float>& weight = norm == Norm::kFinal   ? m_.final_norm
                                     : norm == Norm::kInput ? m_.layers[layer].input_norm
                                     : norm == Norm::kQueryLora
                                         ? m_.layers[layer].q_a_norm
                                         : m_.layers[layer].post_attention_norm;
  if (out == Act::kNormed) kv_a_ready_ = -1;
  const float eps = norm == Norm::kQueryLora ? ModelConfig::kLoraRmsEps : c_.rms_eps;
  const int width = act_width(in, c_);
  constexpr int kRows = 64;
  pool_.parallel_for(ceil_div(n_, kRows), [&](int i) {
    for (int r = i * kRows; r < std::min(n_, (i + 1) * kRows); ++r)
      kernels::rms_norm_cpu(m_.target, act(in, r), weight.data(), eps, width, act(out, r));
  });
}

const CpuMatrix& CpuBackend::matrix(int layer, Projection p) const {
  const CpuLayer& l = m_.layers[layer];
  return p == Projection::kQueryA   ? l.q_a
         : p == Projection::kQueryB ? l.q_b
         : p == Projection::kKvA    ? l.kv_a
                                    : l.o;
}

void CpuBackend::project(int layer, Projection p, Act in, Act out) {
  // One token: kKvA reads what kQueryA reads, and a loop of its own would cost as much as its work.
  if (n_ == 1 && in == Act::kNormed && p == Projection::kQueryA && out == Act::kQueryLora) {
    multiply_two(matrix(layer, p), act(out, 0), matrix(layer, Projection::kKvA),
                 act(Act::kKvLora, 0), act(in, 0));
    kv_a_ready_ = layer;
    return;
  }
  if (p == Projection::kKvA && kv_a_ready_ == layer && out == Act::kKvLora) {
    kv_a_ready_ = -1;
    return;
  }
  project_rows(matrix(layer, p), act(in, 0), act_width(in, c_), act(out, 0), act_width(out, c_),
               false);
}

void CpuBackend::project_add(int layer, Projection p, Act in, Act out) {
  project_rows(matrix(layer, p), act(in, 0), act_width(in, c_), act(out, 0), act_width(out, c_),
               true);
}

void CpuBackend::project_rows(const CpuMatrix& w, const float* x, int x_stride, float* y,
                              int y_stride, bool accumulate) {
  x_rows_.resize(static_cast<std::size_t>(n_));
  y_rows_.resize(static_cast<std::size_t>(n_));
  for (int r = 0; r < n_; ++r) {
    x_rows_[r] = x + static_cast<std::ptrdiff_t>(r) * x_stride;
    y_rows_[r] = y + static_cast<std::ptrdiff_t>(r) * y_stride;
  }
  multiply(w, x_rows_.data(), y_rows_.data(), n_, accumulate);
}

void CpuBackend::multiply(const CpuMatrix& w, const float* const* x, float* const* y, int n_tokens,
                          bool accumulate) {
  const int n_blocks = w.n_blocks(), n_threads = pool_.n_threads();
  const std::int64_t work = static_cast<std::int64_t>(n_tokens) * w.n_rows() * w.n_cols();
  int n_token_parts = 1, n_block_parts = 1;
  if (n_threads > 1 && work >= kMinParallelWork) {
    n_token_parts = ceil_div(n_tokens, kTokensPerItem);
    n_block_parts = static_cast<int>((w.bytes() + kWeightBytesPerItem - 1) / kWeightBytesPerItem);
    if (n_token_parts < 2 * n_threads) {
      // Few tokens: threads share out the rows. A large matrix is cut finer, so that a thread that
      // was interrupted holds up little.
      const int per_thread = n_blocks >= 32 * n_threads ? 4 : 1;
      n_block_parts = std::max(n_block_parts, per_thread * n_threads);
    }
    n_block_parts = std::min(n_block_parts, ceil_div(n_blocks, w.group_blocks()));
  }
  // Parts begin at whole groups of blocks, which the kernel reads as one stream.
  const auto cut = [&](int b) {
    const int group = w.group_blocks();
    return std::min(n_blocks, ceil_div(n_blocks, group) * b / n_block_parts * group);
  };
  for_each(n_token_parts * n_block_parts, [&](Slot& slot, int i) {
    const int b = i / n_token_parts, t = i % n_token_parts;
    const int first = n_tokens * t / n_token_parts, last = n_tokens * (t + 1) / n_token_parts;
    w.multiply(m_.target, {.x = x + first,
                           .y = y + first,
                           .n_tokens = last - first,
                           .first_block = cut(b),
                           .last_block = cut(b + 1),
                           .accumulate = accumulate,
                           .scratch = slot.vq.data()});
  });
}

void CpuBackend::multiply_two(const CpuMatrix& a, float* y_a, const CpuMatrix& b, float* y_b,
                              const float* x) {
  // Whole groups of blocks to each thread, as even as they go.
  const int groups_a = ceil_div(a.n_blocks(), a.group_blocks());
  const int groups_b = ceil_div(b.n_blocks(), b.group_blocks());
  const int n_groups = groups_a + groups_b, parts = std::min(n_groups, pool_.n_threads());
  for_each(parts, [&](Slot& slot, int i) {
    const int first = n_groups * i / parts, last = n_groups * (i + 1) / parts;
    const auto run = [&](const CpuMatrix& w, float* y, int from, int to) {
      const int group = w.group_blocks(), end = std::min(to * group, w.n_blocks());
      if (from * group < end)
        w.multiply(m_.target, {.x = &x,
                               .y = &y,
                               .n_tokens = 1,
                               .first_block = from * group,
                               .last_block = end,
                               .accumulate = false,
                               .scratch = slot.vq.data()});
    };
    run(a, y_a, std::min(first, groups_a), std::min(last, groups_a));
    run(b, y_b, std::max(first - groups_a, 0), std::max(last - groups_a, 0));
  });
}

void CpuBackend::logits(std::span<const int> rows, std::span<float> out) {
  CHECK(out.size() == rows.size() * static_cast<std::size_t>(c_.vocab)) << out.size();
  if (rows.empty()) return;
  x_rows_.resize(rows.size());
  y_rows_.resize(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    x_rows_[i] = act(Act::kFinal, rows[i]);
    y_rows_[i] = out.data() + i * static_cast<std::size_t>(c_.vocab);
  }
  multiply(m_.lm_head, x_rows_.data(), y_rows_.data(), static_cast<int>(rows.size()), false);
}

void CpuBackend::set_residual(std::span<const float> rows) {
  CHECK(rows.size() == static_cast<std::size_t>(n_) * static_cast<std::size_t>(c_.hidden))
      << rows.size();
  std::copy(rows.begin(), rows.end(), act(Act::kResidual, 0));
}

std::vector<float> CpuBackend::read(Act a) const {
  const float* data = acts_[static_cast<int>(a)].data();
  return {data, data + static_cast<std::ptrdiff_t>(n_) * act_width(a, c_)};
}

Routing CpuBackend::read_routing() const {
  return {.expert = expert_, .weight = weight_, .margin = route_margin_};
}

Selection CpuBackend::read_selection() const {
  Selection s;
  s.margin = selection_margin_;
  for (std::size_t r = 0; r < n_selected_.size(); ++r) {
    std::vector<int> keys;
    if (n_selected_[r] == kAll) {
      for (int p = 0; p <= position_of_[r]; ++p) keys.push_back(p);
    } else {
      const int* first = selected_.data() + r * static_cast<std::size_t>(c_.index_topk);
      keys.assign(first, first + n_selected_[r]);
    }
    s.keys.push_back(std::move(keys));
  }
  return s;
}

}  // namespace assay::engine
