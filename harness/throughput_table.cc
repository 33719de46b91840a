#include "harness/throughput_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/plural.h"
#include "harness/table.h"

namespace assay::harness {
namespace {

using Rows = std::vector<std::vector<Cell>>;

Cell soft(std::string text, bool right = true) { return {std::move(text), right, Ink::kSoft}; }

// "16,384".
std::string whole(std::int64_t n) {
  std::string text = fmt::format("{}", n);
  for (auto at = static_cast<std::ptrdiff_t>(text.size()) - 3; at > 0; at -= 3)
    text.insert(static_cast<std::size_t>(at), ",");
  return text;
}

// Three digits that say something: "9.87", "98.7", "987", "9,870".
std::string digits(double x) {
  if (x >= 1000) return whole(static_cast<std::int64_t>(x + 0.5));
  return fmt::format("{:.{}f}", x, x >= 100 ? 0 : x >= 10 ? 1 : 2);
}
std::string digits(const Json& x) { return digits(x.get<double>()); }

// "98.7", "[97.1, 99.0]" and "± 0.4".
void add_rate(std::vector<Cell>& row, const Json& rate) {
  row.push_back({digits(rate.at("median")), true, Ink::kBold});
  const bool is_one = rate.at("n") == 1;  // which has no spread; older records have 0 there
  row.push_back(
      {is_one ? "–" : fmt::format("[{}, {}]", digits(rate.at("lo")), digits(rate.at("hi")))});
  row.push_back({is_one ? "–" : "± " + digits(rate.at("mad")), true});
}

void add_percentiles(std::vector<Cell>& row, const Json& ms) {
  for (const char* key : {"p50", "p90", "p99", "max"}) row.push_back({digits(ms.at(key)), true});
  row.push_back({whole(ms.at("n").get<std::int64_t>()), true});
}

void add_percentile_heads(std::vector<Cell>& row, const char* what) {
  row.push_back(soft(fmt::format("{} ms p50", what)));
  for (const char* name : {"p90", "p99", "max", "n"}) row.push_back(soft(name));
}

Rows decode_rows(const Json& decode) {
  Rows rows = {{soft("depth"), soft("batch"), soft("tokens/s"), soft("[median in]", false),
                soft("MAD"), soft("each")}};
  add_percentile_heads(rows[0], "ITL");
  for (const Json& r : decode) {
    const Json& rate = r.at("tokens_per_s");
    if (rate.is_null()) continue;
    std::vector<Cell> row = {{whole(r.at("depth").get<int>()), true},
                             {whole(r.at("batch").get<int>()), true}};
    add_rate(row, rate);
    row.push_back({digits(rate.at("median").get<double>() / r.at("batch").get<double>()), true});
    add_percentiles(row, r.at("itl_ms"));
    rows.push_back(std::move(row));
  }
  return rows;
}

Rows prefill_rows(const Json& prefill) {
  Rows rows = {{soft("prompt"), soft("tokens/s"), soft("[median in]", false), soft("MAD")}};
  add_percentile_heads(rows[0], "TTFT");
  for (const Json& r : prefill) {
    const Json& rate = r.at("tokens_per_s");
    if (rate.is_null()) continue;
    std::vector<Cell> row = {{whole(r.at("n_prompt").get<int>()), true}};
    add_rate(row, rate);
    add_percentiles(row, r.at("ttft_ms"));
    rows.push_back(std::move(row));
  }
  return rows;
}

// Each reason once: it is the same for every batch of a depth.
std::string reasons(const Json& rows) {
  std::vector<std::string> seen;
  std::string out;
  for (const Json& row : rows) {
    const std::string reason = row.at("reason").get<std::string>();
    if (reason.empty() || std::find(seen.begin(), seen.end(), reason) != seen.end()) continue;
    out += fmt::format("  not measured: {}\n", reason);
    seen.push_back(reason);
  }
  return out;
}

// The interval is one of order statistics, so its coverage goes by the number of repetitions alone.
std::string footnote(const Json& result) {
  for (const char* part : {"decode", "prefill"})
    for (const Json& row : result.at(part)) {
      const Json& rate = row.at("tokens_per_s");
      if (rate.is_null()) continue;
      if (rate.at("n") == 1) return "  1 repetition of each row, which has no spread\n";
      return fmt::format(
          "  {} repetitions of each row in turns; [ ] holds the median with {:.1f} %\n",
          rate.at("n").get<int>(), 100 * rate.at("coverage").get<double>());
    }
  return "";
}

std::string useful_line(const Json& useful) {
  if (useful.is_null() || useful.at("share").is_null()) return "";
  std::string rates;
  if (!useful.at("useful_tokens_per_s").is_null())
    rates = fmt::format(
        "; one reply's own rate, of which several may run at once: "
        "{} useful tokens/s of {}",
        digits(useful.at("useful_tokens_per_s")), digits(useful.at("tokens_per_s")));
  return fmt::format(
      "  useful: {:.1f} % of {} tokens, in the {} of {} replies that ended in an answer{}\n",
      100 * useful.at("share").get<double>(), whole(useful.at("n_tokens").get<std::int64_t>()),
      useful.at("n_answered").get<int>(), useful.at("n_replies").get<int>(), rates);
}

}  // namespace

std::string render_throughput(const Json& result, bool colour) {
  const Json& engine = result.at("engine");
  std::string out = fmt::format(
      "  {} {}, {}, {} attention\n", engine.at("backend").get<std::string>(),
      engine.at("kernel").get<std::string>(), counted(engine.at("n_threads").get<int>(), "thread"),
      engine.at("attention").get<std::string>());
  for (const auto& [part, rows_of] :
       {std::pair{"decode", &decode_rows}, {"prefill", &prefill_rows}}) {
    const Json& measured = result.at(part);
    if (measured.empty()) continue;
    const Rows rows = rows_of(measured);
    out += fmt::format("\n  {}\n", part);
    if (rows.size() > 1) out += table_text(rows, colour);
    out += reasons(measured);
  }
  const std::string notes = footnote(result) + useful_line(result.at("useful"));
  return notes.empty() ? out : out + "\n" + notes;
}

}  // namespace assay::harness
