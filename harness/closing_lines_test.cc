#include "harness/closing_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/complete_run.h"
#include "harness/console.h"
#include "harness/summary_md.h"

namespace assay::harness {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

Json golden(const char* state, int n_divergences) {
  return {{"name", "base"},
          {"state", state},
          {"n_replies", 6},
          {"n_positions", 1234},
          {"n_ties", 2},
          {"max_logprob_change", 3.21e-7},
          {"noise_floor", {{"logprob", 2e-5}}},
          {"divergences", std::vector<int>(static_cast<std::size_t>(n_divergences))}};
}

TEST(ClosingLines, TerminalAndSummarySayTheSameOfAGolden) {
  const std::string as_before =
      "golden base: all 6 replies are computed as before (1234 tokens, 2 ties; log p moved by "
      "3.2e-07 at most, noise floor 2e-05)";
  const std::string otherwise =
      "golden base: 1 of 6 replies are computed otherwise (1234 tokens, 2 ties; log p moved by "
      "3.2e-07 at most, noise floor 2e-05)";
  for (const auto& [check, line] : {std::pair{golden("pass", 0), as_before},
                                    {golden("diverged", 1), otherwise},
                                    {golden("not_comparable", 0), "golden base: not comparable"}}) {
    EXPECT_EQ(golden_line(check), line);
    Json run = complete_run(full_samples());
    run["goldens"] = {check};
    EXPECT_THAT(render_console(run, {}), HasSubstr("  " + line + "\n"));
    EXPECT_THAT(render_summary(run, "out"), HasSubstr("- " + line + "\n"));
  }
}

TEST(ClosingLines, OneReplyIsNotManyReplies) {
  Json one = golden("pass", 0);
  one["n_replies"] = one["n_positions"] = one["n_ties"] = 1;
  EXPECT_THAT(golden_line(one),
              HasSubstr("its one reply is computed as before (1 token, 1 tie; log p"));
}

TEST(ClosingLines, AnAccuracyIsOfTheJudgedSamples) {
  std::vector<Sample> samples = full_samples();
  Json run = complete_run(samples);
  EXPECT_THAT(render_summary(run, "out"), HasSubstr("| sums | thinking | 7 | 100.0 %"));
  for (std::size_t i = 0; i < 3; ++i)  // asked, and nobody says what is right
    samples[i].scoring = Scoring::kNone;
  run = complete_run(samples);
  for (const std::string& text : {render_console(run, {}), render_summary(run, "out")})
    EXPECT_THAT(text, AllOf(HasSubstr("judged"), HasSubstr(" of 7 ")));
}

TEST(ClosingLines, TheCommandAgainNamesNoFolderThatIsThere) {
  EXPECT_EQ(command_again("assay run sums --model m"), "assay run sums --model m");
  EXPECT_EQ(command_again("assay run sums --out out/a --model m"), "assay run sums --model m");
  EXPECT_EQ(command_again("assay run --out=out/a sums"), "assay run sums");
  EXPECT_EQ(command_again("assay run sums --out 'my '\\''own'\\'' run' --model 'a b'"),
            "assay run sums --model 'a b'");
  EXPECT_EQ(command_again("assay run 'x --out y' --output z"), "assay run 'x --out y' --output z");
  Json run = complete_run(full_samples());
  run["provenance"]["command"] = "assay run sums --model m --out 'out/a b'";
  for (const std::string& text : {render_console(run, {}), render_summary(run, "out")})
    EXPECT_THAT(text, AllOf(HasSubstr("assay run sums --model m\n"), Not(HasSubstr("--out"))));
}

}  // namespace
}  // namespace assay::harness
