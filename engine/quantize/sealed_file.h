// Files of the quantiser's state: with a checksum, so that one that was cut or changed is named and
// made anew, never gone on with.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "engine/checkpoint/safetensors.h"

namespace assay::engine {

// A tensor on its way to a file.
struct NewTensor {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;
};
template <class T>
NewTensor new_tensor(std::string name, DType dtype, std::vector<std::int64_t> shape,
                     const std::vector<T>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {std::move(name), dtype, std::move(shape), {bytes.begin(), bytes.end()}};
}
Result<void> write_tensors(const std::filesystem::path& path,
                           const std::vector<NewTensor>& tensors);

// The checksum is a tensor of its own beside those that are asked for.
Result<void> write_sealed(const std::filesystem::path& path, std::vector<NewTensor> tensors);
Result<SafetensorsFile> open_sealed(const std::filesystem::path& path);
// The same of a file whose checksum stands elsewhere.
Result<SafetensorsFile> open_sealed_by(const std::filesystem::path& path, const Json& checksum);

// {"content": …, "checksum": …}.
Result<void> write_sealed(const std::filesystem::path& path, const Json& content);
Result<Json> read_sealed(const std::filesystem::path& path);

// Of names, dtypes, shapes and bytes, in the order of the names.
std::string checksum_of(const std::vector<TensorView>& tensors);

// The error of a file that is not what was written; `what` says in which way. It ends with:
inline constexpr std::string_view kDeleteDamaged =
    ". Delete this file: the same command makes it anew";
tl::unexpected<Error> damaged(const std::filesystem::path& path, std::string_view what);

}  // namespace assay::engine
