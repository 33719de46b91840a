#include "harness/compare_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <vector>

#include "base/figure.h"
#include "base/plural.h"
#include "harness/compare.h"
#include "harness/compare_speed.h"
#include "harness/table.h"

namespace assay::harness {
namespace {

constexpr std::size_t kManyRows = 24;
constexpr std::size_t kLineBytes = 100;

using Rows = std::vector<std::vector<Cell>>;

Cell soft(std::string text, bool right = false) { return {std::move(text), right, Ink::kSoft}; }
Cell right(std::string text, Ink ink = Ink::kPlain) { return {std::move(text), true, ink}; }

std::string text_of(const Json& json, const char* key) { return json.at(key).get<std::string>(); }

// "+1.5", "−2.1", "0.0".
std::string signed_text(double value) {
  const std::string digits = fmt::format("{:.1f}", std::abs(value));
  return (digits == "0.0" ? "" : value > 0 ? "+" : "−") + digits;
}

std::string place_of(const Json& row) {
  const std::string language = text_of(row, "language");
  return text_of(row, "suite") + " · " + text_of(row, "arm") +
         (language.empty() ? "" : " · " + language);
}

Ink ink_of(const std::string& verdict) {
  return verdict == "regression"                       ? Ink::kBad
         : verdict == "suspected" || verdict == "warn" ? Ink::kWarn
                                                       : Ink::kPlain;
}

// Records of before there were verdicts per row have "regressed" alone.
std::string verdict_of(const Json& row) {
  return row.value("verdict", row.value("regressed", false) ? "regression" : "pass");
}

std::string p_text(const Json& row) {
  return fmt::format("{:.2g}", row.at("p_holm").get<double>());
}

// "+9.6 % [+8.7, +10.6]", "× 12.3 [12.1, 12.4]"; of a rate that grew "faster × 12.3 [12.1, 12.4]".
std::string slower_by(const Json& row) {
  const double slower = row.at("slower").get<double>(), lo = row.at("lo").get<double>(),
               hi = row.at("hi").get<double>();
  const auto times = [](double ratio) { return figure(ratio, 2, 3); };
  if (slower >= kRatioFrom)
    return fmt::format("× {} [{}, {}]", times(1 + slower), times(1 + lo), times(1 + hi));
  if (1 / (1 + slower) >= 1 + kRatioFrom && text_of(row, "unit").ends_with("/s"))
    return fmt::format("faster × {} [{}, {}]", times(1 / (1 + slower)), times(1 / (1 + hi)),
                       times(1 / (1 + lo)));
  return fmt::format("{} % [{}, {}]", signed_text(100 * slower), signed_text(100 * lo),
                     signed_text(100 * hi));
}

// One line of what may be many, cut between characters.
std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  if (text.size() <= kLineBytes) return text;
  std::size_t end = kLineBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "…";
}

std::string token_name(const Json& token) {
  const Json& text = token.at("text");
  return text.is_null() ? fmt::format("#{}", token.at("id").get<int>())
                        : text.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// "is" (is 62.1 %, are 30.0 %)
std::string token_text(const Json& token) {
  if (token.is_null()) return "it had ended";
  std::string likely;
  for (const Json& top : token.at("top"))
    likely += fmt::format("{}{} {:.1f} %", likely.empty() ? "" : ", ", token_name(top),
                          100 * std::exp(top.at("logprob").get<double>()));
  return token_name(token) + (likely.empty() ? "" : " (" + likely + ")");
}

std::string flip_text(const Json& f, bool colour) {
  const bool bad = f.at("regressed").get<bool>();
  std::string out = fmt::format(
      "  {} {}   {} → {}   expected {}\n",
      painted(bad ? "✗ regressed" : "✓ fixed    ", bad ? Ink::kBad : Ink::kGood, colour),
      text_of(f, "key"), text_of(f, "base_class"), text_of(f, "candidate_class"),
      one_line(text_of(f, "expected")));
  out += fmt::format("      asked      {}\n", one_line(text_of(f, "question")));
  out += fmt::format("      base       {}\n", one_line(text_of(f, "base_answer")));
  out += fmt::format("      candidate  {}\n", one_line(text_of(f, "candidate_answer")));
  if (!f.contains("base_token")) return out;
  return out + fmt::format("      part at token {}: {} against {}\n",
                           f.at("first_difference").get<int>(), token_text(f.at("base_token")),
                           token_text(f.at("candidate_token")));
}

std::string flips_text(const Json& comparison, const CompareStyle& style) {
  const Json& flips = comparison.at("flips");
  const auto n_regressed = std::count_if(
      flips.begin(), flips.end(), [](const Json& f) { return f.at("regressed").get<bool>(); });
  const int n_same = comparison.at("n_same_tokens").get<int>();
  std::string out =
      fmt::format("  {} regressed, {} fixed, {} wrong in both, of {}; {} the same tokens\n",
                  n_regressed, flips.size() - static_cast<std::size_t>(n_regressed),
                  comparison.at("n_both_wrong").get<int>(),
                  counted(comparison.at("n_pairs").get<int>(), "pair"),
                  n_same == 1 ? "1 reply has" : fmt::format("{} replies have", n_same));
  const std::size_t n_shown =
      style.n_flips == 0 ? flips.size() : std::min(style.n_flips, flips.size());
  for (std::size_t i = 0; i < n_shown; ++i) out += flip_text(flips[i], style.colour);
  if (n_shown < flips.size())
    out +=
        fmt::format("  … {} more: all with {} --flips 0\n", flips.size() - n_shown, style.command);
  return out + "\n";
}

constexpr const char* kCannotTell = "cannot tell";

// Not even the loss of every sample would have shown.
bool is_blind(const Json& row) { return row.at("detectable").get<int>() > row.at("n").get<int>(); }

// A row that passed is no proof where nothing could have shown, or where as much was lost as the
// floor allows and it cannot be told from chance.
std::string label_of(const Json& row) {
  std::string verdict = verdict_of(row);
  if (verdict != "pass") return verdict;
  const int n = row.at("n").get<int>(),
            drop = row.at("n_base").get<int>() - row.at("n_candidate").get<int>();
  const bool lost = drop > 0 && row.contains("floor") && drop >= row.at("floor").get<double>() * n;
  return is_blind(row) || lost ? kCannotTell : verdict;
}

// No test of so few clusters calls anything.
bool is_blind_length(const Json& length, double alpha) {
  return std::exp2(1 - length.at("n_clusters").get<int>()) >= alpha;
}

// The same of a length, of which a tenth more is what is called: the interval has to exclude that,
// and the test of so many clusters to be able to call it.
std::string label_of_length(const Json& length, double alpha) {
  std::string verdict = verdict_of(length);
  if (verdict != "pass") return verdict;
  const bool blind = is_blind_length(length, alpha);
  if (const Json& hi = length.at("hi"); !blind && !hi.is_null())
    return hi.get<double>() < kLengthFloor ? verdict : "up to × " + figure(hi.get<double>(), 2, 4);
  return !blind && length.at("ratio").get<double>() == 1 ? verdict : kCannotTell;
}

std::string would_show(const Json& row) {
  const std::string verdict = verdict_of(row);
  const int detectable = row.at("detectable").get<int>(), n = row.at("n").get<int>();
  if (verdict == "regression" || verdict == "suspected" || detectable > n) return "–";
  const double points =
      100.0 * (row.at("n_base").get<int>() - row.at("n_candidate").get<int>() + detectable) / n;
  return fmt::format("−{:.1f}", points);
}

// What the report's page says below its table. `blind`, `lost`: why shown rows cannot tell.
std::string rules_text(const Json& comparison, bool blind, bool lost) {
  const double floor = comparison.at("floor").get<double>();
  std::string others;
  std::set<std::string> named;
  for (const Json& r : comparison.at("rows"))
    if (const double own = r.value("floor", floor);
        own != floor && named.insert(text_of(r, "suite")).second)
      others += fmt::format(", {} {:.3g} %", text_of(r, "suite"), 100 * own);
  std::string out = fmt::format(
      "  a regression: p below {} and at least {:.3g} % of the row's samples lost, net (the "
      "floor{})\n",
      comparison.at("alpha").get<double>(), 100 * floor, others);
  if (blind) out += "  cannot tell: too few samples for any drop to show\n";
  if (lost) out += "  cannot tell: as much was lost as the floor, of too few samples to be sure\n";
  return out;
}

std::string rows_table(const Json& comparison, const CompareStyle& style) {
  Rows rows = {{soft("against the baseline"), soft("n", true), soft("base", true),
                soft("now", true), soft("difference [95 %]"), soft("regressed / fixed", true),
                soft("p (Holm)", true), soft(""), soft("would show", true)}};
  const Json& all = comparison.at("rows");
  const bool many = all.size() > kManyRows && !style.every_row;
  int n_left_out = 0;
  bool blind = false, lost = false;
  for (const Json& r : all) {
    const std::string metric = text_of(r, "metric"), verdict = verdict_of(r);
    const bool changed = r.at("n_regressed") != 0 || r.at("n_fixed") != 0;
    // Of many rows those in which nothing changed are left to the report, but for each arm's own;
    // how thinking ends has a table of its own, but for what needs saying.
    const bool own = text_of(r, "language").empty() && metric == "accuracy";
    const bool minor = metric != "accuracy" && verdict == "pass";
    if (!style.every_row && ((many && !changed && !own) || (minor && (many || !changed)))) {
      n_left_out += 1;
      continue;
    }
    const double n = r.at("n").get<double>();
    const auto share = [&](const char* key) {
      return fmt::format("{:.1f} %", 100 * r.at(key).get<double>() / n);
    };
    const auto points = [&](const char* key) { return signed_text(100 * r.at(key).get<double>()); };
    const Ink ink = ink_of(verdict);
    const std::string label = label_of(r);
    if (label == kCannotTell) (is_blind(r) ? blind : lost) = true;
    std::string shown_metric = metric == "accuracy" ? "" : " · " + metric;
    std::replace(shown_metric.begin(), shown_metric.end(), '_', ' ');
    rows.push_back(
        {{place_of(r) + shown_metric},
         right(fmt::format("{}", r.at("n").get<int>())),
         right(share("n_base")),
         right(share("n_candidate")),
         {fmt::format("{} [{}, {}]", points("difference"), points("lo"), points("hi")), false, ink},
         right(fmt::format("{} / {}", r.at("n_regressed").get<int>(), r.at("n_fixed").get<int>())),
         right(p_text(r), ink),
         {label, false, ink},
         right(would_show(r))});
  }
  std::string out = table_text(rows, style.colour);
  if (rows.size() > 1) out += rules_text(comparison, blind, lost);
  if (n_left_out > 0)
    out += fmt::format("  {}, in which nothing worth a line changed: all with {} --rows\n",
                       counted(n_left_out, "more row"), style.command);
  return out + "\n";
}

// How thinking ends and how long it is, a line per arm (and per language that says something).
std::string thinking_table(const Json& comparison, bool colour) {
  if (!comparison.contains("lengths") || comparison.at("lengths").empty()) return "";
  Rows rows = {{soft("thinking"), soft("no close", true), soft("loops", true),
                soft("hit a limit", true), soft("length × [95 %]"), soft("pairs", true),
                soft("p (Holm)", true), soft("")}};
  const auto failures = [&](const Json& length, const char* metric) -> std::string {
    for (const Json& r : comparison.at("rows"))
      if (r.at("suite") == length.at("suite") && r.at("arm") == length.at("arm") &&
          r.at("language") == length.at("language") && r.at("metric") == metric) {
        const int n = r.at("n").get<int>();
        return fmt::format("{} → {}", n - r.at("n_base").get<int>(),
                           n - r.at("n_candidate").get<int>());
      }
    return "–";
  };
  const double alpha = comparison.at("alpha").get<double>();
  bool few = false;
  for (const Json& l : comparison.at("lengths")) {
    const std::string verdict = verdict_of(l);
    if (!text_of(l, "language").empty() && verdict == "pass") continue;
    const std::string interval =
        l.at("lo").is_null()
            ? ""
            : fmt::format(" [{:.2f}, {:.2f}]", l.at("lo").get<double>(), l.at("hi").get<double>());
    const Ink ink = ink_of(verdict);
    rows.push_back({{place_of(l)},
                    right(failures(l, "closed")),
                    right(failures(l, "no_loop")),
                    right(failures(l, "stopped")),
                    {fmt::format("{:.2f}{}", l.at("ratio").get<double>(), interval), false, ink},
                    right(fmt::format("{}", l.at("n").get<int>())),
                    right(p_text(l)),
                    {label_of_length(l, alpha), false, ink}});
    few = few || (verdict == "pass" && is_blind_length(l, alpha));
  }
  return table_text(rows, colour) +
         (few ? "  cannot tell: too few samples for any length to show\n\n" : "\n");
}

std::string confirmation_text(const Json& confirmation, bool colour) {
  const std::string state = text_of(confirmation, "state");
  if (state == "not_needed") return "";
  Rows rows = {{soft("second stage, fresh draws"), soft("cases", true), soft("draws", true),
                soft("base", true), soft("now", true), soft("p (Holm)", true), soft("")}};
  for (const Json& r : confirmation.at("rows")) {
    const bool bad = r.at("confirmed").get<bool>();
    rows.push_back({{place_of(r) + " · " + text_of(r, "metric")},
                    right(fmt::format("{}", r.at("n_cases").get<int>())),
                    right(fmt::format("{}", r.at("n").get<int>())),
                    right(fmt::format("{}", r.at("n_base").get<int>())),
                    right(fmt::format("{}", r.at("n_candidate").get<int>())),
                    right(p_text(r)),
                    {bad ? "confirmed" : "not confirmed", false, bad ? Ink::kBad : Ink::kGood}});
  }
  return table_text(rows, colour) + "\n";
}

}  // namespace

std::string render_comparison(const Json& comparison, const CompareStyle& style) {
  std::string out = flips_text(comparison, style) + rows_table(comparison, style) +
                    thinking_table(comparison, style.colour);
  if (comparison.contains("confirmation"))
    out += confirmation_text(comparison.at("confirmation"), style.colour);
  if (comparison.contains("fidelity"))
    out += render_fidelity(comparison.at("fidelity"), style.colour);
  return out;
}

std::string render_fidelity(const Json& fidelity, bool colour) {
  if (fidelity.at("rows").empty()) return "";
  const auto kld = [](const Json& e) -> std::string {
    if (e.is_null()) return "–";
    const std::string value = fmt::format("{:.4f}", e.at("value").get<double>());
    return e.at("error").is_null() ? value
                                   : fmt::format("{} ± {:.4f}", value, e.at("error").get<double>());
  };
  const auto ratio = [](const Json& r) -> std::string {
    if (r.is_null()) return "–";
    const auto times = [&](const char* key) { return figure(r.at(key).get<double>(), 2, 4); };
    return fmt::format("{} [{}, {}]", times("estimate"), times("lo"), times("hi"));
  };
  const std::string reason = text_of(fidelity, "reason");
  const bool judged = reason.empty();  // else there is nothing for the columns of the judgement
  Rows rows = {{soft("mean KLD to the base, nats"), soft("texts", true), soft("base", true),
                soft("now", true), soft("noise floor", true)}};
  if (judged)
    rows[0].insert(rows[0].end(), {soft("difference", true), soft("typical text × [95 %]", true),
                                   soft("p (Holm)", true), soft(""), soft("would show ×", true)});
  bool any_few = false;
  for (const Json& r : fidelity.at("rows")) {
    const std::string verdict = verdict_of(r);
    const bool able = r.value("can_tell", false);
    std::vector<Cell> row = {{text_of(r, "language")},
                             right(fmt::format("{}", r.at("n_texts").get<int>())),
                             right(kld(r.at("base"))),
                             right(kld(r.at("candidate"))),
                             right(r.at("noise_floor").is_null()
                                       ? "–"
                                       : fmt::format("{:.2g}", r.at("noise_floor").get<double>()))};
    if (judged) {
      any_few = any_few || !able;
      row.insert(row.end(), {right(kld(r.at("difference"))),
                             right(ratio(r.value("ratio", Json())), ink_of(verdict)),
                             right(able ? p_text(r) : "–"),
                             {able ? verdict : "too few", false, ink_of(verdict)},
                             right(able ? figure(r.at("would_show").get<double>(), 2, 4) : "–")});
    }
    rows.push_back(std::move(row));
  }
  std::string out = table_text(rows, colour);
  if (any_few) out += "  too few: so few texts that no difference could be told from chance\n";
  if (!judged) out += fmt::format("  the two are not judged against each other: {}\n", reason);
  return out + "\n";
}

namespace {
// Of rows that passed and could have told little, the one that could have told the least.
std::string noisy_line(const Json& rows) {
  int n = 0;
  double most = 0;
  std::string name;
  for (const Json& r : rows) {
    const double floor = r.at("floor").get<double>();
    if (!r.at("conclusive").get<bool>() || floor < kLoudFloor) continue;
    ++n;
    if (floor > most) most = floor, name = text_of(r, "name");
  }
  if (n == 0) return "";
  return fmt::format(
      "  noisy: no slowdown below {:.0f} % would have been called in {} (in {} none below {}); "
      "clock "
      "both again on a machine that does nothing else\n",
      100 * kLoudFloor, counted(n, "row"), name, slowdown_text(most));
}
}  // namespace

std::string render_speed(const Json& speed, std::string_view how, bool colour) {
  Rows rows = {{soft(fmt::format("speed, {}", how)), soft("repetitions", true), soft("base", true),
                soft("now", true), soft("slower by [95 %]"), soft("floor", true),
                soft("p (Holm)", true), soft("")}};
  bool any_few = false;
  for (const Json& r : speed.at("rows")) {
    const bool conclusive = r.at("conclusive").get<bool>(), has_times = r.value("has_times", true);
    const std::string verdict = conclusive ? verdict_of(r) : has_times ? "too few" : "no time";
    const Ink ink = conclusive ? ink_of(verdict) : Ink::kWarn;
    any_few = any_few || (!conclusive && has_times);
    rows.push_back(
        {{text_of(r, "name")},
         right(fmt::format("{} / {}", r.at("n_base").get<int>(), r.at("n_candidate").get<int>())),
         right(speed_text(r.at("base").get<double>(), text_of(r, "unit"))),
         right(speed_text(r.at("candidate").get<double>(), text_of(r, "unit"))),
         {has_times ? slower_by(r) : "–", false, ink},
         right(has_times ? slowdown_text(r.at("floor").get<double>()) : "–"),
         right(conclusive ? p_text(r) : "–"),
         {verdict, false, ink}});
  }
  std::string out = table_text(rows, colour);
  if (any_few) out += "  too few: so few repetitions that no slowdown could be told from chance\n";
  out += noisy_line(speed.at("rows"));
  for (const Json& name : speed.at("alone"))
    out += fmt::format("  {} stands in one of the files only\n", name.get<std::string>());
  return out + "\n";
}

}  // namespace assay::harness
