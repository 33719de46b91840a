#include "engine/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/hash.h"
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

// As cp -r makes of a snapshot of the hub's cache, in which every file is a link.
TEST(Checkpoint, ALinkToNothingIsNotCalledAMissingFile) {
  const TinyCheckpoint tiny;
  tiny.write_sharded(tiny_tensors());
  for (const char* name :
       {"model-00002-of-00002.safetensors", "model.safetensors.index.json", "config.json"}) {
    fs::remove(tiny.dir / name);
    fs::create_symlink("../../blobs/1a2b", tiny.dir / name);
    EXPECT_THAT(error_of(tiny.dir), HasSubstr(fmt::format("{} is a link to ../../blobs/1a2b, which "
                                                          "is not there",
                                                          name)));
  }
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
  for (const std::string& name :
       {std::string(".."), std::string(5000, 'x'), std::string("a\0b", 3)})
    EXPECT_THAT(with([&](Json& m) { m["model.norm.weight"] = name; }),
                HasSubstr("beside the index"))
        << name;
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

// micro-glm's files are older than the youth that forbids caching; those a test writes are not.
class CachedFingerprint : public ::testing::Test {
 protected:
  CachedFingerprint()
      : micro_(*Checkpoint::open(fs::path(ASSAY_SOURCE_DIR) / "golden/micro-glm/model")),
        plain_(*micro_.fingerprint()),
        cache_(tiny_.dir / "cache") {}

  std::string print() const { return *micro_.fingerprint(cache_); }
  fs::path entry() const { return fs::directory_iterator(cache_)->path(); }
  void overwrite(const std::string& text) const { std::ofstream(entry()) << text; }

  TinyCheckpoint tiny_;
  Checkpoint micro_;
  std::string plain_;
  fs::path cache_;
};

TEST_F(CachedFingerprint, IsReadFromTheCache) {
  EXPECT_EQ(print(), plain_);
  ASSERT_EQ(std::distance(fs::directory_iterator(cache_), fs::directory_iterator()), 1);
  EXPECT_EQ(print(), plain_);
  // An entry that is whole in itself but of other hashes: only a reader of the cache differs.
  Json json = *read_json(entry());
  json["tensors"]["model.norm.weight"] = "0";
  Hasher digest;
  digest.update(json["identity"].get<std::string>());
  for (const auto& [name, hash] : json["tensors"].items()) {
    digest.update(name);
    digest.update(hash.get<std::string>());
  }
  json["digest"] = digest.hex();
  overwrite(json.dump());
  EXPECT_NE(print(), plain_);
}

TEST_F(CachedFingerprint, ADamagedEntryIsNotBelieved) {
  ASSERT_EQ(print(), plain_);
  const Json good = *read_json(entry());
  Json changed = good;
  changed["tensors"]["model.norm.weight"] = "0";
  for (const Json& bad : {changed, Json(5), Json::object(), Json{{"identity", 5}},
                          Json{{"identity", good["identity"]}, {"tensors", 5}},
                          Json{{"identity", good["identity"]}, {"tensors", good["tensors"]}}}) {
    overwrite(bad.dump());
    EXPECT_EQ(print(), plain_) << bad.dump().substr(0, 80);
  }
  overwrite("not JSON");
  EXPECT_EQ(print(), plain_);
  EXPECT_EQ(*micro_.fingerprint("/proc/cannot/be/written"), plain_);
}

TEST(Fingerprint, AFileTooYoungToTellItsChangesApartIsNotCached) {
  const TinyCheckpoint tiny;
  const fs::path cache = tiny.dir / "cache", weights = tiny.dir / "model.safetensors";
  tiny.write_single(tiny_tensors());
  const auto before = fs::last_write_time(weights);
  const std::string first = *Checkpoint::open(tiny.dir)->fingerprint(cache);
  TinyTensors t = tiny_tensors();
  t["model.norm.weight"].bytes[0] ^= 1;
  tiny.write_single(t);
  fs::last_write_time(weights, before);  // same size, same time, other bytes
  EXPECT_NE(*Checkpoint::open(tiny.dir)->fingerprint(cache), first);
}

TEST(Fingerprint, NeedsNoPathInUtf8) {
  const TinyCheckpoint tiny;
  tiny.write_single(tiny_tensors());
  const fs::path odd = tiny.dir / "m\xff";
  fs::create_directory(odd);
  for (const char* file : {"config.json", "model.safetensors"})
    fs::copy_file(tiny.dir / file, odd / file);
  EXPECT_EQ(*Checkpoint::open(odd)->fingerprint(tiny.dir / "cache"),
            *Checkpoint::open(tiny.dir)->fingerprint());
}

}  // namespace
}  // namespace assay::engine
