// One safetensors file: 8 bytes little-endian header length, a JSON header, then the tensors'
// bytes. Source: github.com/huggingface/safetensors, "Format".
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/result.h"

namespace assay::engine {

enum class DType { kBf16, kF16, kF32, kF64, kI8, kU8, kI16, kI32, kI64, kU32, kBool, kF8E4M3 };
std::string_view name_of(DType dtype);  // "BF16", as in the file
std::size_t bytes_of(DType dtype);

struct TensorView {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;  // in the mapped file
  std::int64_t n_elements() const;
};

// The header alone, over the bytes of a whole file: no byte of it is trusted. Checks the header's
// length (against the file and the format's limit of 100 MB), JSON, known dtypes, shapes without
// overflow, offsets in order, in range, without overlap or hole, and sizes that equal dtype ×
// shape.
Result<std::vector<TensorView>> parse_safetensors(std::span<const std::byte> file,
                                                  std::string_view source);

struct FileStamp {
  std::string text;
  std::int64_t changed_s;  // seconds since the epoch: the later of modification and status change
};
Result<FileStamp> stamp_of(const std::filesystem::path& path);

// Tensors in order of name, atomically (base/file.h). Their data must fit their dtype and shape.
Result<void> write_safetensors(const std::filesystem::path& path, std::vector<TensorView> tensors,
                               const Json& metadata = nullptr);

class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::filesystem::path& path);
  const std::vector<TensorView>& tensors() const { return tensors_; }
  const std::filesystem::path& path() const { return path_; }
  // What the system said of the file as it was opened: inode, size, times. Another stamp later
  // means that the file at this path was changed or replaced.
  const std::string& stamp() const { return stamp_; }

 private:
  std::filesystem::path path_;
  std::string stamp_;
  MappedFile file_;
  std::vector<TensorView> tensors_;
};

}  // namespace assay::engine
