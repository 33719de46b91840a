// For tests: turns modules of the tiny checkpoint (tiny_checkpoint.h) into the quantised formats of
// docs/formats/vq.md with random codes, and remembers every weight that they stand for.
#pragma once

#include <bit>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "base/rng.h"
#include "engine/checkpoint/tiny_checkpoint.h"
#include "kernels/dtype.h"
#include "kernels/row_major.h"

namespace assay::engine {

class TinyQuantised {
 public:
  TinyQuantised() {
    config["quantization_config"] = {
        {"quant_method", "auto-round"}, {"bits", 16}, {"group_size", 8}};
  }

  Json config = tiny_config();
  TinyTensors tensors = tiny_tensors();
  TinyTensors codebooks;
  std::map<std::string, std::vector<double>> weights;  // by module, row-major

  // As the release stores an expert's projection. An index has bits · d bits.
  void vq(const std::string& module, double bits, int dim, int group = kGroup) {
    const auto [n_rows, n_cols] = take(module);
    const int n = static_cast<int>(std::lround(bits * dim)), n_codes = 1 << n;
    const std::vector<double>& book = codebook(dim, n_codes);
    const int n_groups = (n_cols + group - 1) / group;
    TinyTensor codes{"I32", {n_rows, (n_cols / dim * n + 31) / 32}, ""};
    TinyTensor scales{"F16", {n_rows, n_groups}, ""};
    std::vector<double>& w = weights[module];
    for (int r = 0; r < n_rows; ++r) {
      std::vector<bool> stream;
      std::vector<double> scale;
      for (int g = 0; g < n_groups; ++g) scale.push_back(put_f16(scales));
      for (int j = 0; j < n_cols / dim; ++j) {
        const auto index = static_cast<unsigned>(uniform() * n_codes);
        for (int b = 0; b < n; ++b) stream.push_back((index >> b & 1) != 0);
        for (int c = j * dim; c < (j + 1) * dim; ++c)
          w.push_back(scale[static_cast<std::size_t>(c / group)] *
                      book[index * static_cast<unsigned>(dim) + static_cast<unsigned>(c % dim)]);
      }
      put_bits(codes, stream);
    }
    tensors[module + ".vq_codes"] = codes;
    tensors[module + ".vq_scales"] = scales;
    extra(module) = {{"bits", bits}, {"format", "vq"}, {"d", dim}};
    if (group != kGroup) extra(module)["group_size"] = group;
  }

  // GPTQ v1.
  void gptq(const std::string& module, int bits) {
    const auto [n_rows, n_cols] = take(module);
    const int per_word = 32 / bits, n_groups = (n_cols + kGroup - 1) / kGroup;
    const auto levels = static_cast<unsigned>(1 << bits);
    const auto random_words = [&](int n_words) {
      std::vector<std::vector<unsigned>> fields(static_cast<std::size_t>(n_words));
      for (auto& word : fields)
        for (int i = 0; i < per_word; ++i)
          word.push_back(static_cast<unsigned>(uniform() * levels));
      return fields;
    };
    const auto q = random_words(n_cols / per_word * n_rows),
               z = random_words(n_groups * n_rows / per_word);
    TinyTensor scales{"F16", {n_groups, n_rows}, ""};
    std::vector<double> scale;
    for (int i = 0; i < n_groups * n_rows; ++i) scale.push_back(put_f16(scales));
    std::vector<double>& w = weights[module];
    for (int r = 0; r < n_rows; ++r)
      for (int c = 0; c < n_cols; ++c) {
        const int g = c / kGroup;
        const int value = static_cast<int>(
            q[kernels::row_major(c / per_word, n_rows, r)][static_cast<std::size_t>(c % per_word)]);
        const int zero = static_cast<int>(z[kernels::row_major(g, n_rows / per_word, r / per_word)]
                                           [static_cast<std::size_t>(r % per_word)]);
        w.push_back((value - (zero + 1)) * scale[kernels::row_major(g, n_rows, r)]);
      }
    const auto packed = [&](const auto& fields, std::vector<std::int64_t> shape) {
      TinyTensor t{"I32", std::move(shape), ""};
      for (const auto& word : fields) {
        std::vector<bool> stream;
        for (const unsigned v : word)
          for (int b = 0; b < bits; ++b) stream.push_back((v >> b & 1) != 0);
        put_bits(t, stream);
      }
      return t;
    };
    tensors[module + ".qweight"] = packed(q, {n_cols / per_word, n_rows});
    tensors[module + ".qzeros"] = packed(z, {n_groups, n_rows / per_word});
    tensors[module + ".scales"] = scales;
    extra(module) = {{"bits", bits}};
  }

