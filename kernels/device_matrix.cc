#include "kernels/device_matrix.h"

#include <cuda_fp16.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace assay::kernels {

DeviceMatrix lay_out(const WeightMatrix& w, const KeepBytes& keep) {
  DeviceMatrix m;
  m.kind = w.type == WeightType::kBf16  ? DeviceMatrix::Kind::kBf16
           : w.type == WeightType::kF16 ? DeviceMatrix::Kind::kF16
                                        : DeviceMatrix::Kind::kF32;
  m.n_rows = w.n_rows;
  m.n_cols = w.n_cols;
  const std::size_t size = w.type == WeightType::kF32 ? 4 : 2;
  m.values =
      keep(w.data, size * static_cast<std::size_t>(w.n_rows) * static_cast<std::size_t>(w.n_cols));
  return m;
}

DeviceMatrix lay_out(const VqMatrix& w, const KeepBytes& keep) {
  DeviceMatrix m;
  m.kind = DeviceMatrix::Kind::kVq;
  m.n_rows = w.n_rows;
  m.n_cols = w.n_cols;
  m.dim = w.dim;
  m.n_codes = w.n_codes;
  m.index_bits = w.index_bits;
  m.n_books = w.n_books;
  m.group = w.group;
  m.n_groups = w.n_groups();
  m.row_words = w.row_words();
  const auto rows = static_cast<std::size_t>(w.n_rows);
  m.values = keep(w.codes, 4 * rows * static_cast<std::size_t>(m.row_words));
  m.scales = keep(w.scales, 2 * rows * static_cast<std::size_t>(m.n_groups));
  return m;
}

DeviceMatrix lay_out(const ScaledMatrix& w, const KeepBytes& keep) {
  DeviceMatrix m;
  m.n_rows = w.n_rows;
  m.n_cols = w.n_cols;
  m.group = w.group;
  m.n_groups = w.n_groups();
  const auto rows = static_cast<std::size_t>(w.n_rows), cols = static_cast<std::size_t>(w.n_cols),
             groups = static_cast<std::size_t>(m.n_groups);
  if (w.kind == ScaledMatrix::Kind::kFp8E4m3) {
    m.kind = DeviceMatrix::Kind::kFp8;
    m.values = keep(w.values, rows * cols);
    const std::size_t row_blocks =
        (rows + static_cast<std::size_t>(w.group) - 1) / static_cast<std::size_t>(w.group);
    m.scales = keep(w.scales, 4 * row_blocks * groups);
    return m;
  }
  m.kind = DeviceMatrix::Kind::kGptq;
  m.bits = w.kind == ScaledMatrix::Kind::kGptq4 ? 4 : 8;
  const auto per_word = static_cast<std::size_t>(32 / m.bits);
  const std::size_t words = (cols + per_word - 1) / per_word,
                    zero_words = (rows + per_word - 1) / per_word;
  const std::uint32_t mask = (1u << m.bits) - 1;
  const auto word_at = [](const std::byte* data, std::size_t i) {
    std::uint32_t word;
    std::memcpy(&word, data + 4 * i, 4);
    return word;
  };
  std::vector<std::uint32_t> values(rows * words);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t i = 0; i < words; ++i) values[r * words + i] = word_at(w.values, i * rows + r);
  std::vector<float> scales(rows * groups * 2);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t g = 0; g < groups; ++g) {
      std::uint16_t half;
      std::memcpy(&half, w.scales + 2 * (g * rows + r), 2);
      scales[(r * groups + g) * 2] = f16_to_f32(half);
      const std::uint32_t word = word_at(w.zeros, g * zero_words + r / per_word);
      const std::uint32_t zero =
          word >> (static_cast<unsigned>(m.bits) * static_cast<unsigned>(r % per_word)) & mask;
      scales[(r * groups + g) * 2 + 1] = 0x1p23f + static_cast<float>(zero + 1);
    }
  m.row_words = static_cast<int>(words);
  m.values = keep(values.data(), values.size() * sizeof(std::uint32_t));
  m.scales = keep(scales.data(), scales.size() * sizeof(float));
  return m;
}

