#include "engine/quantize/sealed_file.h"

#include <algorithm>
#include <map>

#include "base/file.h"
#include "base/hash.h"

namespace assay::engine {
namespace {

constexpr std::string_view kChecksum = "checksum";

std::vector<TensorView> views_of(const std::vector<NewTensor>& tensors) {
  std::vector<TensorView> views;
  for (const NewTensor& t : tensors) views.push_back({t.name, t.dtype, t.shape, t.bytes});
  return views;
}

}  // namespace

tl::unexpected<Error> damaged(const fs::path& path, std::string_view what) {
  if (what.ends_with('.')) what.remove_suffix(1);
  // A reader's message begins with the path too.
  if (const std::string named = path.string() + ": "; what.starts_with(named))
    what.remove_prefix(named.size());
  return fail("{} is damaged: {}{}", path.string(), what, kDeleteDamaged);
}

std::string checksum_of(const std::vector<TensorView>& tensors) {
  std::map<std::string_view, const TensorView*> by_name;
  for (const TensorView& t : tensors) by_name[t.name] = &t;
  Hasher hasher;
  for (const auto& [name, t] : by_name) {
    if (name == kChecksum) continue;
    hasher.update(name);
    hasher.update(name_of(t->dtype));
    for (const std::int64_t n : t->shape) hasher.update_u64(static_cast<std::uint64_t>(n));
    hasher.update(t->bytes.data(), t->bytes.size());
  }
  return hasher.hex();
}

Result<void> write_tensors(const fs::path& path, const std::vector<NewTensor>& tensors) {
  return write_safetensors(path, views_of(tensors));
}

Result<void> write_sealed(const fs::path& path, std::vector<NewTensor> tensors) {
  const std::string sum = checksum_of(views_of(tensors));
  tensors.push_back(new_tensor(std::string(kChecksum), DType::kU8,
                               {static_cast<std::int64_t>(sum.size())},
                               std::vector<char>(sum.begin(), sum.end())));
  return write_tensors(path, tensors);
}

Result<SafetensorsFile> open_sealed(const fs::path& path) {
  auto file = SafetensorsFile::open(path);
  if (!file) return damaged(path, file.error().message);
  const auto& tensors = file->tensors();
  const auto sum = std::find_if(tensors.begin(), tensors.end(),
                                [](const TensorView& t) { return t.name == kChecksum; });
  if (sum == tensors.end()) return damaged(path, "it has no checksum");
  const std::string_view said(reinterpret_cast<const char*>(sum->bytes.data()), sum->bytes.size());
  if (const std::string is = checksum_of(tensors); is != said)
    return damaged(path, fmt::format("checksum {}, expected {}", is, said));
  return file;
}

Result<SafetensorsFile> open_sealed_by(const fs::path& path, const Json& checksum) {
  auto file = SafetensorsFile::open(path);
  if (!file) return damaged(path, file.error().message);
  if (const std::string is = checksum_of(file->tensors()); checksum != is)
    return damaged(path, fmt::format("checksum {}, expected {}", is, checksum.dump()));
  return file;
}

Result<void> write_sealed(const fs::path& path, const Json& content) {
  const Json sealed = {{kChecksum, hash_hex(content.dump())}, {"content", content}};
  return write_file_atomic(path, sealed.dump() + "\n");
}

Result<Json> read_sealed(const fs::path& path) {
  auto read = read_json(path);
  if (!read) return damaged(path, read.error().message);
  const Json& json = *read;
  if (!json.is_object() || !json.contains("content") || !json.contains(kChecksum))
    return damaged(path, "it has no checksum");
  const std::string is = hash_hex(json["content"].dump());
  if (json[kChecksum] != is)
    return damaged(path, fmt::format("checksum {}, expected {}", is, json[kChecksum].dump()));
  return json["content"];
}

}  // namespace assay::engine
