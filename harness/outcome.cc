#include "harness/outcome.h"

#include <algorithm>
#include <array>

namespace assay::harness {
namespace {

constexpr std::array<std::string_view, 7> kTermination = {
    "closed", "no_close", "closed_empty", "eos_in_think", "truncated_answer", "error", "timeout"};
constexpr std::array<std::string_view, 5> kDegeneration = {"none", "loop_exact", "loop_near",
                                                           "degenerate_token", "language_drift"};
constexpr std::array<std::string_view, 4> kCorrectness = {"correct", "wrong", "unextractable",
                                                          "not_judged"};
constexpr std::string_view kAnswered = "answered";
constexpr std::array<std::string_view, 14> kClasses = {
    "correct",          kAnswered,          "wrong",        "unextractable", "language_drift",
    "truncated_answer", "closed_empty",     "eos_in_think", "no_close",      "loop_near",
    "loop_exact",       "degenerate_token", "timeout",      "error"};

template <class Enum, std::size_t n>
std::optional<Enum> parse(std::string_view name, const std::array<std::string_view, n>& names) {
  const auto at = std::find(names.begin(), names.end(), name);
  if (at == names.end()) return std::nullopt;
  return static_cast<Enum>(at - names.begin());
}

}  // namespace

std::string_view name_of(Termination t) { return kTermination[static_cast<std::size_t>(t)]; }
std::string_view name_of(Degeneration d) { return kDegeneration[static_cast<std::size_t>(d)]; }
std::string_view name_of(Correctness c) { return kCorrectness[static_cast<std::size_t>(c)]; }
std::optional<Termination> parse_termination(std::string_view name) {
  return parse<Termination>(name, kTermination);
}
std::optional<Degeneration> parse_degeneration(std::string_view name) {
  return parse<Degeneration>(name, kDegeneration);
}
std::optional<Correctness> parse_correctness(std::string_view name) {
  return parse<Correctness>(name, kCorrectness);
}

std::string_view class_of(const Outcome& o) {
  const bool drifted = o.degeneration == Degeneration::kLanguageDrift;
  switch (o.termination) {
    case Termination::kError:
    case Termination::kTimeout:
      return name_of(o.termination);
    case Termination::kClosed:
      if (drifted && o.correctness != Correctness::kCorrect) return name_of(o.degeneration);
      return o.correctness == Correctness::kNotJudged ? kAnswered : name_of(o.correctness);
    default:
      return o.degeneration == Degeneration::kNone || drifted ? name_of(o.termination)
                                                              : name_of(o.degeneration);
  }
}

std::span<const std::string_view> all_classes() { return kClasses; }

std::optional<Loop> find_suffix_loop(std::span<const int> ids) {
  const int n = static_cast<int>(ids.size());
  for (int period = 1; period <= kMaxPeriod && kMinCopies * period <= n; ++period) {
    // The longest suffix in which every token equals the one a period before it.
    int start = n - 1;
    while (start >= period && ids[start] == ids[start - period]) --start;
    const int length = n - (start - period + 1);
    if (length >= kMinCopies * period && length >= kMinLoopTokens)
      return Loop{n - length, period, length / period};
  }
  return std::nullopt;
}

}  // namespace assay::harness