std::size_t device_bytes(const WeightMatrix& w) {
  return (w.type == WeightType::kF32 ? 4 : 2) * static_cast<std::size_t>(w.n_rows) *
         static_cast<std::size_t>(w.n_cols);
}
std::size_t device_bytes(const VqMatrix& w) {
  return static_cast<std::size_t>(w.n_rows) *
         static_cast<std::size_t>(4 * w.row_words() + 2 * w.n_groups());
}
std::size_t device_bytes(const ScaledMatrix& w) {
  const auto rows = static_cast<std::size_t>(w.n_rows), cols = static_cast<std::size_t>(w.n_cols),
             groups = static_cast<std::size_t>(w.n_groups()),
             group = static_cast<std::size_t>(w.group);
  if (w.kind == ScaledMatrix::Kind::kFp8E4m3)
    return rows * cols + 4 * ((rows + group - 1) / group) * groups;
  const std::size_t per_word = w.kind == ScaledMatrix::Kind::kGptq4 ? 8 : 4;
  return 4 * rows * ((cols + per_word - 1) / per_word) + 8 * rows * groups;
}

DeviceWeights::DeviceWeights(std::size_t expected_bytes)
    : expected_(expected_bytes), ring_(std::make_unique<UploadRing>(expected_bytes)) {
  CHECK(expected_bytes > 0);
}

void DeviceWeights::finish() {
  CHECK(ring_ != nullptr) << "matrices were added one by one";
  ring_->finish();
  ring_.reset();
}

// What exceeds the expectation gets further pieces.
void* DeviceWeights::take(std::size_t n_bytes) {
  constexpr std::size_t kFurther = std::size_t{16} << 20;
  if (owned_.empty() || owned_.back().size() - used_ < n_bytes) {
    const std::size_t piece = expected_ == 0 ? 0 : owned_.empty() ? expected_ : kFurther;
    owned_.emplace_back(std::max(n_bytes, piece));
    used_ = 0;
  }
  void* out = static_cast<std::byte*>(owned_.back().data()) + used_;
  used_ =
      std::min(owned_.back().size(), used_ + (n_bytes + kAlignment - 1) / kAlignment * kAlignment);
  return out;
}

const void* DeviceWeights::upload(const void* host, std::size_t n_bytes) {
  CHECK(expected_ == 0 || ring_ != nullptr) << "after finish";
  if (n_bytes == 0) return nullptr;
  void* device = take(n_bytes);
  if (ring_ != nullptr)
    ring_->copy(device, host, n_bytes);
  else
    copy_to_device(device, host, n_bytes, nullptr);
  n_bytes_ += n_bytes;
  return device;
}

const float* DeviceWeights::add(const std::vector<float>& values) { return add_array(values); }

DeviceMatrix DeviceWeights::add(const WeightMatrix& w) { return lay_out(w, uploaded()); }
DeviceMatrix DeviceWeights::add(const ScaledMatrix& w) { return lay_out(w, uploaded()); }

DeviceMatrix DeviceWeights::add(const VqMatrix& w) {
  DeviceMatrix m = lay_out(w, uploaded());
  auto known = std::find_if(codebooks_.begin(), codebooks_.end(),
                            [&](const Codebook& c) { return c.host == w.codebook; });
  if (known == codebooks_.end()) {
    const std::vector<float> values(
        w.codebook, w.codebook + static_cast<std::ptrdiff_t>(w.n_books) * w.n_codes * w.dim);
    const std::vector<__half> halves(values.begin(), values.end());
    codebooks_.push_back({w.codebook, add(values), add_array(halves)});
    known = codebooks_.end() - 1;
  }
  m.codebook = known->device;
  m.codebook_f16 = known->device_f16;
  return m;
}

}  // namespace assay::kernels
