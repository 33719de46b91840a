#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cuda_check.cuh"
#include "kernels/elementary.h"
#include "kernels/sample_cuda.h"
#include "kernels/sample_draw.cuh"
#include "kernels/step_upload.h"

namespace assay::kernels {
using namespace sampling;
namespace {

// Of each chunk: is it finite, its likeliest token after the penalty, its n_top largest logits.
__global__ void scan_chunks(Rows r, Scratch s) {
  const Row row(r, blockIdx.y);
  const size_t chunk = static_cast<size_t>(blockIdx.y) * r.n_chunks + blockIdx.x;
  Key key[kOwn];  // all different; 0: none
  Candidate best = nobody();
  int finite = 1;
  for (int o = 0; o < kOwn; ++o) {
    const int id = own_id(o);
    key[o] = 0;
    if (id >= r.vocab) continue;
    const float logit = row.logits[id];
    if (!isfinite(logit)) finite = 0;
    key[o] = static_cast<Key>(ordered(logit)) << 32 | ~static_cast<unsigned>(id);
    const Candidate own = row.candidate(id);
    if (is_likelier(own, best)) best = own;
  }
  finite = __syncthreads_and(finite);
  best = block_best(best);
  if (threadIdx.x == 0) {
    s.finite[chunk] = finite;
    s.best[chunk] = best;
  }
  Key last = ~Key{0};
  for (int k = 0; k < max(row.q.n_top, 1); ++k) {
    Key own = 0;
    for (const Key v : key)
      if (v < last && v > own) own = v;
    last = block_max(own);
    if (threadIdx.x == 0) s.top[chunk * kMaxTop + k] = last;
  }
}

__global__ void sum_chunks(Rows r, Scratch s) {
  const Row row(r, blockIdx.y);
  const double largest = largest_logit(r, s, blockIdx.y);
  double sum = 0;
  for (int o = 0; o < kOwn; ++o)
    if (const int id = own_id(o); id < r.vocab)
      sum += exp_f64(static_cast<double>(row.logits[id]) - largest);
  sum = block_sum(sum);
  if (threadIdx.x == 0) s.sum[static_cast<size_t>(blockIdx.y) * r.n_chunks + blockIdx.x] = sum;
}

// What a row's chunks found, and its draw if it has one, in one answer.
__global__ void finish_rows(Rows r, Scratch s, const Cut* cut, const double* place) {
  const Row row(r, blockIdx.x);
  const RowRequest& q = row.q;
  RowResult& out = s.result[blockIdx.x];
  const int t = threadIdx.x;
  const bool has_chunk = t < r.n_chunks;
  const size_t chunk = static_cast<size_t>(blockIdx.x) * r.n_chunks + t;
  if (!__syncthreads_and(!has_chunk || s.finite[chunk])) {
    if (t == 0) out.id = -1;
    return;
  }
  const double largest = largest_logit(r, s, blockIdx.x);
  const double logsumexp = largest + log_f64(block_sum(has_chunk ? s.sum[chunk] : 0.0));
  const auto logprob = [=](float logit) {
    return static_cast<float>(static_cast<double>(logit) - logsumexp);
  };

  // Chunks' lists merge: each thread holds the first two of what is left of its own.
  const auto of_list = [&](int i) {
    return has_chunk && i < q.n_top ? s.top[chunk * kMaxTop + i] : Key{0};
  };
  Key head = of_list(0), next = of_list(1);
  for (int k = 0, i = 1; k < q.n_top; ++k) {
    const Key largest_left = block_max(head);
    if (t == 0) {
      out.top_id[k] = static_cast<int>(~static_cast<unsigned>(largest_left));
      out.top_logprob[k] = logprob(float_of_ordered(static_cast<unsigned>(largest_left >> 32)));
    }
    if (head == largest_left) {
      head = next;
      next = of_list(++i);
    }
  }
  if (t < q.n_watched)
    out.watched[t] =
        static_cast<float>(exp_f64(static_cast<double>(row.logits[q.watched[t]]) - logsumexp));

  const Candidate best = likeliest(r, s, blockIdx.x);
  const int id = q.draw < 0 ? best.id : cut[q.draw].taken;
  if (t == 0) {
    out.id = id;
    out.logprob = logprob(row.logits[id]);
  }
  if (q.draw < 0) return;
  const size_t of_draw = static_cast<size_t>(q.draw) * r.n_chunks + t;
  for (int k = 0; k < kPlaceSums; ++k) {
    const double sum = block_sum(has_chunk ? place[of_draw * kPlaceSums + k] : 0.0);
    if (t == 0) out.place[k] = sum;
  }
  if (t == 0) out.exponent = (row.penalised(id) - best.logit) / q.temperature;
}

// Whether the token can be drawn goes by its own rank, weight and what is above it, not by where
// the sampler's filters cut.
DrawPlace place_of(const RowResult& result, const RowRequest& q) {
  DrawPlace out;
  out.exponent = result.exponent;
  out.weight = exp_f64(result.exponent);
  out.above = result.place[kAbove];
  out.total = result.place[kTotal];
  for (std::size_t k = 0; k < out.of_power.size(); ++k)
    out.of_power[k] = result.place[static_cast<std::size_t>(kFirstPower) + k];
  const double enough = q.top_p * result.place[kPool];
  const bool is_near =
                 out.exponent > -kDrawFarBelow && (q.top_k <= 0 || result.place[kRank] < q.top_k),
             passes = (q.top_p >= 1 || out.above < enough) && out.weight >= q.min_p;
  out.is_kept = is_near && (result.place[kRank] == 0 || passes);
  // Only what a filter that is on left out can be so by rounding.
  out.at_edge =
      is_near && ((q.top_p < 1 && std::abs(out.above - enough) < kDrawEdge * result.place[kPool]) ||
                  (q.min_p > 0 && std::abs(out.weight - q.min_p) < kDrawEdge));
  return out;
}

}  // namespace

struct CudaSampler::Impl {
  Impl(int n_tokens, std::size_t max_rows, DeviceBudget& budget)
      : vocab(n_tokens),
        n_chunks((n_tokens + kChunk - 1) / kChunk),
        capacity(max_rows),
        rows{.vocab = n_tokens,
             .n_chunks = n_chunks,
             .seen_words = static_cast<int>(n_seen_words(n_tokens))},
        drawer(n_tokens, max_rows, budget) {
    const std::size_t chunks = max_rows * static_cast<std::size_t>(n_chunks);
    top = budget.array<Key>(chunks * kMaxTop);
    best = budget.array<Candidate>(chunks);
    finite = budget.array<int>(chunks);
    sum = budget.array<double>(chunks);
    result = budget.array<RowResult>(max_rows);
    upload.reserve(StepUpload::padded<RowRequest>(max_rows) + StepUpload::padded<int>(max_rows) +
                       StepUpload::padded<std::uint32_t>(max_rows * n_seen_words(vocab)),
                   budget);
    if (!budget.allocates()) return;
    // All of it is copied down, also what a row was not asked for.
    const std::vector<RowResult> nothing(max_rows);
    copy_to_device(result.data(), nothing.data(), max_rows * sizeof(RowResult), nullptr);
    answers = PinnedBytes(max_rows * sizeof(RowResult));
  }

