// What config.json says of how modules are stored: quantization_config (auto-round with VQ experts
// and a 4/8-bit spine, GPTQ, AQLM, FP8) or the MLX build's "vq". Formats: docs/formats/vq.md.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace assay::engine {

struct ModuleFormat {
  enum class Kind { kDense, kVq, kGptq, kAqlm, kFp8 };
  Kind kind = Kind::kDense;
  double bits = 16;  // code bits per weight: VQ log2(n_codes) / dim, GPTQ 4 or 8
  int dim = 0;       // VQ and AQLM: values of a codeword
  int n_codes = 0;   // VQ and AQLM: codewords of a book
  int n_books = 1;   // AQLM
  int group = 128;   // columns that share a scale; FP8: rows and columns of a block
};
std::string_view name_of(ModuleFormat::Kind kind);

class Quantisation {
 public:
  // Of a whole config.json. Unknown methods, formats and numbers out of range are errors that name
  // the key and what is supported.
  static Result<Quantisation> parse(const Json& config, std::string_view source);

  // Of the same: keys that are nearly another's name (misspelt.h). One of many modules is named
  // once, with the first of them.
  static std::vector<std::string> misspelt(const Json& config);

  const std::string& method() const { return method_; }  // "" where nothing is quantised
  // `module` as tensors name it, without ".weight". What is not listed has the method's default.
  const ModuleFormat& of(std::string_view module) const;
  // The file beside the shards that holds global codebooks; "" where there is none.
  const std::string& codebooks_file() const { return codebooks_file_; }
  const std::map<std::string, ModuleFormat, std::less<>>& modules() const { return modules_; }

 private:
  std::string method_, codebooks_file_;
  ModuleFormat default_;
  std::map<std::string, ModuleFormat, std::less<>> modules_;
};

}  // namespace assay::engine
