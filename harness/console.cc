#include "harness/console.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

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
                  {"n", true, Ink::kSoft},
                  {"all", false, Ink::kSoft}});
  for (const std::string& language : languages) rows[0].push_back({language, false, Ink::kSoft});
  for (const Json& total : metrics) {
    if (!text_of(total, "kind").empty() || !text_of(total, "language").empty()) continue;
    const bool gated = total.at("gated").get<bool>();
    std::vector<Cell> row = {{row_name(total)},
                             {fmt::format("{}", total.at("n").get<int>()), true},
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

std::string gate_table(const Json& gates, bool colour) {
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
  return table_text(rows, colour);
}

// "+1.5", "−2.1", "0.0".
std::string signed_text(double value) {
  const std::string digits = fmt::format("{:.1f}", std::abs(value));
  return (digits == "0.0" ? "" : value > 0 ? "+" : "−") + digits;
}

std::string comparison_table(const Json& comparison, bool colour) {
  const auto soft = [](const char* text, bool right = false) {
    return Cell{text, right, Ink::kSoft};
  };
  std::vector<std::vector<Cell>> rows = {
      {soft("against the baseline"), soft("n", true), soft("base", true), soft("now", true),
       soft("difference [95 %]"), soft("regressed / fixed", true), soft("p (Holm)", true),
       soft("would show", true)}};
  for (const Json& r : comparison.at("rows")) {
    const std::string language = text_of(r, "language");
    const auto share = [&](const char* key) {
      return percent(r.at(key).get<double>() / r.at("n").get<double>());
    };
    const auto points = [&](const char* key) { return 100 * r.at(key).get<double>(); };
    const bool bad = r.at("regressed").get<bool>();
    const int detectable = r.at("detectable").get<int>();
    const bool can_show = !bad && detectable <= r.at("n").get<int>();
    rows.push_back(
        {{fmt::format("{} · {}{}{}", text_of(r, "suite"), text_of(r, "arm"),
                      language.empty() ? "" : " · " + language,
                      text_of(r, "metric") == "closed" ? " · closed" : "")},
         {fmt::format("{}", r.at("n").get<int>()), true},
         {share("n_base"), true},
         {share("n_candidate"), true},
         {fmt::format("{} [{}, {}]", signed_text(points("difference")), signed_text(points("lo")),
                      signed_text(points("hi"))),
          false, bad ? Ink::kBad : Ink::kPlain},
         {fmt::format("{} / {}", r.at("n_regressed").get<int>(), r.at("n_fixed").get<int>()), true},
         {fmt::format("{:.2g}", r.at("p_holm").get<double>()), true, bad ? Ink::kBad : Ink::kPlain},
         {can_show ? fmt::format("−{}", detectable) : "–", true}});
  }
  return table_text(rows, colour) + fmt::format("  {} of {} replies have the same tokens\n",
                                                comparison.at("n_same_tokens").get<int>(),
                                                comparison.at("n_pairs").get<int>());
}

}  // namespace

std::string render_console(const Json& run, const ConsoleStyle& style) {
  const Json& verdict = run.at("verdict");
  const std::string state = text_of(verdict, "state");
  const Ink ink = state == "pass" ? Ink::kGood : state == "regression" ? Ink::kBad : Ink::kWarn;
  std::string upper = state;
  std::transform(upper.begin(), upper.end(), upper.begin(),
                 [](char c) { return static_cast<char>(c - 'a' + 'A'); });

  std::string out = "\n" + accuracy_table(run.at("metrics"), style.colour) + "\n" +
                    outcome_lines(run.at("metrics"), style.colour) + "\n" +
                    gate_table(verdict.at("gates"), style.colour) + "\n";
  if (run.contains("comparison"))
    out += comparison_table(run.at("comparison"), style.colour) + "\n";
  out += fmt::format("  {}  {} (exit code {})\n", painted(upper, ink, style.colour),
                     text_of(verdict, "summary"), verdict.at("exit_code").get<int>());
  for (const Json& problem : verdict.at("problems"))
    out += fmt::format("    - {}\n", problem.get<std::string>());
  std::vector<std::vector<Cell>> where;
  if (!style.report_path.empty())
    where.push_back({{"report", false, Ink::kSoft}, {style.report_path}});
  where.push_back({{"again", false, Ink::kSoft}, {text_of(run.at("provenance"), "command")}});
  return out + "\n" + table_text(where, style.colour);
}

}  // namespace assay::harness