  Scratch scratch() const {
    return {.top = top.data(),
            .best = best.data(),
            .finite = finite.data(),
            .sum = sum.data(),
            .result = result.data()};
  }

  const int vocab, n_chunks;
  const std::size_t capacity;
  Rows rows{};
  StepUpload upload;
  std::span<const RowRequest> asked;  // as uploaded
  std::span<const int> drawing;
  DeviceArray<Key> top;
  DeviceArray<Candidate> best;
  DeviceArray<int> finite;
  DeviceArray<double> sum;
  DeviceArray<RowResult> result;
  PinnedBytes answers;
  RowDrawer drawer;
};

CudaSampler::CudaSampler(int vocab, int max_rows, DeviceBudget& budget) {
  CHECK(vocab > 0 && vocab <= kMaxVocabCuda && max_rows > 0) << vocab << ", " << max_rows;
  impl_ = std::make_unique<Impl>(vocab, static_cast<std::size_t>(max_rows), budget);
}
CudaSampler::~CudaSampler() = default;

void CudaSampler::prepare(std::span<const SampleRequest> requests, std::span<const int> rows,
                          CudaStream stream) {
  Impl& m = *impl_;
  CHECK(rows.empty() || rows.size() == requests.size()) << rows.size();
  const std::size_t n = requests.size(), words = n_seen_words(m.vocab);
  CHECK(n > 0 && n <= m.capacity) << n << " of " << m.capacity;
  m.upload.clear();
  const auto asked = m.upload.add(n, m.rows.request);
  const bool any_penalty = std::any_of(requests.begin(), requests.end(), [](const auto& request) {
    return request.params.repetition_penalty != 1;
  });
  const auto seen = m.upload.add(any_penalty ? n * words : 0, m.rows.seen);
  const auto drawing = m.upload.add(n, m.rows.drawing);
  int n_draws = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const SampleRequest& request = requests[i];
    const SamplingParams& p = request.params;
    CHECK(request.n_top <= kMaxTop && request.watched.size() <= std::size_t{kMaxWatched})
        << request.n_top << ", " << request.watched.size();
    asked[i] = {.temperature = p.temperature,
                .top_p = p.top_p,
                .min_p = p.min_p,
                .penalty = p.repetition_penalty,
                .seed = request.key.seed,
                .stream = request.key.stream,
                .position = request.key.position,
                .top_k = p.top_k,
                .n_top = std::min(request.n_top, m.vocab),
                .n_watched = static_cast<int>(request.watched.size()),
                .draw = p.temperature == 0 ? -1 : n_draws,
                .logits_row = rows.empty() ? static_cast<int>(i) : rows[i]};
    std::copy(request.watched.begin(), request.watched.end(), asked[i].watched);
    if (p.repetition_penalty != 1) mark_seen(request.history, m.vocab, &seen[i * words]);
    if (p.temperature != 0) drawing[static_cast<std::size_t>(n_draws++)] = static_cast<int>(i);
  }
  m.asked = asked;
  m.drawing = drawing.first(static_cast<std::size_t>(n_draws));
  m.upload.send(stream);
}

