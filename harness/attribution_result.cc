#include "harness/attribution_result.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "harness/table.h"

namespace assay::harness {
namespace {

constexpr std::size_t kSuspectsShown = 6;

Json number(double x) { return std::isfinite(x) ? Json(x) : Json(); }

std::string shortened(const std::string& text) {  // the last line, which holds the answer
  const auto end = text.find_last_not_of(" \n");
  if (end == std::string::npos) return "(nothing)";
  const auto line = text.rfind('\n', end);
  return text.substr(line == std::string::npos ? 0 : line + 1,
                     end - (line == std::string::npos ? 0 : line + 1) + 1);
}

std::string verdict_line(const AttributionReport& r) {
  const Attribution& a = r.attribution;
  if (!a.reverts)
    return r.interrupted ? "interrupted before anything was found"
                         : "not even all of them make it right";
  if (a.sites.empty()) return "no weights are needed: it is right as it is";
  return fmt::format("{} of {} make it right again{}", a.sites.size(), r.n_sites,
                     a.is_minimal ? "; none of these can be left out:"
                                  : "; the search ended before none could be left out:");
}

std::string evidence_table(const AttributionReport& r, bool colour) {
  std::vector<std::vector<Cell>> rows(1);
  for (const char* name :
       {"model", "right", "log p (base's reply)", "recovered", "margin", "answer"})
    rows[0].push_back({name, name[0] == 'l' || name[0] == 'm' || name[0] == 'r', Ink::kSoft});
  rows[0][0].right = rows[0][1].right = false;
  for (const AttributionEvidence& e : r.evidence)
    for (std::size_t c = 0; c < e.answers.size(); ++c) {
      const bool first = c == 0;
      const AttributionEvidence::Answer& answer = e.answers[c];
      const bool right = answer.outcome == "correct" || answer.outcome == "answered";
      rows.push_back({{first ? e.model : ""},
                      {answer.outcome, false, right ? Ink::kGood : Ink::kBad},
                      {first ? fmt::format("{:.3f}", e.logprob) : "", true},
                      {first ? fmt::format("{:.0f} %", 100 * e.recovery) : "", true},
                      {fmt::format("{:+.3f}", answer.margin), true},
                      {shortened(answer.answer)}});
    }
  return table_text(rows, colour);
}

}  // namespace

Json to_json(const AttributionReport& r) {
  const Attribution& a = r.attribution;
  Json out = {{"base", r.base},
              {"candidate", r.candidate},
              {"n_differing", r.n_sites},
              {"reverts", a.reverts},
              {"found", r.found},
              {"n_found", a.sites.size()},
              {"is_minimal", a.is_minimal},
              {"interrupted", r.interrupted},
              {"n_tests", a.n_tests},
              {"n_recoveries", a.n_recoveries},
              {"cases", Json::array()},
              {"levels", Json::array()},
              {"evidence", Json::array()}};
  for (const AttributionCase& c : r.cases)
    out["cases"].push_back({{"key", c.key},
                            {"question", c.question},
                            {"expected", c.expected},
                            {"parting", c.parting},
                            {"base_token", c.base_token},
                            {"candidate_token", c.candidate_token}});
  for (const AttributionLevel& level : a.levels) {
    Json suspects = Json::array();
    for (const Suspect& s : level.suspects)
      suspects.push_back({{"name", s.name}, {"recovery", number(s.recovery)}});
    out["levels"].push_back({{"name", level.name},
                             {"n_groups", level.n_groups},
                             {"n_tests", level.n_tests},
                             {"found", level.found},
                             {"recovery", number(level.recovery)},
                             {"suspects", std::move(suspects)}});
  }
  for (const AttributionEvidence& e : r.evidence) {
    Json answers = Json::array();
    for (const AttributionEvidence::Answer& answer : e.answers)
      answers.push_back({{"case", answer.case_key},
                         {"answer", answer.answer},
                         {"outcome", answer.outcome},
                         {"margin", number(answer.margin)}});
    out["evidence"].push_back({{"model", e.model},
                               {"all_right", e.all_right},
                               {"logprob", number(e.logprob)},
                               {"recovery", number(e.recovery)},
                               {"answers", std::move(answers)}});
  }
  return out;
}

std::string render_attribution(const AttributionReport& r, bool colour) {
  std::string out;
  for (const AttributionCase& c : r.cases) {
    out += fmt::format("{}: {}\n", painted(c.key, Ink::kBold, colour), shortened(c.question));
    out += fmt::format(
        "  expected {}; at reply token {} the base says {}, the candidate {}\n",
        c.expected.empty() ? "an answer" : c.expected, c.parting,
        c.base_token.empty() ? "nothing" : fmt::format("\"{}\"", c.base_token),
        c.candidate_token.empty() ? "nothing" : fmt::format("\"{}\"", c.candidate_token));
  }
  out += fmt::format("\nOf the base's weights in the candidate, {}\n", verdict_line(r));
  for (const std::string& name : r.found)
    out += fmt::format("  {}\n", painted(name, Ink::kBad, colour));
  if (!r.evidence.empty()) out += "\n" + evidence_table(r, colour);
  for (const AttributionLevel& level : r.attribution.levels) {
    out += fmt::format("\nby {}: {} groups, {} tests; of the way to the base's reply\n", level.name,
                       level.n_groups, level.n_tests);
    if (level.found.size() > 1)
      out += fmt::format("  {:>5.0f} %  what was found, together\n", 100 * level.recovery);
    for (std::size_t i = 0; i < std::min(kSuspectsShown, level.suspects.size()); ++i) {
      const Suspect& s = level.suspects[i];
      const bool found =
          std::find(level.found.begin(), level.found.end(), s.name) != level.found.end();
      out +=
          fmt::format("  {:>5.0f} %  {}{}\n", 100 * s.recovery, s.name, found ? "  ← found" : "");
    }
  }
  out += fmt::format("\n{} tests with a reply each, {} readings of the base's reply\n",
                     r.attribution.n_tests, r.attribution.n_recoveries);
  return out;
}

}  // namespace assay::harness
