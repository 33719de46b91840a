// A weight matrix in device memory: dense, or as its codes. Every kind is one matrix to a kernel,
// so that a layer may mix them per expert and projection.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/cuda_memory.h"
#include "kernels/dtype.h"
#include "kernels/gptq_units.h"
#include "kernels/quantised.h"
#include "kernels/upload_ring.h"
#include "kernels/vq_units.h"

namespace assay::kernels {

struct DeviceMatrix {
  enum class Kind { kBf16, kF16, kF32, kVq, kGptq, kFp8 };
  Kind kind = Kind::kBf16;
  int n_rows = 0, n_cols = 0;
  // Dense and FP8: (n_rows, n_cols). VQ: (n_rows, row_words) words of the index stream, or units
  // with their scales (vq_units.h). GPTQ: units (gptq_units.h), which have the scales too, or where
  // the shape allows none (n_rows, row_words), transposed from the file, so that a row's values
  // follow each other. gptq_row.cuh reads both.
  const void* values = nullptr;
  // VQ: binary16 (n_rows, n_groups). GPTQ in rows: float (n_rows, n_groups, 2), a scale and
  // 2^23 + z + 1. FP8: float, square blocks.
  const void* scales = nullptr;
  const float* codebook = nullptr;                        // VQ: (n_books, n_codes, dim)
  const void* codebook_f16 = nullptr;                     // the same values, binary16
  int dim = 0, n_codes = 0, index_bits = 0, n_books = 1;  // VQ
  UnitForm units;                                         // VQ: how units are made, if it is
  int bits = 0, lane_shift = -1;                          // GPTQ: 4 or 8; GptqUnits', or -1
  int group = 0, n_groups = 0, row_words = 0;

  constexpr bool in_units() const { return lane_shift >= 0; }
};

// One of the products of an x that share a launch: y (n_tokens, y_stride) = x matrixᵀ.
struct DeviceProduct {
  const DeviceMatrix* matrix;
  float* y;
  int y_stride;
};
inline constexpr int kMostProducts = 4;

// How a matrix lies on a device; `keep` copies bytes to where they stay. Codebooks are not set.
using KeepBytes = std::function<const void*(const void* from, std::size_t n_bytes)>;
DeviceMatrix lay_out(const WeightMatrix& w, const KeepBytes& keep);
DeviceMatrix lay_out(const VqMatrix& w, const KeepBytes& keep);
DeviceMatrix lay_out(const VqMatrix& w, const UnitForm& units, ThreadPool& pool,
                     const KeepBytes& keep);
DeviceMatrix lay_out(const ScaledMatrix& w, ThreadPool& pool, const KeepBytes& keep);
// What `keep` is given, in bytes; of units: unit_bytes.
std::size_t device_bytes(const WeightMatrix& w);
std::size_t device_bytes(const VqMatrix& w);
std::size_t device_bytes(const ScaledMatrix& w);

// Uploads matrices and owns their memory. A codebook is uploaded once, however many matrices share
// it.
class DeviceWeights {
 public:
  // Each matrix in memory of its own, there when add returns.
  DeviceWeights() = default;
  // A model's, about expected_bytes together: one piece of memory, filled through an UploadRing,
  // and there once finish has returned.
  explicit DeviceWeights(std::size_t expected_bytes);
  void finish();
  // What `add` takes beside the bytes themselves, at most, because each begins at a multiple.
  static constexpr std::size_t kAlignment = 256;

  DeviceMatrix add(const WeightMatrix& w);
  DeviceMatrix add(const VqMatrix& w);
  DeviceMatrix add(const VqMatrix& w, const UnitForm& units);
  // A layer's experts: each is packed by one thread, many at a time.
  struct ToUnits {
    const VqMatrix* matrix;
    UnitForm units;
  };
  std::vector<DeviceMatrix> add(std::span<const ToUnits> matrices);
  DeviceMatrix add(const ScaledMatrix& w);
  const float* add(const std::vector<float>& values);
  template <class T>
  const T* add_array(const std::vector<T>& values) {
    return static_cast<const T*>(upload(values.data(), values.size() * sizeof(T)));
  }
  std::size_t bytes() const { return n_bytes_; }
  ThreadPool& pool();  // that lays matrices out, until finish

 private:
  const void* upload(const void* host, std::size_t n_bytes);
  KeepBytes uploaded() {
    return [this](const void* host, std::size_t n_bytes) { return upload(host, n_bytes); };
  }
  void* take(std::size_t n_bytes);
  DeviceMatrix with_codebook(DeviceMatrix m, const VqMatrix& w);

  std::vector<DeviceBytes> owned_;
  std::size_t expected_ = 0, used_ = 0;  // used: of the last of owned_
  std::unique_ptr<UploadRing> ring_;     // until finish
  std::unique_ptr<ThreadPool> pool_;     // likewise, once it is asked for
  struct Codebook {
    const float *host, *device;
    const void* device_f16;
  };
  std::vector<Codebook> codebooks_;
  std::size_t n_bytes_ = 0;
};

}  // namespace assay::kernels
