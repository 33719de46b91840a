// A tiny checkpoint and six texts to quantise it by, for tests of whole runs.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "base/rng.h"
#include "engine/checkpoint/tiny_checkpoint.h"
#include "engine/quantize/quantize.h"

namespace assay::engine {

class TinyQuantisation : public ::testing::Test {
 protected:
  TinyQuantisation() {
    tiny_.write_single(tiny_tensors());
    tiny_.write("tokenizer.json", "{}");
    fs::create_directories(builds_);
  }
  ~TinyQuantisation() override { fs::remove_all(builds_); }

  // Three tiers; everything else of the recipe as it is by default.
  QuantizeInput plain_input(const std::string& out) const {
    QuantizeInput in;
    in.model = tiny_.dir;
    in.out = builds_ / out;
    for (std::uint64_t t = 0; t < 6; ++t) {
      CalibrationText text{.lang = t % 2 == 0 ? "ja" : "en", .ids = {}};
      for (std::uint64_t i = 0; i < 20 + t; ++i)
        text.ids.push_back(static_cast<int>(40 * uniform_at(3, t, i)));
      in.texts.push_back(text);
    }
    in.calibration = "test";
    in.recipe.tiers = {{"one", 2, 4}, {"two", 2, 16}, {"three", 1, 8}};
    in.recipe.group = 4;
    in.n_threads = 1;
    return in;
  }

  // Every file of a folder, by name.
  static std::map<std::string, std::string> files_of(const fs::path& folder) {
    std::map<std::string, std::string> out;
    for (const auto& entry : fs::recursive_directory_iterator(folder))
      if (entry.is_regular_file()) out[entry.path().filename().string()] = *read_file(entry.path());
    return out;
  }

  TinyCheckpoint tiny_;
  const fs::path builds_ = tiny_.dir.string() + "-builds";
};

}  // namespace assay::engine
