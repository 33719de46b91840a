// For tests of assay quantize on the command line: a tiny model, a calibration set, and a build of
// one by the other that tests may copy.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "harness/cli/cli_testing.h"
#include "harness/cli/tiny_model.h"

namespace assay {

inline constexpr std::string_view kTexts =
    R"({"lang":"ja","messages":[{"role":"user","content":"127×8は？"}],"reply":"127×8=1016。</think>1016です。"}
{"lang":"en","messages":[{"role":"user","content":"Name two points about tea."}],"reply":"It is warm.</think>1. It is warm."}
{"lang":"zh","text":"箱子里有783个饼干，张敏拿走了91个。还剩多少个？"}
)";

class QuantizeCli : public Cli {
 protected:
  static void SetUpTestSuite() {
    std::string pattern = (fs::temp_directory_path() / "assay-quantize-XXXXXX").string();
    CHECK(mkdtemp(pattern.data()) != nullptr);
    built = pattern;
    make_tiny_model(built / "tiny");
    CHECK(write_file_atomic(built / "texts.jsonl", kTexts));
    const Outcome o = assay(arguments(built / "vq"));
    ASSERT_EQ(o.code, 0) << o.err;
  }
  static void TearDownTestSuite() { fs::remove_all(built); }

  static std::vector<std::string> arguments(const fs::path& out,
                                            std::vector<std::string> more = {}) {
    std::vector<std::string> all = {"quantize", built / "tiny", out};
    const std::pair<std::string, std::string> usual[] = {{"--tiers", "1,2"},
                                                         {"--bits", "1.5"},
                                                         {"--calibration", built / "texts.jsonl"},
                                                         {"--threads", "1"}};
    for (const auto& [flag, value] : usual)
      if (std::find(more.begin(), more.end(), flag) == more.end())
        all.insert(all.end(), {flag, value});
    all.insert(all.end(), {"--set", "n_rounds=2"});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  fs::path out() const { return dir_ / "out"; }
  void expect_refused(const Outcome& o, const ::testing::Matcher<const std::string&>& message) {
    expect_error(o, message);
    EXPECT_FALSE(fs::exists(out())) << "nothing is left where nothing was made";
  }
  fs::path copy_quantised() {
    fs::remove_all(dir_ / "copy");
    fs::copy(built / "vq", dir_ / "copy", fs::copy_options::recursive);
    return dir_ / "copy";
  }
  // Every file of a folder, by name.
  static std::map<std::string, std::string> files_of(const fs::path& folder) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder))
      if (entry.is_regular_file())
        files[fs::relative(entry.path(), folder).string()] = *read_file(entry.path());
    return files;
  }

  static inline fs::path built;
};

}  // namespace assay
