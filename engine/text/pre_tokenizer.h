// Cuts text into the pieces that byte-pair encoding works on, by the tokenizer file's own regex.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace assay::text {

class PreTokenizer {
 public:
  // "pre_tokenizer" of a tokenizer.json: ByteLevel, Split with a regex ("Isolated"), or a Sequence
  // of those.
  static Result<PreTokenizer> parse(const Json& json, std::string_view source);
  PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;
  ~PreTokenizer();

  // Calls `piece` for each piece in order; together they are `utf8` (valid UTF-8). Thread-safe. The
  // error is a regex that ran out of its time limit, on pathological text.
  Result<void> split(std::string_view utf8,
                     const std::function<void(std::string_view)>& piece) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace assay::text
