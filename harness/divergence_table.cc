#include "harness/divergence_table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/figure.h"
#include "base/plural.h"
#include "harness/divergence.h"
#include "harness/table.h"

namespace assay::harness {
namespace {

std::string text_of(const Json& json, const char* key) { return json.at(key).get<std::string>(); }

// "± ?" where the error is not known, which is not an error of 0.
std::string error_of(const Json& estimate, double scale = 1) {
  const Json& error = estimate.at("error");
  if (error.is_null()) return "?";
  const double e = scale * error.get<double>();
  return e < 100 ? fmt::format("{:.2g}", e) : figure(e, 0, 2);
}

double value_of(const Json& estimate) { return estimate.at("value").get<double>(); }

std::string shown(const Json& e, double scale = 1) {
  return fmt::format("{:.4g} ± {}", scale * value_of(e), error_of(e, scale));
}

std::string group_table(const Json& groups, bool colour) {
  std::vector<std::vector<Cell>> rows(1);
  for (const auto& [name, right] : {std::pair{"lang", false},
                                    {"part", false},
                                    {"texts", true},
                                    {"positions", true},
                                    {"KLD mean (nats)", false},
                                    {"KLD 99 %", false},
                                    {"same top-1 (%)", false},
                                    {"RMS Δp (%)", false},
                                    {"perplexity ratio", false}})
    rows[0].push_back({name, right, Ink::kSoft});
  for (const Json& g : groups) {
    const Json &kld = g.at("kld"), &top1 = g.at("top1_agreement"),
               &ratio = g.at("perplexity").at("ratio");
    rows.push_back({{text_of(g, "lang")},
                    {text_of(g, "part")},
                    {fmt::format("{}", g.at("n_texts").get<int>()), true},
                    {fmt::format("{}", g.at("n_positions").get<int>()), true},
                    {shown(kld.at("mean")), false, Ink::kBold},
                    {shown(kld.at("p99"))},
                    {fmt::format("{:.2f} ± {}", 100 * value_of(top1), error_of(top1, 100))},
                    {shown(g.at("delta_p").at("rms"), 100)},
                    {fmt::format("{} ± {}", figure(value_of(ratio), 5, 6), error_of(ratio))}});
  }
  return table_text(rows, colour);
}

std::string all_positions(const Json& all) {
  const Json &kld = all.at("kld"), &perplexity = all.at("perplexity");
  return fmt::format(
      "  all positions: KLD median {}, 90 % {}, 95 % {}, 99.9 % {}, largest of {} {:.4g}\n"
      "                 mean Δp {} %, perplexity {} → {}\n",
      shown(kld.at("median")), shown(kld.at("p90")), shown(kld.at("p95")), shown(kld.at("p99.9")),
      all.at("n_positions").get<int>(), value_of(kld.at("max")),
      shown(all.at("delta_p").at("mean"), 100), figure(value_of(perplexity.at("base")), 4, 6),
      figure(value_of(perplexity.at("candidate")), 4, 6));
}

// Newlines made visible, and cut to `width` cells of a terminal: at its end, or at its beginning.
std::string one_line(std::string_view utf8, int width, bool keep_end) {
  std::vector<std::string> characters;
  for (std::size_t at = 0; at < utf8.size();) {
    std::size_t end = at + 1;
    while (end < utf8.size() && (static_cast<unsigned char>(utf8[end]) & 0xC0) == 0x80) ++end;
    const std::string_view c = utf8.substr(at, end - at);
    characters.emplace_back(c == "\n"                                                ? "⏎"
                            : c.size() == 1 && static_cast<unsigned char>(c[0]) < 32 ? " "
                                                                                     : c);
    at = end;
  }
  if (keep_end) std::reverse(characters.begin(), characters.end());
  std::size_t n = 0;
  for (int used = 0; n < characters.size(); ++n) {
    used += display_width(characters[n]);
    if (used > width) break;
  }
  const bool is_cut = n < characters.size();
  characters.resize(n);
  if (is_cut) characters.emplace_back("…");
  if (keep_end) std::reverse(characters.begin(), characters.end());
  return fmt::format("{}", fmt::join(characters, ""));
}

std::string worst_lines(const Json& worst) {
  constexpr std::size_t kShown = 5;
  constexpr int kBeforeWidth = 40, kNextWidth = 16;
  std::string out = "  furthest apart (KLD, where, text before → the token that follows there):\n";
  for (std::size_t i = 0; i < std::min(kShown, worst.size()); ++i) {
    const Json& w = worst[i];
    out += fmt::format("  {:>8.3g}  {:<10} {:<3} {:<8}  {} → {}\n", w.at("kld").get<double>(),
                       text_of(w, "text"), text_of(w, "lang"), text_of(w, "part"),
                       one_line(text_of(w, "before"), kBeforeWidth, true),
                       one_line(text_of(w, "next"), kNextWidth, false));
  }
  return out;
}

// What capturing the base costs, or may have cost.
std::string capture_lines(const Json& all) {
  if (const Json& coarsening = all.at("kld_coarsening"); !coarsening.is_null())
    return fmt::format("  from a captured base (--save-base) mean KLD would read {:.3g} less\n",
                       coarsening.get<double>());
  return fmt::format(
      "  the base is captured, its {} likeliest tokens and the rest as one, so KLD is a lower "
      "bound;\n  the part lumped together has mean mass {:.3g}, and mean KLD is at most {:.3g}\n",
      BasePosition::kTop, all.at("tail_mass").get<double>(),
      all.at("kld_mean_at_most").get<double>());
}

std::string noise_lines(const Json& floor) {
  if (floor.is_null()) return "";
  return fmt::format(
      "  noise floor of the base ({} against {}): KLD mean {:.2g}, same top-1 {:.2f} %\n",
      floor.at("between")[0].get<std::string>(), floor.at("between")[1].get<std::string>(),
      value_of(floor.at("kld").at("mean")), 100 * value_of(floor.at("top1_agreement")));
}

std::string decode_lines(const Json& decode) {
  if (decode.at("same_bits").get<bool>())
    return "  decode against prefill: the same bits on this backend, so it has no noise of its "
           "own\n";
  const Json& figures = decode.at("figures");
  if (figures.is_null())
    return "  decode against prefill: not the same bits with this kernel, and not measured\n";
  const Json& kld = figures.at("kld");
  return fmt::format(
      "  decode against prefill of the candidate ({}): KLD mean {:.2g}, 99 % {:.2g}, same "
      "top-1 {:.2f} %\n",
      counted(figures.at("n_texts").get<int>(), "text"), value_of(kld.at("mean")),
      value_of(kld.at("p99")), 100 * value_of(figures.at("top1_agreement")));
}

}  // namespace

std::string calibration_warning(const Json& calibration) {
  const auto n = calibration.at("n_calibrated").get<int>(),
             n_judged = calibration.at("n_judged").get<int>();
  return fmt::format(
      "the candidate was calibrated with {} ({}), so these figures flatter it: judge it by texts "
      "that it has not seen",
      n == n_judged ? n == 1 ? "this text" : fmt::format("all of these {} texts", n)
                    : fmt::format("{} of these {} texts", n, n_judged),
      calibration.at("set").get<std::string>());
}

std::string render_divergence(const Json& result, bool colour) {
  const Json &groups = result.at("groups"), &all = groups.at(0);
  return fmt::format(
             "  KL(base ‖ candidate), teacher-forced on the reply tokens; ± is one standard error "
             "over texts (± ?: of one text, unknown)\n"
             "  base       {}\n  candidate  {}\n\n",
             result.at("base").value("dir", ""), result.at("candidate").value("dir", "")) +
         group_table(groups, colour) + "\n" + all_positions(all) + "\n" +
         worst_lines(result.at("worst")) + "\n" + capture_lines(all) +
         noise_lines(result.at("noise_floor")) + decode_lines(result.at("decode_against_prefill")) +
         (result.contains("calibration")
              ? painted(fmt::format("  warning: {}\n", calibration_warning(result["calibration"])),
                        Ink::kWarn, colour)
              : "");
}

}  // namespace assay::harness
