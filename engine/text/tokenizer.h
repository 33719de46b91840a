// Byte-level BPE from a Hugging Face tokenizer.json, as GLM-5.2 ships it.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace assay::text {

class Tokenizer {
 public:
  // Reads a tokenizer.json: model BPE (merges as "a b" strings or as ["a","b"] pairs),
  // pre_tokenizer a Split with the file's own regex and/or ByteLevel, added tokens with their
  // flags. What this class does not implement (another model type, a normaliser, dropout …) is an
  // error that names the field.
  static Result<Tokenizer> load(const std::filesystem::path& tokenizer_json);
  static Result<Tokenizer> parse(std::string_view json, std::string_view source);

  // Ids of `utf8`. Text that spells an added token ("<|user|>") becomes that token, as in the
  // reference implementation, unless `split_added` is false. No token is added at either end.
  // Invalid UTF-8 is an error that names the byte offset.
  Result<std::vector<int>> encode(std::string_view utf8, bool split_added = true) const;

  // Bytes of the ids, with what is not valid UTF-8 replaced by U+FFFD; an id outside the vocabulary
  // is an error.
  Result<std::string> decode(std::span<const int> ids, bool skip_special = false) const;

  int vocab_size() const;                // largest id + 1
  bool has(int id) const;                // ids may have gaps
  std::string_view bytes(int id) const;  // raw bytes of one token (empty if !has(id))
  bool is_special(int id) const;         // an added token with "special": true
  std::optional<int> id_of(
      std::string_view content) const;     // an added token by its text, else a vocabulary entry
  const std::string& fingerprint() const;  // hash of the file's bytes

 private:
  friend class StreamDecoder;
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

// Decodes a reply token by token. push() returns what can be shown already: never half a UTF-8
// character. The pieces and finish() together equal Tokenizer::decode of all ids.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = false);
  std::string push(int id);
  std::string finish();

 private:
  Tokenizer tokenizer_;
  bool skip_special_;
  std::string pending_;
};

}  // namespace assay::text