  void fp8(const std::string& module, int block) {
    const auto [n_rows, n_cols] = take(module);
    TinyTensor t{"F8_E4M3", {n_rows, n_cols}, ""};
    const int down = (n_rows + block - 1) / block, across = (n_cols + block - 1) / block;
    TinyTensor scales{"F32", {down, across}, ""};
    std::vector<float> scale;
    for (int i = 0; i < down * across; ++i) {
      scale.push_back(static_cast<float>(0.01 + 0.02 * uniform()));
      const auto bits = std::bit_cast<std::uint32_t>(scale.back());
      for (int b = 0; b < 4; ++b) scales.bytes += static_cast<char>(bits >> 8 * b);
    }
    for (int r = 0; r < n_rows; ++r)
      for (int c = 0; c < n_cols; ++c) {
        const auto byte = static_cast<unsigned>(uniform() * 0x7F) | (uniform() < 0.5 ? 0x80u : 0u);
        t.bytes += static_cast<char>(byte);
        const int e = static_cast<int>(byte >> 3 & 15), m = static_cast<int>(byte & 7);
        const double value = e == 0 ? std::ldexp(m, -9) : std::ldexp(8 + m, e - 10);
        weights[module].push_back(
            (byte & 0x80 ? -value : value) *
            static_cast<double>(scale[kernels::row_major(r / block, across, c / block)]));
      }
    tensors[module + ".weight"] = t;
    tensors[module + ".weight_scale_inv"] = scales;
    config["quantization_config"] = {{"quant_method", "fp8"},
                                     {"weight_block_size", {block, block}}};
  }

  // Scales are values that both binary16 and bfloat16 have.
  void aqlm(const std::string& module, int dim, int n_books, int index_bits,
            const std::string& scale_dtype = "F16") {
    const auto [n_rows, n_cols] = take(module);
    const int n_codes = 1 << index_bits;
    TinyTensor codes{index_bits > 8 ? "I16" : "I8", {n_rows, n_cols / dim, n_books}, ""};
    TinyTensor books{"F16", {n_books, n_codes, 1, dim}, ""},
        scales{scale_dtype, {n_rows, 1, 1, 1}, ""};
    std::vector<double> book;
    for (int i = 0; i < n_books * n_codes * dim; ++i) book.push_back(put_f16(books));
    for (int r = 0; r < n_rows; ++r) {
      const double scale = put_scale(scales);
      for (int j = 0; j < n_cols / dim; ++j) {
        std::vector<double> sum(static_cast<std::size_t>(dim), 0.0);
        for (int m = 0; m < n_books; ++m) {
          const auto index = static_cast<unsigned>(uniform() * n_codes);
          codes.bytes += static_cast<char>(index);
          if (index_bits > 8)  // negative where the index is in the upper half
            codes.bytes += static_cast<char>((index >= static_cast<unsigned>(n_codes) / 2
                                                  ? index | ~(static_cast<unsigned>(n_codes) - 1)
                                                  : index) >>
                                             8);
          for (int c = 0; c < dim; ++c)
            sum[static_cast<std::size_t>(c)] +=
                book[(static_cast<std::size_t>(m) * static_cast<std::size_t>(n_codes) + index) *
                         static_cast<std::size_t>(dim) +
                     static_cast<std::size_t>(c)];
        }
        for (const double v : sum) weights[module].push_back(scale * v);
      }
    }
    tensors[module + ".codes"] = codes;
    tensors[module + ".codebooks"] = books;
    tensors[module + ".scales"] = scales;
    config["quantization_config"] = {{"quant_method", "aqlm"},
                                     {"in_group_size", dim},
                                     {"out_group_size", 1},
                                     {"num_codebooks", n_books},
                                     {"nbits_per_codebook", index_bits}};
  }

