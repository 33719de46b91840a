#include "base/hash.h"

#include <gtest/gtest.h>

#include <string>

namespace assay {
namespace {

std::string pattern() {
  std::string bytes(5000, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i % 251);
  return bytes;
}

// What `xxhsum -H2` and `xxhsum -H3` print: fingerprints in records must mean the same for ever.
TEST(Hash, IsXxh3) {
  EXPECT_EQ(hash_hex(""), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(hash_hex("abc"), "06b05ab6733a618578af5f94892f3950");
  EXPECT_EQ(hash_hex(pattern()), "b92ec02c39d33ce7b418500fc42320ee");
  EXPECT_EQ(hash_u64(""), 0x2d06800538d394c2u);
  EXPECT_EQ(hash_u64("assay"), 0xec260ebc9a765a0bu);
  EXPECT_EQ(hash_u64(pattern()), 0xb418500fc42320eeu);
}

TEST(Hasher, InPiecesEqualsTheWhole) {
  const std::string bytes = pattern();
  for (const std::size_t piece : {1u, 7u, 240u, 1024u, 4999u}) {
    Hasher hasher;
    for (std::size_t at = 0; at < bytes.size(); at += piece)
      hasher.update(bytes.data() + at, std::min(piece, bytes.size() - at));
    EXPECT_EQ(hasher.hex(), hash_hex(bytes)) << "pieces of " << piece;
  }
}

TEST(Hasher, TextsDoNotRunTogether) {
  Hasher one, other;
  one.update("ab");
  one.update("c");
  other.update("a");
  other.update("bc");
  EXPECT_NE(one.hex(), other.hex());
}

TEST(Hasher, NumbersAreLittleEndianBytes) {
  Hasher number, bytes;
  number.update_u64(0x0807060504030201u);
  bytes.update("\x01\x02\x03\x04\x05\x06\x07\x08", 8);
  EXPECT_EQ(number.hex(), bytes.hex());
}

TEST(Hasher, MayBeReadAndContinued) {
  Hasher hasher;
  hasher.update("abc", 3);
  EXPECT_EQ(hasher.hex(), hash_hex("abc"));
  hasher.update("def", 3);
  EXPECT_EQ(hasher.hex(), hash_hex("abcdef"));
}

}  // namespace
}  // namespace assay
