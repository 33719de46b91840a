#include "harness/console.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "base/plural.h"
#include "harness/closing_lines.h"
#include "harness/compare_table.h"
#include "harness/measure_suite.h"
#include "harness/step_counts.h"
#include "harness/table.h"

namespace assay::harness {
namespace {

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

std::string interval(const Json& rate) {
  return fmt::format("[{:.1f}, {:.1f}]", 100 * rate.at("lo").get<double>(),
                     100 * rate.at("hi").get<double>());
}

std::string measured(const Json& rate) {
  if (rate.at("n") == 0) return "–";
  return percent(rate.at("estimate").get<double>()) + " " + interval(rate);
}

std::string text_of(const Json& json, const char* key) { return json.at(key).get<std::string>(); }

std::string row_name(const Json& group) {
  return fmt::format("{} · {}{}", text_of(group, "suite"), text_of(group, "arm"),
                     group.at("gated").get<bool>() ? "" : " (in no gate)");
}

std::string accuracy_table(const Json& metrics, bool colour) {
  std::vector<std::string> languages;
  for (const Json& g : metrics)
    if (text_of(g, "kind").empty() && !text_of(g, "language").empty() &&
        std::find(languages.begin(), languages.end(), g.at("language")) == languages.end())
      languages.push_back(text_of(g, "language"));
  std::vector<std::vector<Cell>> rows;
  rows.push_back({{"accuracy [95 %]", false, Ink::kSoft},
                  {"judged", true, Ink::kSoft},
                  {"all", false, Ink::kSoft}});
  for (const std::string& language : languages) rows[0].push_back({language, false, Ink::kSoft});
  for (const Json& total : metrics) {
    if (!text_of(total, "kind").empty() || !text_of(total, "language").empty()) continue;
    const bool gated = total.at("gated").get<bool>();
    std::vector<Cell> row = {{row_name(total)},
                             {judged_text(total), true},
                             {measured(total.at("accuracy")), false, Ink::kBold}};
    for (const std::string& language : languages) {
      const auto found = std::find_if(metrics.begin(), metrics.end(), [&](const Json& g) {
        return g.at("suite") == total.at("suite") && g.at("arm") == total.at("arm") &&
               g.at("gated") == gated && g.at("kind").get_ref<const std::string&>().empty() &&
               g.at("language") == language;
      });
      row.push_back({found == metrics.end() ? "–" : measured(found->at("accuracy"))});
    }
    rows.push_back(std::move(row));
  }
  return table_text(rows, colour);
}

bool is_total(const Json& group) {
  return text_of(group, "kind").empty() && text_of(group, "language").empty();
}

// How thinking goes, for arms in which there is any.
std::string thinking_table(const Json& metrics, bool colour) {
  std::vector<std::vector<Cell>> rows = {{{"thinking", false, Ink::kSoft},
                                          {"n", true, Ink::kSoft},
                                          {"closed [95 %]", false, Ink::kSoft},
                                          {"answered", true, Ink::kSoft},
                                          {"tokens p50 / p90 / max", true, Ink::kSoft},
                                          {"still at 256 / 1K / 4K", true, Ink::kSoft},
                                          {"languages right", true, Ink::kSoft},
                                          {"hesitations / 1K", true, Ink::kSoft},
                                          {"reached, not said", true, Ink::kSoft}}};
  for (const Json& g : metrics) {
    const Json& tokens = g.at("thinking_tokens");
    if (!is_total(g) || tokens.at("survival").empty()) continue;
    const auto still_at = [&](int n) -> std::string {
      for (const Json& p : tokens.at("survival"))
        if (p.at("n_tokens") == n)
          return fmt::format("{:.0f} %", 100 * p.at("share").get<double>());
      // The curve ends where nobody is left: at 0 if all closed, else it is not known.
      const Json& last = tokens.at("survival").back();
      return n > last.at("n_tokens").get<int>() && last.at("share").get<double>() == 0 ? "0 %"
                                                                                       : "?";
    };
    const auto share = [&](const char* key) {
      const Json& rate = g.at(key);
      return rate.at("n") == 0 ? std::string("–") : percent(rate.at("estimate").get<double>());
    };
    const int n_forced = tokens.at("n_forced").get<int>();
    rows.push_back(
        {{row_name(g)},
         {fmt::format("{}", g.at("n").get<int>()), true},
         {measured(g.at("closed")) + (n_forced ? fmt::format(", {} by force", n_forced) : "")},
         {share("answered"), true},
         {tokens.at("n") == 0
              ? std::string("–")  // none closed, so no length is known
              : fmt::format("{} / {} / {}", tokens.at("p50").get<double>(),
                            tokens.at("p90").get<double>(), tokens.at("max").get<double>()),
          true},
         {fmt::format("{} / {} / {}", still_at(256), still_at(1024), still_at(4096)), true},
         {share("language_right"), true},
         {fmt::format("{:.1f}", g.at("hesitations_per_1k").get<double>()), true},
         {fmt::format("{}", g.at("n_reached").get<int>()), true}});
  }
  return rows.size() == 1 ? "" : table_text(rows, colour) + "\n";
}

// Correct of asked, by length and depth, all languages together; gated kinds.
std::string needle_table(const Json& grid, bool colour) {
  std::string out;
  std::set<std::pair<std::string, std::string>> arms;
  for (const Json& cell : grid)
    if (text_of(cell, "kind").empty()) arms.insert({text_of(cell, "suite"), text_of(cell, "arm")});
  for (const auto& [suite, arm] : arms) {
    std::map<std::pair<int, double>, std::pair<int, int>> cells;  // length, depth → correct, asked
    std::set<double> depths;
    std::set<int> lengths;
    int n_reasked = 0, n_found = 0;
    for (const Json& cell : grid) {
      if (text_of(cell, "suite") != suite || text_of(cell, "arm") != arm ||
          !text_of(cell, "kind").empty())
        continue;
      const int length = cell.at("n_tokens").get<int>();
      const double depth = cell.at("depth").get<double>();
      lengths.insert(length);
      depths.insert(depth);
      auto& [correct, asked] = cells[{length, depth}];
      correct += cell.at("n_correct").get<int>();
      asked += cell.at("n").get<int>();
      n_reasked += cell.at("n_reasked").get<int>();
      n_found += cell.at("n_reask_correct").get<int>();
    }
    std::vector<std::vector<Cell>> rows;
    rows.push_back({{suite + " · " + arm + " · tokens", false, Ink::kSoft}});
    for (const double depth : depths)
      rows[0].push_back({fmt::format("{:.0f} % deep", 100 * depth), true, Ink::kSoft});
    for (const int length : lengths) {
      std::vector<Cell> row = {{fmt::format("{}", length)}};
      for (const double depth : depths) {
        const auto found = cells.find({length, depth});
        if (found == cells.end()) {
          row.push_back({"–", true, Ink::kSoft});
          continue;
        }
        const auto [correct, asked] = found->second;
        row.push_back({fmt::format("{}/{}", correct, asked), true,
                       correct == asked ? Ink::kGood : Ink::kBad});
      }
      rows.push_back(std::move(row));
    }
    out += table_text(rows, colour);
    if (n_reasked > 0)
      out += fmt::format("  of {} missed, {} were found when asked again in other words\n",
                         n_reasked, n_found);
    out += "\n";
  }
  return out;
}

std::string outcome_lines(const Json& metrics, bool colour) {
  std::vector<std::vector<Cell>> rows = {{{"outcomes", false, Ink::kSoft}, {""}}};
  for (const Json& g : metrics) {
    if (!text_of(g, "kind").empty() || !text_of(g, "language").empty()) continue;
    std::string text;
    for (const char* part : {"classes", "finish"}) {
      if (!text.empty()) text += "  |  finish: ";
      std::string counts;
      for (const auto& [name, n] : g.at(part).items())
        counts += fmt::format("{}{} {}", counts.empty() ? "" : ", ", name, n.get<int>());
      text += counts;
    }
    rows.push_back({{row_name(g)}, {text}});
  }
  return table_text(rows, colour);
}

constexpr std::size_t kManyGates = 12;

// Of many gates those that hold are counted, a line for each suite.
std::string gates_held(const Json& gates, bool colour) {
  std::vector<std::string> suites;
  for (const Json& gate : gates)
    if (std::find(suites.begin(), suites.end(), text_of(gate, "suite")) == suites.end())
      suites.push_back(text_of(gate, "suite"));
  std::vector<std::vector<Cell>> rows;
  for (const std::string& suite : suites) {
    std::map<std::string, int> n;
    for (const Json& gate : gates)
      if (text_of(gate, "suite") == suite) ++n[text_of(gate, "state")];
    const int n_all = n["pass"] + n["fail"];
    const bool good = n["fail"] == 0;
    if (n_all == 0) {
      rows.push_back({{"–", false, Ink::kWarn},
                      {suite},
                      {"no case for its " + counted(n["not_run"], "gate"), true}});
      continue;
    }
    rows.push_back({{good ? "✓" : "✗", false, good ? Ink::kGood : Ink::kBad},
                    {suite},
                    {fmt::format("{} of {} gates hold", n["pass"], n_all), true},
                    {n["not_run"] == 0 ? "" : fmt::format("{} had no case", n["not_run"]), false,
                     Ink::kSoft}});
  }
  return table_text(rows, colour);
}

std::string gate_table(const Json& all, bool colour) {
  Json gates = all;
  std::string held;
  if (all.size() > kManyGates) {
    held = gates_held(all, colour);
    gates = Json::array();
    for (const Json& gate : all)
      if (text_of(gate, "state") == "fail") gates.push_back(gate);
    if (gates.empty()) return held;
    held = "\n" + held;
  }
  std::vector<std::vector<Cell>> rows = {{{""},
                                          {"gate", false, Ink::kSoft},
                                          {"limit", true, Ink::kSoft},
                                          {"measured [95 %]", false, Ink::kSoft},
                                          {"n", true, Ink::kSoft},
                                          {"", false, Ink::kSoft}}};
  for (const Json& gate : gates) {
    const std::string state = text_of(gate, "state");
    const Ink ink = state == "pass" ? Ink::kGood : state == "fail" ? Ink::kBad : Ink::kWarn;
    const bool is_min = !gate.at("min").is_null();
    rows.push_back({{state == "pass"   ? "✓"
                     : state == "fail" ? "✗"
                                       : "–",
                     false, ink},
                    {text_of(gate, "suite") + " · " + text_of(gate, "name")},
                    {fmt::format("{} {}", is_min ? "≥" : "≤",
                                 percent(gate.at(is_min ? "min" : "max").get<double>())),
                     true},
                    {measured(gate.at("rate")), false, state == "fail" ? Ink::kBad : Ink::kPlain},
                    {fmt::format("{}", gate.at("rate").at("n").get<int>()), true},
                    {text_of(gate, "detail"), false, Ink::kSoft}});
  }
  return table_text(rows, colour) + held;
}

}  // namespace

std::string render_console(const Json& run, const ConsoleStyle& style) {
  const Json& verdict = run.at("verdict");
  const std::string state = text_of(verdict, "state");
  const Ink ink = state == "pass" ? Ink::kGood : state == "regression" ? Ink::kBad : Ink::kWarn;
  std::string upper = state;
  std::transform(upper.begin(), upper.end(), upper.begin(),
                 [](char c) { return static_cast<char>(c - 'a' + 'A'); });

  const Json& metrics = run.at("metrics");
  std::string out = "\n";
  if (!metrics.empty())
    out += accuracy_table(metrics, style.colour) + "\n" + thinking_table(metrics, style.colour);
  if (run.contains("needle_grid")) out += needle_table(run.at("needle_grid"), style.colour);
  if (!metrics.empty())
    out += outcome_lines(metrics, style.colour) + "\n" +
           gate_table(verdict.at("gates"), style.colour) + "\n";
  if (run.contains("measurements"))
    out += render_measurements(run.at("measurements"), style.colour) + "\n";
  if (run.contains("skipped"))
    for (const Json& suite : run.at("skipped"))
      out += fmt::format("  suite {} was left out: it {}\n", text_of(suite, "suite"),
                         text_of(suite, "reason"));
  if (run.contains("goldens")) {
    for (const Json& check : run.at("goldens")) out += fmt::format("  {}\n", golden_line(check));
    out += "\n";
  }
  if (run.contains("comparison"))
    out += render_comparison(run.at("comparison"),
                             {.colour = style.colour, .command = style.compare_command});
  out += fmt::format("  {}  {} (exit code {})\n", painted(upper, ink, style.colour),
                     text_of(verdict, "summary"), verdict.at("exit_code").get<int>());
  for (const char* list : {"problems", "warnings"})
    for (const Json& line : verdict.value(list, Json::array()))
      out += fmt::format("    - {}\n", line.get<std::string>());
  std::vector<std::vector<Cell>> where;
  if (std::string steps = engine_steps_line(run); !steps.empty())
    where.push_back({{"steps", false, Ink::kSoft}, {std::move(steps)}});
  if (!style.report_path.empty())
    where.push_back({{"report", false, Ink::kSoft}, {style.report_path}});
  where.push_back(
      {{"again", false, Ink::kSoft}, {command_again(text_of(run.at("provenance"), "command"))}});
  return out + "\n" + table_text(where, style.colour);
}

}  // namespace assay::harness