  // Per-expert VQ modules of every sparse layer to stacks. All must have one tier.
  void stack_experts(double bits, int dim) {
    Json modules = Json::object();
    for (int l = 1; l < 3; ++l)
      for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
        const std::string path = fmt::format("model.layers.{}.mlp.switch_mlp.{}", l, part);
        for (const char* suffix : {".vq_codes", ".vq_scales"}) {
          TinyTensor stack;
          for (int e = 0; e < 3; ++e) {
            const auto node = tensors.extract(
                fmt::format("model.layers.{}.mlp.experts.{}.{}{}", l, e, part, suffix));
            stack.dtype = node.mapped().dtype;
            stack.shape = {3, node.mapped().shape[0], node.mapped().shape[1]};
            stack.bytes += node.mapped().bytes;
          }
          tensors[path + suffix] = stack;
        }
        const int n = static_cast<int>(std::lround(bits * dim));
        modules[path] = {
            {"vq_bits", bits}, {"d", dim}, {"K", 1 << n}, {"nbits", n}, {"norm_group", kGroup}};
      }
    config.erase("quantization_config");
    config["vq"] = {{"modules", modules}, {"codebooks_file", "vq_codebooks.safetensors"}};
  }

  void write(const TinyCheckpoint& folder) const {
    folder.write("config.json", config.dump());
    folder.write_single(tensors);
    if (!codebooks.empty()) folder.write("vq_codebooks.safetensors", safetensors_bytes(codebooks));
  }

  Json& extra(const std::string& module) {
    return config["quantization_config"]["extra_config"][module];
  }

 private:
  static constexpr int kGroup = 8;

  double uniform() { return uniform_at(7, 0, n_drawn_++); }

  std::pair<int, int> take(const std::string& module) {
    const auto node = tensors.extract(module + ".weight");
    CHECK(!node.empty()) << module;
    return {static_cast<int>(node.mapped().shape[0]), static_cast<int>(node.mapped().shape[1])};
  }
  // Of ± 0.008 to 0.03, what random projections of this size bear.
  double put_f16(TinyTensor& t) {
    const auto bits = static_cast<std::uint16_t>(0x2000 + static_cast<int>(uniform() * 0x7FF) +
                                                 (uniform() < 0.5 ? 0x8000 : 0));
    t.bytes += {static_cast<char>(bits & 255), static_cast<char>(bits >> 8)};
    return static_cast<double>(kernels::f16_to_f32(bits));
  }
  double put_scale(TinyTensor& t) {
    TinyTensor half;
    const auto wide = std::bit_cast<std::uint32_t>(static_cast<float>(put_f16(half))) & 0xFFFF0000u;
    if (t.dtype == "F16") t.bytes += {static_cast<char>(half.bytes[0] & 0xF8), half.bytes[1]};
    if (t.dtype == "F32") t.bytes += {'\0', '\0'};
    if (t.dtype != "F16") t.bytes += {static_cast<char>(wide >> 16), static_cast<char>(wide >> 24)};
    return static_cast<double>(std::bit_cast<float>(wide));
  }
  static void put_bits(TinyTensor& t, std::vector<bool>& stream) {
    while (stream.size() % 32 != 0) stream.push_back(false);
    for (std::size_t i = 0; i < stream.size(); i += 8) {
      unsigned byte = 0;
      for (std::size_t b = 0; b < 8; ++b) byte |= static_cast<unsigned>(stream[i + b]) << b;
      t.bytes += static_cast<char>(byte);
    }
  }
  const std::vector<double>& codebook(int dim, int n_codes) {
    std::vector<double>& values = books_[{dim, n_codes}];
    if (!values.empty()) return values;
    TinyTensor t{"F16", {n_codes, dim}, ""};
    for (int i = 0; i < n_codes * dim; ++i) values.push_back(put_f16(t));
    codebooks[fmt::format("cb_d{}_k{}", dim, n_codes)] = t;
    return values;
  }

  std::uint64_t n_drawn_ = 0;
  std::map<std::pair<int, int>, std::vector<double>> books_;
};

}  // namespace assay::engine
