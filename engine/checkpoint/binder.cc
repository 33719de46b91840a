#include "engine/checkpoint/binder.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <optional>

#include "kernels/dtype.h"

namespace assay::engine {
namespace {

using Kind = ModuleFormat::Kind;

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// Up to five of a list, a line each: one mistake in config.json can touch every tensor.
template <class Names>
std::string first_few(std::string_view label, const Names& names) {
  std::string out;
  std::size_t n = 0;
  for (const std::string& name : names) {
    if (n++ == 5) break;
    out += fmt::format("\n  {}{}", label, name);
  }
  if (names.size() > 5) out += fmt::format("\n  {}… and {} more", label, names.size() - 5);
  return out;
}

int ceil_div(int a, int b) { return (a + b - 1) / b; }

std::string dtype_names(const std::vector<DType>& dtypes) {
  std::string out;
  for (std::size_t i = 0; i < dtypes.size(); ++i)
    out += fmt::format("{}{}",
                       i == 0                   ? ""
                       : i + 1 == dtypes.size() ? " or "
                                                : ", ",
                       name_of(dtypes[i]));
  return out;
}

const std::vector<DType> kFloats = {DType::kBf16, DType::kF16, DType::kF32};
const std::vector<DType> kWords = {DType::kI32, DType::kU32};

bool is_one_of(DType dtype, const std::vector<DType>& dtypes) {
  return std::find(dtypes.begin(), dtypes.end(), dtype) != dtypes.end();
}

kernels::WeightMatrix values_of(const TensorView& t) {
  return {t.bytes.data(),
          t.dtype == DType::kBf16  ? kernels::WeightType::kBf16
          : t.dtype == DType::kF16 ? kernels::WeightType::kF16
                                   : kernels::WeightType::kF32,
          1, static_cast<int>(t.n_elements())};
}

// The binary16 that is x and not merely near it. NaN and infinity stay what they are, for the check
// of finite values to name.
std::optional<std::uint16_t> exact_f16(float x) {
  const auto sign = static_cast<std::uint16_t>(std::signbit(x) ? 0x8000 : 0);
  const float size = std::abs(x);
  if (!std::isfinite(x)) return sign | (std::isnan(x) ? 0x7E00 : 0x7C00);
  if (size >= 65536) return std::nullopt;
  const auto truncated = static_cast<std::uint16_t>(
      size < 0x1p-14f ? static_cast<std::uint32_t>(size * 0x1p24f)
                      : (std::bit_cast<std::uint32_t>(size) - 0x38000000u) >> 13);
  if (kernels::f16_to_f32(truncated) != size) return std::nullopt;
  return sign | truncated;
}

}  // namespace

Binder::Binder(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {
  for (const auto& [name, tensor] : checkpoint.tensors()) unused_.insert(name);
  // A codebook of a tier that no module chose is no mistake.
  for (const SafetensorsFile& shard : checkpoint.shards())
    if (shard.path().filename() == checkpoint.config().quantisation.codebooks_file())
      for (const TensorView& t : shard.tensors()) unused_.erase(t.name);
}

const TensorView* Binder::claim(const std::string& name, const std::vector<std::int64_t>& shape,
                                const std::vector<DType>& dtypes) {
  const TensorView* t = checkpoint_.find(name);
  if (t == nullptr) {
    missing_.push_back(fmt::format("{} {}", name, shape_text(shape)));
    return nullptr;
  }
  unused_.erase(name);
  if (t->shape != shape) {
    wrong(fmt::format("{}: shape {}, expected {}", name, shape_text(t->shape), shape_text(shape)));
    return nullptr;
  }
  if (!is_one_of(t->dtype, dtypes)) {
    wrong(fmt::format("{}: dtype {}, expected {}", name, name_of(t->dtype), dtype_names(dtypes)));
    return nullptr;
  }
  used_.push_back(t);
  return t;
}

Matrix Binder::take(const std::string& name, const std::vector<std::int64_t>& shape) {
  const TensorView* t = claim(name, shape, kFloats);
  if (t == nullptr) return {};
  return {.dtype = t->dtype,
          .n_rows = static_cast<int>(shape.size() == 1 ? 1 : t->n_elements() / shape.back()),
          .n_cols = static_cast<int>(shape.back()),
          .data = t->bytes.data(),
          .name = name};
}

Matrix Binder::take_projection(const std::string& module, int n_rows, int n_cols) {
  const Quantisation& q = checkpoint_.config().quantisation;
  const ModuleFormat& f = q.of(module);
  const std::string weight = module + ".weight";
  if (const TensorView* t = checkpoint_.find(weight)) {
    if (t->dtype == DType::kF8E4M3) return take_fp8(module, f, n_rows, n_cols);
    // Methods leave some modules as they were; one that is listed by name is not among them.
    if (f.kind != Kind::kDense && q.modules().contains(module))
      wrong(fmt::format("{}: config.json says {} for this module, but the tensor is {}", weight,
                        name_of(f.kind), name_of(t->dtype)));
    return take(weight, {n_rows, n_cols});
  }
  switch (f.kind) {
    case Kind::kVq: {
      std::vector<Matrix> one = take_vq_stack(module, 0, n_rows, n_cols);
      return one.empty() ? Matrix{} : std::move(one[0]);
    }
    case Kind::kGptq:
      return take_gptq(module, f, n_rows, n_cols);
    case Kind::kAqlm:
      return take_aqlm(module, f, n_rows, n_cols);
    case Kind::kDense:
    case Kind::kFp8:
      break;
  }
  for (const char* suffix : {".qweight", ".vq_codes", ".codes"})
    if (has(module + suffix)) {
      unused_.erase(module + suffix);
      wrong(fmt::format("{}{}: quantised, but config.json's quantization_config does not say how",
                        module, suffix));
      return {};
    }
  return take(weight, {n_rows, n_cols});  // reported as missing
}

// Suffixes of the release are not published: the known names first, else the module's one integer
// and one binary16 tensor of the right shapes.
Binder::VqTensors Binder::find_vq(const std::string& module,
                                  const std::vector<std::int64_t>& codes_shape,
                                  const std::vector<std::int64_t>& scales_shape) {
  VqTensors found;
  constexpr std::pair<const char*, const char*> kKnown[] = {
      {".vq_codes", ".vq_scales"}, {".codes", ".scales"}, {".qweight", ".scales"}};
  for (const auto& [codes, scales] : kKnown) {
    found = {checkpoint_.find(module + codes), checkpoint_.find(module + scales)};
    if (found.codes != nullptr && found.scales != nullptr) return found;
  }
  found = {};
  int n_codes = 0, n_scales = 0;
  const auto& all = checkpoint_.tensors();
  for (auto it = all.lower_bound(module + ".");
       it != all.end() && it->first.starts_with(module + "."); ++it) {
    const TensorView* t = it->second;
    if (is_one_of(t->dtype, kWords) && t->shape == codes_shape) {
      found.codes = t;
      ++n_codes;
    } else if (t->dtype == DType::kF16 && t->shape == scales_shape) {
      found.scales = t;
      ++n_scales;
    }
  }
  if (n_codes == 1 && n_scales == 1) return found;
  missing_.push_back(
      fmt::format("{}.vq_codes and .vq_scales (or one I32 tensor {} and one F16 tensor {}; there "
                  "are {} and {})",
                  module, shape_text(codes_shape), shape_text(scales_shape), n_codes, n_scales));
  return {};
}

const float* Binder::widen(const TensorView& t) {
  const auto n = static_cast<std::size_t>(t.n_elements());
  auto values = std::make_shared<std::vector<float>>(n);
  const kernels::WeightMatrix w = values_of(t);
  for (std::size_t i = 0; i < n; ++i)
    (*values)[i] = kernels::weight_at(w, static_cast<std::int64_t>(i));
  const float* data = values->data();
  owned_.push_back(std::move(values));
  return data;
}

const std::byte* Binder::as_f16(const TensorView& t) {
  if (t.dtype == DType::kF16) return t.bytes.data();
  const kernels::WeightMatrix w = values_of(t);
  auto halves = std::make_shared<std::vector<std::uint16_t>>();
  for (std::int64_t i = 0; i < t.n_elements(); ++i) {
    const float value = kernels::weight_at(w, i);
    const std::optional<std::uint16_t> half = exact_f16(value);
    if (!half) {
      wrong(fmt::format(
          "{}: element {} is {} in {}, expected values that binary16 holds exactly, because scales "
          "are multiplied as such. Store the scales as F16, or keep the module dense",
          t.name, i, value, name_of(t.dtype)));
      return nullptr;
    }
    halves->push_back(*half);
  }
  const auto* data = reinterpret_cast<const std::byte*>(halves->data());
  owned_.push_back(std::move(halves));
  return data;
}

// The one global codebook of this shape, whatever its name.
const float* Binder::codebook(int dim, int n_codes, const std::string& module) {
  const auto [it, is_new] = codebooks_.try_emplace({dim, n_codes}, nullptr);
  if (!is_new) return it->second;
  const std::string& file = checkpoint_.config().quantisation.codebooks_file();
  const TensorView* found = nullptr;
  for (const SafetensorsFile& shard : checkpoint_.shards()) {
    if (shard.path().filename() != file) continue;
    for (const TensorView& t : shard.tensors()) {
      if (t.shape != std::vector<std::int64_t>{n_codes, dim}) continue;
      if (found != nullptr)
        wrong(
            fmt::format("{}: two codebooks of {} codewords of {} values, {} and {}: which one is "
                        "meant cannot be told",
                        file, n_codes, dim, found->name, t.name));
      found = &t;
    }
  }
  if (found == nullptr) {
    missing_.push_back(
        fmt::format("a codebook [{}, {}] in {}, which {} needs", n_codes, dim, file, module));
    return nullptr;
  }
  if (claim(found->name, {n_codes, dim}, {DType::kF16}) == nullptr) return nullptr;
  return it->second = widen(*found);
}

void Binder::check_codes(const kernels::VqMatrix& w, const std::string& tensor) {
  const auto n_row_bits = static_cast<std::size_t>(w.n_subvectors()) *
                          static_cast<std::size_t>(w.n_books * w.index_bits);
  if (const std::size_t n_used = n_row_bits % 32; n_used != 0)  // of a row's last word
    for (int r = 0; r < w.n_rows; ++r) {
      std::uint32_t last;
      std::memcpy(
          &last,
          w.codes +
              (static_cast<std::size_t>(r) + 1) * 4 * static_cast<std::size_t>(w.row_words()) - 4,
          4);
      if (last >> n_used == 0) continue;
      wrong(
          fmt::format("{}: row {}, the last word is 0x{:08X}, expected zero in the padding above "
                      "its lowest {} bits. The codes are damaged, or not packed as d and bits say",
                      tensor, r, last, n_used));
      return;
    }
  if (w.n_codes == 1 << w.index_bits) return;  // every index is a codeword
  for (int r = 0; r < w.n_rows; ++r)
    if (const std::int64_t at = kernels::first_bad_index(w, r); at >= 0) {
      wrong(
          fmt::format("{}: row {}, index {} is no codeword: the book has {}. The codes are damaged",
                      tensor, r, at, w.n_codes));
      return;
    }
}

// Of the sizes alone: codes, scales and codebook are null.
kernels::VqMatrix Binder::vq_matrix(const ModuleFormat& f, int n_rows, int n_cols) {
  return {.codes = nullptr,
          .scales = nullptr,
          .codebook = nullptr,
          .n_rows = n_rows,
          .n_cols = n_cols,
          .dim = f.dim,
          .n_codes = f.n_codes,
          .index_bits = static_cast<int>(std::bit_width(static_cast<unsigned>(f.n_codes - 1))),
          .n_books = f.n_books,
          .group = f.group > 0 ? f.group : n_cols};
}

std::vector<Matrix> Binder::take_vq_stack(const std::string& module, int n, int n_rows,
                                          int n_cols) {
  const ModuleFormat& f = checkpoint_.config().quantisation.of(module);
  const bool is_stack = n > 0;
  const auto shape = [&](int last) {
    return is_stack ? std::vector<std::int64_t>{n, n_rows, last}
                    : std::vector<std::int64_t>{n_rows, last};
  };
  if (f.kind != Kind::kVq) {
    wrong(fmt::format("{}: config.json gives this module no vq format", module));
    return {};
  }
  if (n_cols % f.dim != 0) {
    wrong(fmt::format("{}: {} columns cannot be cut into sub-vectors of d = {}", module, n_cols,
                      f.dim));
    return {};
  }
  const kernels::VqMatrix sizes = vq_matrix(f, n_rows, n_cols);
  const VqTensors t = find_vq(module, shape(sizes.row_words()), shape(sizes.n_groups()));
  if (t.codes == nullptr) return {};
  const float* book = codebook(f.dim, f.n_codes, module);
  const bool right = (claim(t.codes->name, shape(sizes.row_words()), kWords) != nullptr) &
                     (claim(t.scales->name, shape(sizes.n_groups()), {DType::kF16}) != nullptr);
  if (!right || book == nullptr) return {};
  std::vector<Matrix> out;
  for (int e = 0; e < std::max(1, n); ++e) {
    kernels::VqMatrix w = sizes;
    const auto row = static_cast<std::size_t>(e) * static_cast<std::size_t>(n_rows);
    w.codes = t.codes->bytes.data() + row * 4 * static_cast<std::size_t>(w.row_words());
    w.scales = t.scales->bytes.data() + row * 2 * static_cast<std::size_t>(w.n_groups());
    w.codebook = book;
    check_codes(w, is_stack ? fmt::format("{}[{}]", t.codes->name, e) : t.codes->name);
    out.push_back({.n_rows = n_rows,
                   .n_cols = n_cols,
                   .name = is_stack ? fmt::format("{}[{}]", module, e) : module,
                   .codes = w});
  }
  return out;
}

Matrix Binder::take_gptq(const std::string& module, const ModuleFormat& f, int n_rows, int n_cols) {
  const int per_word = 32 / static_cast<int>(f.bits);
  if (n_rows % per_word != 0 || n_cols % per_word != 0) {
    wrong(fmt::format("{}: [{}, {}] cannot be packed {} values to a word", module, n_rows, n_cols,
                      per_word));
    return {};
  }
  const int n_groups = ceil_div(n_cols, f.group);
  const TensorView* q = claim(module + ".qweight", {n_cols / per_word, n_rows}, kWords);
  const TensorView* z = claim(module + ".qzeros", {n_groups, n_rows / per_word}, kWords);
  const TensorView* s = claim(module + ".scales", {n_groups, n_rows}, {DType::kF16});
  if (has(module + ".g_idx")) {
    const TensorView* g = claim(module + ".g_idx", {n_cols}, {DType::kI32});
    for (int c = 0; g != nullptr && c < n_cols; ++c) {
      std::int32_t group;
      std::memcpy(&group, g->bytes.data() + 4 * static_cast<std::size_t>(c), 4);
      if (group == c / f.group) continue;
      wrong(
          fmt::format("{}.g_idx: column {} is in group {}, expected {}: columns in activation "
                      "order (desc_act) are not supported",
                      module, c, group, c / f.group));
      break;
    }
  }
  if (q == nullptr || z == nullptr || s == nullptr) return {};
  return {.n_rows = n_rows,
          .n_cols = n_cols,
          .name = module,
          .codes = kernels::ScaledMatrix{.kind = f.bits == 4 ? kernels::ScaledMatrix::Kind::kGptq4
                                                             : kernels::ScaledMatrix::Kind::kGptq8,
                                         .values = q->bytes.data(),
                                         .scales = s->bytes.data(),
                                         .zeros = z->bytes.data(),
                                         .n_rows = n_rows,
                                         .n_cols = n_cols,
                                         .group = f.group}};
}

Matrix Binder::take_fp8(const std::string& module, const ModuleFormat& f, int n_rows, int n_cols) {
  if (f.kind != Kind::kFp8) {
    unused_.erase(module + ".weight");
    wrong(
        fmt::format("{}.weight: F8_E4M3, but config.json's quantization_config is not fp8: the "
                    "block size of its scales is unknown",
                    module));
    return {};
  }
  const TensorView* w = claim(module + ".weight", {n_rows, n_cols}, {DType::kF8E4M3});
  const TensorView* s =
      claim(module + ".weight_scale_inv", {ceil_div(n_rows, f.group), ceil_div(n_cols, f.group)},
            {DType::kF32});
  if (w == nullptr || s == nullptr) return {};
  return {.n_rows = n_rows,
          .n_cols = n_cols,
          .name = module,
          .codes = kernels::ScaledMatrix{.kind = kernels::ScaledMatrix::Kind::kFp8E4m3,
                                         .values = w->bytes.data(),
                                         .scales = s->bytes.data(),
                                         .zeros = nullptr,
                                         .n_rows = n_rows,
                                         .n_cols = n_cols,
                                         .group = f.group}};
}

// codes [out, in / d, M] in the narrowest signed integer that holds an index, read modulo 2^n;
// codebooks [M, 2^n, 1, d]; scales [out, 1, 1, 1].
Matrix Binder::take_aqlm(const std::string& module, const ModuleFormat& f, int n_rows, int n_cols) {
  if (n_cols % f.dim != 0) {
    wrong(fmt::format("{}: {} columns cannot be cut into groups of {}", module, n_cols, f.dim));
    return {};
  }
  const TensorView* codes = claim(module + ".codes", {n_rows, n_cols / f.dim, f.n_books},
                                  {DType::kI8, DType::kU8, DType::kI16, DType::kI32});
  const TensorView* books = claim(module + ".codebooks", {f.n_books, f.n_codes, 1, f.dim}, kFloats);
  const TensorView* scales = claim(module + ".scales", {n_rows, 1, 1, 1}, kFloats);
  if (codes == nullptr || books == nullptr || scales == nullptr) return {};
  kernels::VqMatrix w = vq_matrix(f, n_rows, n_cols);
  w.codebook = widen(*books);
  w.scales = as_f16(*scales);
  if (w.scales == nullptr) return {};
  // The stream of docs/formats/vq.md: indices of index_bits each, rows padded to whole words.
  const auto width = bytes_of(codes->dtype);
  const auto n_row =
      static_cast<std::size_t>(w.n_subvectors()) * static_cast<std::size_t>(f.n_books);
  auto stream = std::make_shared<std::vector<std::uint32_t>>(
      static_cast<std::size_t>(w.row_words()) * static_cast<std::size_t>(n_rows));
  for (std::size_t r = 0; r < static_cast<std::size_t>(n_rows); ++r)
    for (std::size_t k = 0; k < n_row; ++k) {
      std::uint32_t index = 0;
      std::memcpy(&index, codes->bytes.data() + (r * n_row + k) * width, width);
      index &= static_cast<std::uint32_t>(f.n_codes) - 1;
      const std::size_t bit = k * static_cast<std::size_t>(w.index_bits);
      std::uint32_t* word = stream->data() + r * static_cast<std::size_t>(w.row_words()) + bit / 32;
      *word |= index << (bit % 32);
      if (bit % 32 + static_cast<std::size_t>(w.index_bits) > 32)
        word[1] |= index >> (32 - bit % 32);
    }
  w.codes = reinterpret_cast<const std::byte*>(stream->data());
  owned_.push_back(std::move(stream));
  return {.n_rows = n_rows, .n_cols = n_cols, .name = module, .codes = w};
}

void Binder::ignore_prefix(const std::string& prefix) {
  for (auto it = unused_.lower_bound(prefix); it != unused_.end() && it->starts_with(prefix);)
    it = unused_.erase(it);
}

Result<void> Binder::finish() const {
  if (wrong_.empty() && missing_.empty() && unused_.empty()) return {};
  const std::string dir = checkpoint_.dir().string();
  return fail(
      "{}: the tensors do not fit config.json ({} wrong, {} missing, {} surplus; assay inspect {} "
      "--tensors lists all that are there):{}{}{}{}",
      dir, wrong_.size(), missing_.size(), unused_.size(), dir,
      first_few("config.json: ", checkpoint_.config().misspelt), first_few("", wrong_),
      first_few("missing: ", missing_), first_few("surplus: ", unused_));
}

}  // namespace assay::engine
