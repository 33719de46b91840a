#include <algorithm>

#include "harness/selftest.h"
#include "harness/table.h"

namespace assay::harness {
namespace {

constexpr std::size_t kShownReasons = 2;

std::string outcome_of(const Detection& d) {
  if (d.caught()) return d.state;
  return d.strong ? "MISSED" : "missed";
}

// A refusal says what to do next, which here is nothing.
std::string first_sentence(const std::string& text) { return text.substr(0, text.find(". ")); }

std::string reasons_of(const Detection& d) {
  std::string out;
  for (std::size_t i = 0; i < std::min(d.by.size(), kShownReasons); ++i)
    out += (i == 0 ? "" : "; ") + first_sentence(d.by[i]);
  if (d.by.size() > kShownReasons) out += fmt::format("; {} more", d.by.size() - kShownReasons);
  return out;
}

std::string needed_of(const Detection& d) {
  if (d.state == "refused") return "0";
  if (!d.caught()) return fmt::format("– of {}", d.n_samples);
  if (d.n_needed == 0) return fmt::format("{} texts", d.n_texts_needed);
  return fmt::format("{} of {}", d.n_needed, d.n_samples);
}

std::string minutes_of(const Detection& d) {
  return d.caught() && d.state != "refused" ? fmt::format("{:.1f}", d.minutes_needed)
         : d.caught()                       ? "0"
                                            : "–";
}

std::string escaped(std::string text) {  // for a cell of a Markdown table
  std::string out;
  for (const char c : text) out += c == '|' ? "\\|" : std::string(1, c);
  return out;
}

}  // namespace

std::string selftest_table(std::span<const Detection> detections) {
  std::string out;
  for (const Detection& d : detections)
    out += fmt::format("  {:<24} {:<5} {:<7} {:<11} {:>11}  {}\n", d.fault, d.build,
                       d.strong ? "strong" : "weak", outcome_of(d), needed_of(d), reasons_of(d));
  const auto n_strong = std::count_if(detections.begin(), detections.end(),
                                      [](const Detection& d) { return d.strong; });
  const auto n_caught = std::count_if(detections.begin(), detections.end(),
                                      [](const Detection& d) { return d.strong && d.caught(); });
  const auto n_weak = std::count_if(detections.begin(), detections.end(),
                                    [](const Detection& d) { return !d.strong && d.caught(); });
  return out + fmt::format("\n  {} of {} strong faults caught, {} of {} weak ones\n", n_caught,
                           n_strong, n_weak,
                           static_cast<std::ptrdiff_t>(detections.size()) - n_strong);
}

std::string selftest_markdown(std::span<const Detection> detections) {
  std::string out =
      "| fault | strength | build | must be caught | ended in | cases needed | minutes | by |\n"
      "| --- | --- | --- | --- | --- | ---: | ---: | --- |\n";
  for (const Detection& d : detections)
    out += fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} |\n", escaped(d.what),
                       escaped(d.strength), d.build, d.strong ? "yes" : "no", outcome_of(d),
                       needed_of(d), minutes_of(d), escaped(reasons_of(d)));
  return out;
}

std::string false_fail_text(const FalseFails& f) {
  if (f.n_nights == 0) return "no night was run\n";
  return fmt::format(
      "{} nights of a healthy model against itself, {} replies, {} tokens drawn: {} suspected at "
      "the first stage, {} failed after the second, {} inconclusive.\n"
      "False failures: {:.2f} % of nights, at most {:.2f} % (upper 95 % bound, Clopper and "
      "Pearson). The sampler was accused in {}; gates written for greedy decoding would have "
      "failed in {}.\n",
      f.n_nights, f.n_samples, f.n_tokens, f.n_suspected, f.n_failed, f.n_inconclusive,
      100.0 * f.n_failed / f.n_nights, 100 * f.upper95, f.n_sampler, f.n_gates);
}

}  // namespace assay::harness
