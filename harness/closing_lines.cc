#include "harness/closing_lines.h"

#include <fmt/format.h>

#include <vector>

#include "base/plural.h"

namespace assay::harness {
namespace {

// As they are written: a space within quotes or after a backslash ends no word.
std::vector<std::string_view> words_of(std::string_view command) {
  std::vector<std::string_view> words;
  bool is_quoted = false;
  std::size_t begin = 0;
  for (std::size_t i = 0; i <= command.size(); ++i) {
    const bool is_end = i == command.size() || (command[i] == ' ' && !is_quoted);
    if (is_end && i > begin) words.push_back(command.substr(begin, i - begin));
    if (is_end) begin = i + 1;
    if (i == command.size()) break;
    if (command[i] == '\'') is_quoted = !is_quoted;
    if (command[i] == '\\' && !is_quoted) ++i;
  }
  return words;
}

}  // namespace

std::string golden_line(const Json& check) {
  const std::string name = check.at("name").get<std::string>();
  if (check.at("state") == "not_comparable") return fmt::format("golden {}: not comparable", name);
  const int n = check.at("n_replies").get<int>();
  const std::size_t n_diverged = check.at("divergences").size();
  return fmt::format(
      "golden {}: {} ({}{}; log p moved by {:.2g} at most, noise floor {:.2g})", name,
      n_diverged == 0 ? (n == 1 ? "its one reply is computed as before"
                                : fmt::format("all {} replies are computed as before", n))
                      : fmt::format("{} of {} replies are computed otherwise", n_diverged, n),
      counted(check.at("n_positions").get<long>(), "token"),
      check.at("n_ties") == 0 ? "" : ", " + counted(check.at("n_ties").get<int>(), "tie"),
      check.at("max_logprob_change").get<double>(),
      check.at("noise_floor").at("logprob").get<double>());
}

std::string judged_text(const Json& group) {
  const int n = group.at("n").get<int>(), n_judged = group.at("accuracy").at("n").get<int>();
  return n == n_judged ? fmt::format("{}", n) : fmt::format("{} of {}", n_judged, n);
}

std::string command_again(std::string_view command) {
  std::string out;
  bool is_folder = false;
  for (const std::string_view word : words_of(command)) {
    const bool is_left_out = is_folder || word == "--out" || word.starts_with("--out=");
    is_folder = word == "--out";
    if (!is_left_out) out += fmt::format("{}{}", out.empty() ? "" : " ", word);
  }
  return out;
}

}  // namespace assay::harness
