// Samples of rows of logits on a GPU. sample.h is the definition; here sums are trees and prefix
// sums over chunks of the vocabulary (of the sorted vocabulary, where tokens are drawn), fixed by
// the vocabulary alone: a row's bits do not depend on what shares its batch. exp, log and the
// uniform number are the host's own code, so every term has the host's bits, and only sums round
// differently: by less than n_terms · 2^-53 of their size. A token can differ from the host's only
// where u, or a filter's limit, lies so near the edge of its interval.
#pragma once

#include <memory>
#include <span>

#include "kernels/cuda_memory.h"
#include "kernels/sample.h"

namespace assay::kernels {

inline constexpr int kMaxVocabCuda = 524288;

// Not thread-safe; one per stream.
class CudaSampler {
 public:
  // Of at most max_rows rows at a time. All memory is taken here; a budget that only counts makes
  // one that cannot sample.
  CudaSampler(int vocab, int max_rows, DeviceBudget& budget);  // vocab: at most kMaxVocabCuda
  ~CudaSampler();

  // Puts requests into device memory, from pinned memory. `rows`: of `launch`'s logits, one for
  // each; none: one behind the other.
  void prepare(std::span<const SampleRequest> requests, std::span<const int> rows,
               CudaStream stream);
  // logits: (rows, vocab) in device memory. Kernels and one copy down; nothing waits, so
  // it can be recorded.
  void launch(const float* logits, CudaStream stream);
  // The answers, once the stream has passed `launch`.
  void collect(std::span<Sampled> out) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace assay::kernels
