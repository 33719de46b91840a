// A model's fingerprint, and the cache that keeps it from reading 167 GiB again.
#include "engine/checkpoint/fingerprint.h"

#include <ctime>
#include <optional>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "engine/checkpoint/checkpoint.h"

namespace assay::engine {
namespace {

std::string hash_of(const TensorView& t) {
  Hasher hasher;
  hasher.update(t.name);
  hasher.update(name_of(t.dtype));
  hasher.update_u64(t.shape.size());
  for (const std::int64_t n : t.shape) hasher.update_u64(static_cast<std::uint64_t>(n));
  hasher.update(t.bytes.data(), t.bytes.size());
  return hasher.hex();
}

// A file changed within one tick of its clock has the same times as before, so a young file is not
// cached. FAT has the longest tick, two seconds.
constexpr std::time_t kQuietSeconds = 3;

// What must be equal for stored hashes to hold: path, inode, size, times (the status change too:
// the modification time can be set back) and header. Nothing if the file at this path is no longer
// the one that was opened, or too young to tell.
std::optional<std::string> identity(const SafetensorsFile& shard) {
  const auto stamp = stamp_of(shard.path());
  if (!stamp || stamp->text != shard.stamp() ||
      std::time(nullptr) - stamp->changed_s <= kQuietSeconds)
    return {};
  Hasher header;
  for (const TensorView& t : shard.tensors()) {
    header.update(t.name);
    header.update(name_of(t.dtype));
    header.update_u64(t.shape.size());
    for (const std::int64_t n : t.shape) header.update_u64(static_cast<std::uint64_t>(n));
  }
  std::error_code ignored;
  const auto path = std::filesystem::absolute(shard.path(), ignored).lexically_normal();
  // A path need not be UTF-8, which JSON must be: only its hash is kept.
  return fmt::format("path {} {} header {}", hash_hex(path.string()), stamp->text, header.hex());
}

using Hashes = std::map<std::string, std::string>;  // tensor → hash

std::string digest_of(const std::string& id, const Hashes& hashes) {
  Hasher digest;
  digest.update(id);
  for (const auto& [name, hash] : hashes) {
    digest.update(name);
    digest.update(hash);
  }
  return digest.hex();
}

std::filesystem::path cache_file(const std::filesystem::path& cache_dir, const std::string& id) {
  return cache_dir / ("fingerprint-" + hash_hex(id) + ".json");
}

// An unreadable, foreign, stale or damaged entry is no entry: the shard is read again.
std::optional<Hashes> load_cached(const std::filesystem::path& path, const std::string& id,
                                  const SafetensorsFile& shard) {
  const auto json = read_json(path);
  if (!json || !json->is_object() || json->value("identity", Json()) != id) return {};
  const Json tensors = json->value("tensors", Json());
  if (!tensors.is_object() || tensors.size() != shard.tensors().size()) return {};
  Hashes found;
  for (const TensorView& t : shard.tensors()) {
    if (!tensors.contains(t.name) || !tensors[t.name].is_string()) return {};
    found[t.name] = tensors[t.name].get<std::string>();
  }
  if (json->value("digest", Json()) != digest_of(id, found)) return {};
  return found;
}

}  // namespace

Result<std::string> Checkpoint::fingerprint(const std::filesystem::path& cache_dir) const {
  return fingerprint_of(shards_, cache_dir);
}

Result<void> check_as_written(const Checkpoint& checkpoint, const std::string& fingerprint) {
  const auto path = checkpoint.dir() / "quantisation.json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return {};
  ASSAY_TRY(const Json json, read_json(path));
  const Json written = json.is_object() ? json.value("fingerprint", Json()) : Json();
  if (written.is_null() || written == fingerprint) return {};
  return fail(
      "{}: the tensors have the fingerprint {}, expected {} as quantisation.json says that they "
      "were "
      "written: a file is damaged or was changed. Copy or quantise the model again, or delete "
      "quantisation.json if the change was meant",
      checkpoint.dir().string(), fingerprint, written.dump());
}

Result<std::string> fingerprint_of(std::span<const SafetensorsFile> shards,
                                   const std::filesystem::path& cache_dir) {
  return fingerprint_of(shards, cache_dir, {});
}

Result<std::string> fingerprint_of(std::span<const SafetensorsFile> shards,
                                   const std::filesystem::path& cache_dir,
                                   const std::function<Result<void>()>& go_on) {
  Hashes all;
  for (const SafetensorsFile& shard : shards) {
    const auto id = cache_dir.empty() ? std::nullopt : identity(shard);
    if (id) {
      if (auto known = load_cached(cache_file(cache_dir, *id), *id, shard)) {
        all.merge(*known);
        continue;
      }
    }
    Hashes hashes;
    for (const TensorView& t : shard.tensors()) {
      if (go_on) ASSAY_TRY_VOID(go_on());
      hashes[t.name] = hash_of(t);
    }
    if (id && identity(shard) == id) {  // the file has not changed while it was read
      // A cache that cannot be written costs time, not correctness.
      std::error_code ignored;
      std::filesystem::create_directories(cache_dir, ignored);
      const Json entry = {
          {"identity", *id}, {"tensors", hashes}, {"digest", digest_of(*id, hashes)}};
      (void)write_file_atomic(cache_file(cache_dir, *id), entry.dump());
    }
    all.merge(hashes);
  }
  Hasher hasher;
  for (const auto& [name, hash] :
       all) {  // in order of name: how the tensors are sharded does not matter
    hasher.update(name);
    hasher.update(hash);
  }
  return hasher.hex();
}

}  // namespace assay::engine
