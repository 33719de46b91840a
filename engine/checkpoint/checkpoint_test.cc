#include "engine/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/checkpoint/tiny_checkpoint.h"

namespace assay::engine {
namespace {

using ::testing::HasSubstr;

std::string error_of(const fs::path& dir) {
  const auto c = Checkpoint::open(dir);
  EXPECT_FALSE(c.has_value());
  return c ? "" : c.error().message;
}

TEST(Checkpoint, AMissingFolderFileOrShardIsNamed) {
  EXPECT_THAT(error_of("/nowhere"), HasSubstr("/nowhere"));
  const TinyCheckpoint tiny;
  EXPECT_THAT(error_of(tiny.dir), HasSubstr("model.safetensors"));
  tiny.write_sharded(tiny_tensors());
  EXPECT_TRUE(Checkpoint::open(tiny.dir).has_value());
  fs::remove(tiny.dir / "model-00002-of-00002.safetensors");
  EXPECT_THAT(error_of(tiny.dir), HasSubstr("model-00002-of-00002.safetensors is missing"));
}

TEST(Checkpoint, AnIndexThatContradictsTheShardsIsAnError) {
  const TinyCheckpoint tiny;
  tiny.write_sharded(tiny_tensors());
  const auto path = tiny.dir / "model.safetensors.index.json";
  const Json good = *read_json(path);
  const auto with = [&](auto change) {
    Json index = good;
    change(index["weight_map"]);
    tiny.write("model.safetensors.index.json", index.dump());
    return error_of(tiny.dir);
  };
  EXPECT_THAT(with([](Json& m) { m.erase("model.norm.weight"); }), HasSubstr("does not name it"));
  EXPECT_THAT(with([](Json& m) { m["extra"] = "model-00001-of-00002.safetensors"; }),
              HasSubstr("extra"));
  EXPECT_THAT(with([](Json& m) {
                m["model.norm.weight"] =
                    m["model.norm.weight"] == "model-00001-of-00002.safetensors"
                        ? "model-00002-of-00002.safetensors"
                        : "model-00001-of-00002.safetensors";
              }),
              HasSubstr("model.norm.weight"));
  EXPECT_THAT(with([](Json& m) { m["model.norm.weight"] = "../../etc/passwd"; }),
              HasSubstr("beside the index"));
}

TEST(Fingerprint, IsOfTheContentAndNotOfTheSharding) {
  const TinyCheckpoint single, sharded, changed;
  single.write_single(tiny_tensors());
  sharded.write_sharded(tiny_tensors());
  TinyTensors t = tiny_tensors();
  t["model.norm.weight"].bytes[0] ^= 1;
  changed.write_single(t);
  const auto print = [](const TinyCheckpoint& c) {
    return *Checkpoint::open(c.dir)->fingerprint();
  };
  EXPECT_EQ(print(single), print(sharded));
  EXPECT_NE(print(single), print(changed)) << "one flipped bit";
  TinyTensors renamed = tiny_tensors();
  std::swap(renamed["model.layers.1.input_layernorm.weight"],
            renamed["model.layers.2.input_layernorm.weight"]);
  changed.write_single(renamed);
  EXPECT_NE(print(single), print(changed)) << "the same bytes under other names";
}

TEST(Fingerprint, IsReadFromTheCacheUntilTheFileChanges) {
  const TinyCheckpoint tiny;
  const fs::path cache = tiny.dir / "cache";
  tiny.write_single(tiny_tensors());
  const std::string first = *Checkpoint::open(tiny.dir)->fingerprint(cache);
  EXPECT_EQ(first, *Checkpoint::open(tiny.dir)->fingerprint());
  // Tamper with the cached hash: if the cache is used, the answer changes with it.
  ASSERT_EQ(std::distance(fs::directory_iterator(cache), fs::directory_iterator()), 1);
  const fs::path entry = fs::directory_iterator(cache)->path();
  Json json = *read_json(entry);
  json["tensors"]["model.norm.weight"] = "0";
  std::ofstream(entry) << json.dump();
  EXPECT_NE(*Checkpoint::open(tiny.dir)->fingerprint(cache), first);
  // A rewritten shard has another identity: the stale entry is not used.
  fs::last_write_time(tiny.dir / "model.safetensors",
                      fs::file_time_type::clock::now() + std::chrono::seconds(5));
  EXPECT_EQ(*Checkpoint::open(tiny.dir)->fingerprint(cache), first);
  std::ofstream(entry) << "not JSON";
  EXPECT_EQ(*Checkpoint::open(tiny.dir)->fingerprint("/proc/cannot/be/written"), first);
}

}  // namespace
}  // namespace assay::engine
