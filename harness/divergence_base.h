// A base's distributions in a file, so that a 1.4 TB teacher need not be kept:
// docs/formats/divergence-base.md.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "harness/divergence.h"

namespace assay::harness {

struct DivergenceBase {
  struct Text {
    std::string id, lang;
    std::vector<int> ids;
    int reply = 0, answer = 0;            // as text::CorpusText
    std::vector<BasePosition> positions;  // of ids[reply …]: one each
  };
  int vocab = 0;
  Json model;        // fingerprint, tokenizer, backend: who said this
  Json noise_floor;  // of the base against itself; null if it was not measured
  std::vector<Text> texts;
};

Result<void> write_base(const std::filesystem::path& path, const DivergenceBase& base);
// An error if there is a file of another kind, which write_base would replace.
Result<void> check_no_other_file(const std::filesystem::path& path);
Result<DivergenceBase> read_base(const std::filesystem::path& path);

}  // namespace assay::harness
