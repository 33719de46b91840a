// A model's fingerprint, and the cache that keeps it from reading 167 GiB again.
#include <sys/stat.h>

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

// What says that a shard is still the file that was hashed: its path, size and modification time in
// nanoseconds.
std::string identity(const std::filesystem::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return "";
  return fmt::format("{}|{}|{}.{:09}|{}", std::filesystem::absolute(path).string(), info.st_size,
                     info.st_mtim.tv_sec, info.st_mtim.tv_nsec, info.st_ino);
}

using Hashes = std::map<std::string, std::string>;  // tensor → hash

std::filesystem::path cache_file(const std::filesystem::path& cache_dir, const std::string& id) {
  return cache_dir / ("fingerprint-" + hash_hex(id) + ".json");
}

// An unreadable, foreign or stale entry is no entry: the shard is read again.
bool load_cached(const std::filesystem::path& path, const std::string& id,
                 const SafetensorsFile& shard, Hashes& out) {
  const auto json = std::filesystem::exists(path) ? read_json(path) : fail("absent");
  if (!json || !json->is_object() || json->value("identity", "") != id ||
      !json->contains("tensors"))
    return false;
  const Json& tensors = (*json)["tensors"];
  if (!tensors.is_object() || tensors.size() != shard.tensors().size()) return false;
  Hashes found;
  for (const TensorView& t : shard.tensors()) {
    if (!tensors.contains(t.name) || !tensors[t.name].is_string()) return false;
    found[t.name] = tensors[t.name].get<std::string>();
  }
  out.merge(found);
  return true;
}

}  // namespace

Result<std::string> Checkpoint::fingerprint(const std::filesystem::path& cache_dir) const {
  Hashes all;
  for (const SafetensorsFile& shard : shards_) {
    const std::string id = identity(shard.path());
    const bool use_cache = !cache_dir.empty() && !id.empty();
    if (use_cache && load_cached(cache_file(cache_dir, id), id, shard, all)) continue;
    Hashes hashes;
    for (const TensorView& t : shard.tensors()) hashes[t.name] = hash_of(t);
    if (use_cache) {
      // A cache that cannot be written costs time, not correctness.
      std::error_code ignored;
      std::filesystem::create_directories(cache_dir, ignored);
      (void)write_file_atomic(cache_file(cache_dir, id),
                              Json{{"identity", id}, {"tensors", hashes}}.dump());
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
