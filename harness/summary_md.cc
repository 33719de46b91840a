#include "harness/summary_md.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "harness/closing_lines.h"
#include "harness/escape.h"
#include "harness/step_counts.h"

namespace assay::harness {
namespace {

constexpr std::size_t kMostRows = 20;   // of problems, flips and gates; the report has all
constexpr int kMostCharacters = 60;     // of a cell
constexpr int kMostOfASentence = 1000;  // a problem may quote what a model wrote

std::string text_of(const Json& json, const char* key) { return json.at(key).get<std::string>(); }

std::string cell(std::string_view text) { return markdown_text(shortened(text, kMostCharacters)); }

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

std::string with_interval(const Json& rate) {
  if (rate.at("n") == 0) return "–";
  return fmt::format("{} \\[{:.1f}, {:.1f}\\]", percent(rate.at("estimate").get<double>()),
                     100 * rate.at("lo").get<double>(), 100 * rate.at("hi").get<double>());
}

using Row = std::vector<std::string>;

// `rows` hold Markdown already; the first is the head.
std::string table(const std::vector<Row>& rows) {
  std::string out;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    out += "|";
    for (const std::string& text : rows[r]) out += " " + text + " |";
    out += "\n";
    if (r > 0) continue;
    out += "|";
    for (std::size_t i = 0; i < rows[r].size(); ++i) out += " --- |";
    out += "\n";
  }
  return out;
}

// Of many rows the first, and how many there were.
std::string left_out(std::size_t n, const char* what) {
  return n <= kMostRows ? "" : fmt::format("\n… and {} more {}.\n", n - kMostRows, what);
}

std::string headline(const Json& run) {
  const Json& verdict = run.at("verdict");
  std::string state = text_of(verdict, "state");
  const char* sign = state == "pass" ? "✅" : state == "regression" ? "❌" : "⚠️";
  std::transform(state.begin(), state.end(), state.begin(), [](char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  std::string out =
      fmt::format("## {} {}\n\n{} (exit code {})\n\n", sign, state,
                  markdown_text(text_of(verdict, "summary")), verdict.at("exit_code").get<int>());
  for (const char* list : {"problems", "warnings"}) {
    const Json lines = verdict.value(list, Json::array());
    for (std::size_t i = 0; i < std::min(kMostRows, lines.size()); ++i)
      out += fmt::format("- {}\n",
                         markdown_text(shortened(lines[i].get<std::string>(), kMostOfASentence)));
    out += left_out(lines.size(), list);
    if (!lines.empty()) out += "\n";
  }
  return out;
}

std::string flips(const Json& comparison) {
  const Json& all = comparison.at("flips");
  const auto n_regressed = static_cast<std::size_t>(std::count_if(
      all.begin(), all.end(), [](const Json& flip) { return flip.at("regressed").get<bool>(); }));
  std::string out = fmt::format(
      "### Against the baseline\n\n{} regressed, {} fixed, {} wrong on both sides, of {} "
      "pairs; baseline: {}\n\n",
      n_regressed, all.size() - n_regressed, comparison.at("n_both_wrong").get<int>(),
      comparison.at("n_pairs").get<int>(),
      markdown_text(text_of(comparison.at("baseline"), "folder")));
  if (all.empty()) return out;
  std::vector<Row> rows = {{"", "sample", "expected", "before", "now", "parts at token"}};
  for (std::size_t i = 0; i < std::min(kMostRows, all.size()); ++i) {
    const Json& flip = all[i];
    const auto side = [&](const char* cls, const char* answer) {
      return cell(text_of(flip, cls)) + ": " + cell(text_of(flip, answer));
    };
    rows.push_back({flip.at("regressed").get<bool>() ? "regressed" : "fixed",
                    cell(text_of(flip, "key")), cell(text_of(flip, "expected")),
                    side("base_class", "base_answer"), side("candidate_class", "candidate_answer"),
                    fmt::format("{}", flip.at("first_difference").get<int>())});
  }
  return out + table(rows) + left_out(all.size(), "flips") + "\n";
}

std::string goldens(const Json& checks) {
  std::string out = "### Goldens\n\n";
  for (const Json& check : checks) out += "- " + markdown_text(golden_line(check)) + "\n";
  return out + "\n";
}

std::string failed_gates(const Json& gates) {
  std::vector<Row> rows = {{"failed gate", "limit", "measured \\[95 %\\]", "n", ""}};
  std::size_t n = 0;
  for (const Json& gate : gates) {
    if (text_of(gate, "state") != "fail" || ++n > kMostRows) continue;
    const bool is_min = !gate.at("min").is_null();
    rows.push_back({cell(text_of(gate, "suite") + ": " + text_of(gate, "name")),
                    fmt::format("{} {}", is_min ? "≥" : "≤",
                                percent(gate.at(is_min ? "min" : "max").get<double>())),
                    with_interval(gate.at("rate")),
                    fmt::format("{}", gate.at("rate").at("n").get<int>()),
                    markdown_text(text_of(gate, "detail"))});
  }
  return n == 0 ? "" : "### Failed gates\n\n" + table(rows) + left_out(n, "failed gates") + "\n";
}

bool is_total(const Json& group) { return text_of(group, "kind").empty(); }

std::string accuracy(const Json& metrics) {
  std::vector<std::string> languages;
  for (const Json& g : metrics)
    if (is_total(g) && !text_of(g, "language").empty() &&
        std::find(languages.begin(), languages.end(), text_of(g, "language")) == languages.end())
      languages.push_back(text_of(g, "language"));
  std::vector<Row> rows = {{"suite", "arm", "judged", "accuracy \\[95 %\\]"}};
  for (const std::string& language : languages) rows[0].push_back(cell(language));
  for (const Json& total : metrics) {
    if (!is_total(total) || !text_of(total, "language").empty()) continue;
    const std::string where = total.at("gated").get<bool>() ? "" : " (in no gate)";
    Row row = {cell(text_of(total, "suite")) + where, cell(text_of(total, "arm")),
               judged_text(total), with_interval(total.at("accuracy"))};
    for (const std::string& language : languages) {
      const auto found = std::find_if(metrics.begin(), metrics.end(), [&](const Json& g) {
        return is_total(g) && g.at("suite") == total.at("suite") &&
               g.at("arm") == total.at("arm") && g.at("gated") == total.at("gated") &&
               g.at("language") == language;
      });
      const bool known = found != metrics.end() && found->at("accuracy").at("n") != 0;
      row.push_back(known ? percent(found->at("accuracy").at("estimate").get<double>()) : "–");
    }
    rows.push_back(std::move(row));
  }
  return rows.size() == 1 ? "" : "### Accuracy\n\n" + table(rows) + "\n";
}

// How many more failures a gate allows; none if it did not pass.
std::optional<int> slack_of(const Json& gate) {
  if (text_of(gate, "state") != "pass") return std::nullopt;
  const int n = gate.at("rate").at("n").get<int>(),
            n_true = gate.at("rate").at("n_true").get<int>();
  constexpr double kRounding = 1e-9;  // as the verdict's own: 0.97 of 100 is 97
  if (!gate.at("min").is_null())
    return n_true - static_cast<int>(std::ceil(gate.at("min").get<double>() * n - kRounding));
  return static_cast<int>(std::floor(gate.at("max").get<double>() * n + kRounding)) - n_true;
}

// What a pass was able to see: nothing smaller would have been noticed.
std::string detectable(const Json& run) {
  std::string out;
  const Json* nearest = nullptr;
  for (const Json& gate : run.at("verdict").at("gates")) {
    const auto slack = slack_of(gate);
    if (slack && (nearest == nullptr || *slack < *slack_of(*nearest))) nearest = &gate;
  }
  if (nearest != nullptr)
    out += fmt::format("- The gate nearest to failing is {}: {}\n",
                       markdown_text(text_of(*nearest, "suite") + "/" + text_of(*nearest, "name")),
                       markdown_text(text_of(*nearest, "detail")));
  if (run.contains("comparison"))
    for (const Json& row : run.at("comparison").at("rows")) {
      if (!text_of(row, "language").empty() || text_of(row, "metric") != "accuracy" ||
          row.at("regressed").get<bool>())
        continue;
      const std::string place = markdown_text(text_of(row, "suite") + "/" + text_of(row, "arm"));
      const int n = row.at("n").get<int>();
      const Json points = row.value("detectable_points", Json());
      out += points.is_null()
                 ? fmt::format("- {}: no drop could have shown in {} pairs\n", place, n)
                 : fmt::format("- {}: a net drop of {:.1f} points in {} pairs\n", place,
                               points.get<double>(), n);
    }
  return out.empty() ? "" : "### What would have been seen\n\n" + out + "\n";
}

// "decode, batch 1 at depth 0: 2,860 tokens/s [2,700, 2,990]".
std::string speed_line(const Json& result) {
  std::string out;
  const auto add = [&](const std::string& what, const Json& rate) {
    if (!out.empty()) out += "; ";
    out += fmt::format("{}: {:.0f} tokens/s \\[{:.0f}, {:.0f}\\]", what,
                       rate.at("median").get<double>(), rate.at("lo").get<double>(),
                       rate.at("hi").get<double>());
  };
  for (const Json& row : result.at("decode"))
    if (!row.at("tokens_per_s").is_null()) {
      add(fmt::format("decode, batch {} at depth {}", row.at("batch").get<int>(),
                      row.at("depth").get<int>()),
          row.at("tokens_per_s"));
      break;
    }
  for (const Json& row : result.at("prefill"))
    if (!row.at("tokens_per_s").is_null()) {
      add(fmt::format("prefill of {}", row.at("n_prompt").get<int>()), row.at("tokens_per_s"));
      break;
    }
  return out.empty() ? "no row fits the model" : out;
}

std::string divergence_line(const Json& result) {
  const Json& groups = result.at("groups");
  if (groups.empty()) return "no position";
  const auto value = [](const Json& estimate) { return estimate.at("value").get<double>(); };
  const Json& all = groups[0];
  return fmt::format("KLD {:.4g} nats, same top-1 {:.2f} %, over {} positions",
                     value(all.at("kld").at("mean")), 100 * value(all.at("top1_agreement")),
                     all.at("n_positions").get<int>());
}

std::string measurements(const Json& all) {
  std::string out = "### Measurements\n\n";
  for (const Json& m : all) {
    out += "- " + markdown_text(text_of(m, "suite")) + ": ";
    if (text_of(m, "state") != "measured")
      out += "not run: " + markdown_text(text_of(m, "reason"));
    else
      out += m.at("measure") == "throughput" ? speed_line(m.at("result"))
                                             : divergence_line(m.at("result"));
    out += "\n";
  }
  return out + "\n";
}

}  // namespace

std::string render_summary(const Json& run, const std::string& folder) {
  std::string out = headline(run);
  if (run.contains("comparison")) out += flips(run.at("comparison"));
  if (run.contains("goldens")) out += goldens(run.at("goldens"));
  if (run.contains("golden_note"))
    out += fmt::format("### Goldens\n\n- held to no golden: {}\n\n",
                       markdown_text(text_of(run, "golden_note")));
  out +=
      failed_gates(run.at("verdict").at("gates")) + accuracy(run.at("metrics")) + detectable(run);
  if (run.contains("measurements")) out += measurements(run.at("measurements"));
  if (run.contains("skipped")) {
    out += "### Left out\n\n";
    for (const Json& suite : run.at("skipped"))
      out += fmt::format("- suite {} was left out: it {}\n", markdown_text(text_of(suite, "suite")),
                         markdown_text(text_of(suite, "reason")));
    out += "\n";
  }
  if (const std::string steps = engine_steps_line(run); !steps.empty())
    out += "### Engine\n\n- engine's steps: " + markdown_text(steps) + "\n\n";
  return out + "### Files and command\n\nReport: " + markdown_text(folder + "/report.html") +
         ", every reply in samples.jsonl beside it. Once more:\n\n" +
         markdown_block(command_again(text_of(run.at("provenance"), "command")));
}

}  // namespace assay::harness
