// Whether this build of assay still computes for a model what its golden says: teacher-forced along
// the golden's tokens, so that one tie does not hide the rest.
#pragma once

#include <functional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "harness/golden.h"
#include "harness/plan.h"
#include "harness/target.h"
#include "harness/verdict.h"

namespace assay::harness {

// The first position of a reply at which something moved by more than noise.
struct GoldenDivergence {
  std::string key;
  int position = 0;
  bool other_token =
      false;              // another token is the most likely now; else only its probability moved
  int was = -1, is = -1;  // the most likely token then and now
  std::string was_text, is_text;
  double margin = 0;          // of `was` over the next, then
  double logprob_change = 0;  // of the golden's token, now − then
  int n_positions = 0;        // of the reply that diverge
};

struct GoldenCheck {
  std::string name, folder;
  std::string reason;  // why it cannot be compared; empty: it was
  NoiseFloor noise;    // that was held against it
  int n_replies = 0,
      n_same = 0;  // replies that were looked at; those in which nothing moved at all
  long n_positions = 0;
  int n_ties = 0;  // another most likely token, where the golden's margin is below the noise floor
  int n_left_out = 0;  // replies that this run does not ask, or that do not fit into its context
  double max_logprob_change = 0, max_margin_change = 0;
  std::vector<GoldenDivergence> divergences;  // one per reply
  bool diverged() const { return !divergences.empty(); }
};

// What a problem of a verdict begins with whose golden is not comparable.
inline constexpr std::string_view kGoldenNotComparable = "not comparable with the golden";

// One reply, `now` being the target's figures at each of its tokens.
void check_reply(const GoldenReply& golden, std::span<const StepFigures> now, GoldenCheck& check);

// Goldens below `root` (<model>/runs/<name>) of exactly this model: the fingerprint decides. Where
// `root` is itself the folder of a golden, that one, whatever its model: what was named is to hold.
// A root that is not there is an error.
Result<std::vector<fs::path>> find_goldens(const fs::path& root, const Json& identity);

// Those replies that are among the plan's items and that the target's positions hold; the plan must
// have the suites' own samplers. A
// golden of another tokenizer, chat template, attention, suite version, sampler or prompt, or
// without a noise floor of the target's backend, is not comparable, which is no failure: `reason`
// says what differs and what to do.
GoldenCheck check_golden(const Golden& golden, const std::string& folder, const Plan& plan,
                         Target& target, const std::stop_token& stop = {},
                         const std::function<void(int n_done, int n_total)>& on_done = {});

// The largest changes between the golden and another arithmetic's figures at up to `n_replies` of
// its replies, evenly spread, times kNoiseFactor: the largest of some positions is not the largest
// of all. The golden's own backend gets the same floor, and so has the other one.
inline constexpr double kNoiseFactor = 2;
Result<void> measure_noise(Golden& golden, const Plan& plan, Target& other, int n_replies,
                           const std::function<void(int n_done, int n_total)>& on_done = {});

// A divergence is a regression, whatever the gates say; what cannot be compared is not valid.
void add_goldens(Verdict& verdict, std::span<const GoldenCheck> checks);

Json to_json(const GoldenCheck& check);

}  // namespace assay::harness
