// A golden: what a build of assay computed for a model, token by token, so that a later one can be
// held to it (docs/formats/golden.md). Pure, but for reading and writing its folder.
#pragma once

#include <array>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/result.h"
#include "harness/sample.h"

namespace assay::harness {

inline constexpr int kGoldenFormat = 1;

// How far two arithmetics of the same model are apart at the golden's own tokens, in nats: the
// largest change of a token's log-probability, and of a margin between two tokens. What moves by
// less says nothing.
struct NoiseFloor {
  double logprob = 0, margin = 0;
  long n_positions = 0;  // that it was measured at
};

struct GoldenReply {
  // Exact figures are kept only where the choice was close.
  static constexpr double kSmallMargin = 0.5;   // nats
  static constexpr double kLargestMargin = 25;  // larger ones are kept as this
  static constexpr double kLogprobUnit = 1e-5;  // to which log-probabilities are rounded

  std::string key, prompt_hash, finish;
  std::vector<int> ids;
  std::vector<double> logprobs;  // of ids
  std::vector<double> margins;   // of the most likely token over the next, to 0.1
  // By position, where the margin is small or another token than the most likely was taken.
  std::map<int, std::array<TopToken, StepFigures::kTop>> top;

  int top1_at(int position) const;
  double margin_at(int position) const;  // exact where it is small
  // Of the most likely token over this one; infinite where that was not among the top.
  double margin_over(int position, int id) const;
  bool operator==(const GoldenReply&) const = default;
};

struct Golden {
  std::string name;                            // of its folder
  Json identity;                               // fingerprints and attention; not the backend
  std::string profile;                         // of the run that it was made from
  Json suites;                                 // [{"name", "version", "arms": {arm: sampling}}]
  Json made;                                   // commit, backend, kernel, command, started
  std::map<std::string, NoiseFloor> noise;     // by backend
  std::map<std::string, GoldenReply> replies;  // by key

  long n_positions() const;
};

// Of a complete run's record. A sample without its most likely tokens (a server's, an old record's)
// is an error; one that did not run is left out.
Result<Golden> make_golden(const Json& run, std::span<const Sample> samples);

// A folder with golden.json and replies.jsonl.gz.
Result<Golden> read_golden(const fs::path& folder);
Result<Json> read_golden_head(const fs::path& folder);  // golden.json alone
Result<void> write_golden(const fs::path& folder, const Golden& golden);
inline constexpr std::size_t kMaxGoldenBytes = std::size_t{4}
                                               << 20;  // of a folder, as it is written

// What accepting `now` would change of `was`.
struct GoldenDifference {
  enum class Kind { kNew, kGone, kChanged, kFigures };  // kFigures: same tokens, other numbers
  std::string key;
  Kind kind = Kind::kNew;
  int position = -1;      // kChanged: the first token that differs; kFigures: the largest change
  int was = -1, is = -1;  // token ids there; -1: the reply has ended
  double margin = 0;      // of `was` at that position
  double logprob_change = 0;  // largest of the reply, where tokens are the same
};
std::vector<GoldenDifference> difference_of(const Golden& was, const Golden& now);

}  // namespace assay::harness
