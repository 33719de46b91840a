#include "kernels/device_matrix.h"

#include <cuda_fp16.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/fault_in.h"
#include "kernels/vq_pack.h"

namespace assay::kernels {
namespace {

// A GPTQ matrix as its file has it.
struct GptqFile {
  explicit GptqFile(const ScaledMatrix& matrix)
      : w(matrix),
        bits(w.kind == ScaledMatrix::Kind::kGptq4 ? 4 : 8),
        per_word(32 / bits),
        row_words((w.n_cols + per_word - 1) / per_word),
        zero_words((w.n_rows + per_word - 1) / per_word) {}

  std::uint32_t codes(int row, int word) const { return word_at(w.values, word, w.n_rows, row); }
  std::uint32_t zero(int row, int group) const {
    const std::uint32_t word = word_at(w.zeros, group, zero_words, row / per_word);
    return word >> (bits * (row % per_word)) & ((1u << bits) - 1);
  }
  std::uint16_t scale(int row, int group) const {
    std::uint16_t half;
    std::memcpy(&half, w.scales + 2 * (std::ptrdiff_t{group} * w.n_rows + row), 2);
    return half;
  }

  const ScaledMatrix& w;
  const int bits, per_word, row_words, zero_words;

 private:
  static std::uint32_t word_at(const std::byte* data, int i, int stride, int j) {
    std::uint32_t word;
    std::memcpy(&word, data + 4 * (std::ptrdiff_t{i} * stride + j), 4);
    return word;
  }
};

std::size_t codes_bytes(const VqMatrix& w) {
  return 4 * static_cast<std::size_t>(w.n_rows) * static_cast<std::size_t>(w.row_words());
}
std::size_t scales_bytes(const VqMatrix& w) {
  return 2 * static_cast<std::size_t>(w.n_rows) * static_cast<std::size_t>(w.n_groups());
}

std::size_t n_unit_words(const ScaledMatrix& w, GptqUnits units) {
  const std::size_t n_tiles = (static_cast<std::size_t>(w.n_rows) + kUnitRows - 1) / kUnitRows;
  return n_tiles * static_cast<std::size_t>(w.n_groups()) * static_cast<std::size_t>(units.words());
}

// A tile has some bytes of every page: threads would all wait for the same faults.
void fault_in_all(const GptqFile& file, ThreadPool& pool) {
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  const std::size_t n_bytes =
      4 * static_cast<std::size_t>(file.row_words) * static_cast<std::size_t>(file.w.n_rows);
  pool.parallel_for(static_cast<int>((n_bytes + kPiece - 1) / kPiece), [&](int i) {
    const std::size_t first = static_cast<std::size_t>(i) * kPiece;
    fault_in({file.w.values + first, std::min(kPiece, n_bytes - first)});
  });
}

std::vector<std::uint32_t> units_of(const GptqFile& file, GptqUnits units, ThreadPool& pool) {
  std::vector<std::uint32_t> out(n_unit_words(file.w, units));
  fault_in_all(file, pool);
  pool.parallel_for((file.w.n_rows + kUnitRows - 1) / kUnitRows, [&](int tile) {
    const int first = tile * kUnitRows;
    std::uint32_t* unit = out.data() + static_cast<std::size_t>(tile) *
                                           static_cast<std::size_t>(file.w.n_groups()) *
                                           static_cast<std::size_t>(units.words());
    for (int g = 0; g < file.w.n_groups(); ++g, unit += units.words()) {
      const int n_rows = std::min(kUnitRows, file.w.n_rows - first);
      for (int i = 0; i < units.group_words(); ++i)
        for (int r = 0; r < n_rows; ++r)
          unit[units.code(r, i)] = file.codes(first + r, g * units.group_words() + i);
      constexpr std::uint32_t k1024 = 0x6400;  // in binary16, whose next values are 1 apart
      for (int r = 0; r < n_rows; ++r)
        unit[units.scale(r)] = file.scale(first + r, g) | (k1024 + file.zero(first + r, g) + 1)
                                                              << 16;
    }
  });
  return out;
}

}  // namespace

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

namespace {

DeviceMatrix vq_shape(const VqMatrix& w) {
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
  return m;
}

}  // namespace

DeviceMatrix lay_out(const VqMatrix& w, const UnitForm& units, ThreadPool& pool,
                     const KeepBytes& keep) {
  DeviceMatrix m = vq_shape(w);
  m.units = units;
  const std::vector<std::byte> bytes = pack_units(w, units, pool);
  m.values = keep(bytes.data(), bytes.size());
  return m;
}

DeviceMatrix lay_out(const VqMatrix& w, const KeepBytes& keep) {
  DeviceMatrix m = vq_shape(w);
  const auto rows = static_cast<std::size_t>(w.n_rows);
  m.values = keep(w.codes, 4 * rows * static_cast<std::size_t>(m.row_words));
  m.scales = keep(w.scales, 2 * rows * static_cast<std::size_t>(m.n_groups));
  return m;
}

DeviceMatrix lay_out(const ScaledMatrix& w, ThreadPool& pool, const KeepBytes& keep) {
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
  const GptqFile file(w);
  m.bits = file.bits;
  m.row_words = file.row_words;
  m.lane_shift = lane_shift_of(m.bits, m.n_cols, m.group);
  if (m.in_units()) {
    const std::vector<std::uint32_t> units = units_of(file, {m.lane_shift}, pool);
    m.values = keep(units.data(), units.size() * sizeof(std::uint32_t));
    return m;
  }
  std::vector<std::uint32_t> values(rows * static_cast<std::size_t>(m.row_words));
  for (int r = 0; r < m.n_rows; ++r)
    for (int i = 0; i < m.row_words; ++i)
      values[static_cast<std::size_t>(r) * static_cast<std::size_t>(m.row_words) +
             static_cast<std::size_t>(i)] = file.codes(r, i);
  std::vector<float> scales;
  scales.reserve(rows * groups * 2);
  for (int r = 0; r < m.n_rows; ++r)
    for (int g = 0; g < m.n_groups; ++g) {
      scales.push_back(f16_to_f32(file.scale(r, g)));
      scales.push_back(0x1p23f + static_cast<float>(file.zero(r, g) + 1));
    }
  m.values = keep(values.data(), values.size() * sizeof(std::uint32_t));
  m.scales = keep(scales.data(), scales.size() * sizeof(float));
  return m;
}

std::size_t device_bytes(const WeightMatrix& w) {
  return (w.type == WeightType::kF32 ? 4 : 2) * static_cast<std::size_t>(w.n_rows) *
         static_cast<std::size_t>(w.n_cols);
}
std::size_t device_bytes(const VqMatrix& w) { return codes_bytes(w) + scales_bytes(w); }
std::size_t device_bytes(const ScaledMatrix& w) {
  const auto rows = static_cast<std::size_t>(w.n_rows), cols = static_cast<std::size_t>(w.n_cols),
             groups = static_cast<std::size_t>(w.n_groups()),
             group = static_cast<std::size_t>(w.group);
  if (w.kind == ScaledMatrix::Kind::kFp8E4m3)
    return rows * cols + 4 * ((rows + group - 1) / group) * groups;
  const int bits = w.kind == ScaledMatrix::Kind::kGptq4 ? 4 : 8;
  const std::size_t per_word = w.kind == ScaledMatrix::Kind::kGptq4 ? 8 : 4;
  const int lane_shift = lane_shift_of(bits, w.n_cols, w.group);
  if (lane_shift >= 0) return 4 * n_unit_words(w, {lane_shift});
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
  pool_.reset();
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
DeviceMatrix DeviceWeights::add(const ScaledMatrix& w) { return lay_out(w, pool(), uploaded()); }

DeviceMatrix DeviceWeights::add(const VqMatrix& w) {
  return with_codebook(lay_out(w, uploaded()), w);
}
DeviceMatrix DeviceWeights::add(const VqMatrix& w, const UnitForm& units) {
  return with_codebook(lay_out(w, units, pool(), uploaded()), w);
}

ThreadPool& DeviceWeights::pool() {
  if (pool_ == nullptr) pool_ = std::make_unique<ThreadPool>(0);
  return *pool_;
}

// So many a thread at a time that threads which are done early cost little. What is packed is at
// most what `matrices` are.
std::vector<DeviceMatrix> DeviceWeights::add(std::span<const ToUnits> matrices) {
  constexpr std::size_t kEach = 4;
  std::vector<DeviceMatrix> out;
  const std::size_t at_once = kEach * static_cast<std::size_t>(pool().n_threads());
  // Kept from some to the next: new memory for each would be faulted in anew.
  std::vector<std::vector<std::byte>> packed(std::min(at_once, matrices.size()));
  for (std::size_t first = 0; first < matrices.size(); first += at_once) {
    const std::size_t n = std::min(at_once, matrices.size() - first);
    // Here, where there being no memory is the caller's to catch.
    for (std::size_t i = 0; i < n; ++i)
      packed[i].resize(unit_bytes(*matrices[first + i].matrix, matrices[first + i].units));
    pool().parallel_for(static_cast<int>(n), [&](int i) {
      const ToUnits& m = matrices[first + static_cast<std::size_t>(i)];
      fault_in({m.matrix->codes, codes_bytes(*m.matrix)});
      fault_in({m.matrix->scales, scales_bytes(*m.matrix)});
      ThreadPool alone(1);
      pack_units_into(*m.matrix, m.units, alone, packed[static_cast<std::size_t>(i)]);
    });
    for (std::size_t i = 0; i < n; ++i) {
      const ToUnits& from = matrices[first + i];
      DeviceMatrix m = vq_shape(*from.matrix);
      m.units = from.units;
      m.values = upload(packed[i].data(), packed[i].size());
      out.push_back(with_codebook(m, *from.matrix));
    }
  }
  return out;
}

DeviceMatrix DeviceWeights::with_codebook(DeviceMatrix m, const VqMatrix& w) {
  auto known = std::find_if(codebooks_.begin(), codebooks_.end(),
                            [&](const Codebook& c) { return c.host == w.codebook; });
  if (known == codebooks_.end()) {
    const std::vector<float> values(
        w.codebook, w.codebook + static_cast<std::ptrdiff_t>(w.n_books) * w.n_codes * w.dim);
    std::vector<__half> halves(values.begin(), values.end());
    halves.resize((halves.size() + 7) / 8 * 8);  // it is read in pieces of 16 bytes
    codebooks_.push_back({w.codebook, add(values), add_array(halves)});
    known = codebooks_.end() - 1;
  }
  m.codebook = known->device;
  m.codebook_f16 = known->device_f16;
  return m;
}

}  // namespace assay::kernels
