// What a checkpoint of a given config has in it, filled with random values that a forward pass
// stays finite on: the tensors of assay synthesize.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "engine/checkpoint/config.h"
#include "engine/checkpoint/safetensors.h"

namespace assay::engine {

struct SyntheticTensor {
  enum class Fill {
    kUniform,  // values in centre ± half_width
    kBits,     // codes: any bits are some
    kFp8       // E4M3 up to ± 13, and no NaN
  };
  std::string name;
  DType dtype;
  std::vector<std::int64_t> shape;
  Fill fill = Fill::kUniform;
  double centre = 0, half_width = 0;
  int row_bits = 0;  // kBits: of a row; what is left of its last word is padding, which is zero
  std::size_t n_bytes() const;
};

// Every tensor that bind_weights asks for, layer by layer, each module in the form that
// config.quantisation says; and the codebooks, which are a file of their own. An error where a form
// cannot be made: AQLM, MLX's stacks, and widths that a form does not divide.
struct SyntheticModel {
  std::vector<SyntheticTensor> tensors, codebooks;
};
Result<SyntheticModel> synthetic_model(const ModelConfig& config);

// Bytes [first_byte, first_byte + out.size()) of a tensor, first_byte a multiple of 16. A pure
// function of seed, name and place, so that threads share a tensor out as they like. Padding is as
// random as the rest: clear_padding.
void fill_synthetic(const SyntheticTensor& tensor, std::uint64_t seed, std::size_t first_byte,
                    std::span<std::byte> out);
void clear_padding(const SyntheticTensor& tensor, std::span<std::byte> whole);

// A quantization_config for a config that has none, as the 1.71-bit release of GLM-5.2 is thought
// to be stored (docs/formats/vq.md): of a layer's experts' matrices 13 in 24 with 1 bit, 5 with 2
// and 6 with 3, which go by `seed`; of attention q_a, q_b, kv_a and kv_b with 8 bits, o, MLPs and
// head with 4; all else in bf16, and so what these forms do not divide.
Json release_quantization(const ModelConfig& config, std::uint64_t seed);

}  // namespace assay::engine