void CudaSampler::launch(const float* logits, CudaStream stream) {
  Impl& m = *impl_;
  m.rows.logits = logits;
  const Rows r = m.rows;
  const Scratch s = m.scratch();
  const int n = static_cast<int>(m.asked.size());
  scan_chunks<<<dim3(m.n_chunks, n), kThreads, 0, stream>>>(r, s);
  CUDA_CHECK(cudaGetLastError()) << n << " rows of " << m.vocab;
  sum_chunks<<<dim3(m.n_chunks, n), kThreads, 0, stream>>>(r, s);
  CUDA_CHECK(cudaGetLastError()) << n << " rows of " << m.vocab;
  m.drawer.launch(r, s, m.asked, m.drawing, stream);
  finish_rows<<<n, kThreads, 0, stream>>>(r, s, m.drawer.cut(), m.drawer.place());
  CUDA_CHECK(cudaGetLastError()) << n << " rows of " << m.vocab;
  copy_to_host_later(m.answers, s.result, static_cast<std::size_t>(n) * sizeof(RowResult), stream);
}

void CudaSampler::collect(std::span<Sampled> out) const {
  const Impl& m = *impl_;
  CHECK(out.size() == m.asked.size()) << out.size() << " of " << m.asked.size();
  const auto* answers = reinterpret_cast<const RowResult*>(m.answers.data());
  for (std::size_t i = 0; i < out.size(); ++i) {
    const RowResult& answer = answers[i];
    const RowRequest& q = m.asked[i];
    out[i] = {};
    if (answer.id < 0) continue;
    out[i].id = answer.id;
    out[i].logprob = answer.logprob;
    for (int k = 0; k < q.n_top; ++k)
      out[i].top.emplace_back(answer.top_id[k], answer.top_logprob[k]);
    out[i].watched_probability.assign(answer.watched, answer.watched + q.n_watched);
    if (q.draw >= 0) out[i].place = place_of(answer, q);
  }
}

}  // namespace assay::kernels
