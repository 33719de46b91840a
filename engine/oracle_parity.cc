#include "engine/oracle_parity.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/check.h"
#include "engine/score.h"
#include "engine/trace.h"

namespace assay::engine {
namespace {

// The first near-tie of the text's routing and key selection at or before `last_position`.
std::optional<std::string> first_near_tie(Engine& engine, std::span<const int> ids,
                                          int last_position) {
  const auto trace = record_trace(engine, ids);
  CHECK(trace.has_value()) << trace.error().message;
  std::optional<std::string> found;
  int found_at = last_position + 1;
  for (const TracedChoice& c : trace->choices) {
    const bool is_router = c.name.ends_with("experts");
    if (c.position >= found_at || c.margin >= (is_router ? kRouterTie : kSelectionTie)) continue;
    found_at = c.position;
    found = fmt::format("{} near-tie at position {}: {} margin {:.2g}",
                        is_router ? "router" : "top-k-index", c.position, c.name, c.margin);
  }
  return found;
}

}  // namespace

std::string micro_glm_dir(const char* build) {
  return std::string(ASSAY_SOURCE_DIR) + "/golden/micro-glm/" + build;
}

bool is_for_want_of_gpus(const Error& error) {
  return error.message.starts_with("no CUDA device here") ||
         (error.message.starts_with("--tp") && error.message.find("GPUs") != std::string::npos);
}

Json oracle(const char* file) {
  auto json = read_json(std::string(ASSAY_SOURCE_DIR) + "/golden/micro-glm/oracle/" + file);
  CHECK(json.has_value()) << json.error().message;
  return *std::move(json);
}

RecordParity check_logits(Engine& engine, const Json& records, std::size_t index,
                          const ParityBound& bound) {
  const Json& record = records[index];
  const Json& text =
      record["ids"].is_null() ? records[record["same_text_as"].get<std::size_t>()] : record;
  const auto ids = text["ids"].get<std::vector<int>>();
  RecordParity out{.name = record["name"],
                   .sparse = !record["index_topk"].is_null(),
                   .n_tokens = static_cast<int>(ids.size())};
  CHECK(out.sparse == (engine.info().attention == "sparse") || ids.size() <= 512);
  std::vector<int> positions;
  for (const Json& row : record["rows"]) positions.push_back(row["pos"]);
  const auto scores = score(engine, ids, positions, engine.info().vocab);
  CHECK(scores.has_value()) << scores.error().message;
  double squares = 0;
  int n_deltas = 0;
  for (std::size_t i = 0; i < positions.size(); ++i) {
    const Json& row = record["rows"][i];
    const PositionScore& s = (*scores)[i];
    std::map<int, float> logit(s.top.begin(), s.top.end());
    std::vector<double> deltas = {std::abs(s.logsumexp - row["logsumexp"].get<double>())};
    for (std::size_t j = 0; j < row["ids"].size(); ++j)
      deltas.push_back(
          std::abs(static_cast<double>(logit.at(row["ids"][j])) - row["logits"][j].get<double>()));
    double delta = 0;
    for (const double d : deltas) {
      delta = d <= delta ? delta : d;  // NaN stays
      squares += d * d;
    }
    n_deltas += static_cast<int>(deltas.size());
    if (!(delta <= bound.max)) {
      out.fork = first_near_tie(engine, ids, positions[i]);
      if (!out.fork)
        out.failure = fmt::format("position {}: |Δ| = {:.3g} > {:.3g} and no near-tie explains it",
                                  positions[i], delta, bound.max);
      else
        *out.fork += fmt::format(" (then |Δ| = {:.3g} at position {})", delta, positions[i]);
      return out;
    }
    out.max_delta = std::max(out.max_delta, delta);
    ++out.n_checked;
  }
  out.rms_delta = std::sqrt(squares / n_deltas);
  if (!(out.rms_delta <= bound.rms))
    out.failure = fmt::format("root mean square of Δ = {:.3g} > {:.3g}", out.rms_delta, bound.rms);
  return out;
}

Result<ParityBound> bf16_bound(const Json& errors, const Json& records, std::size_t index) {
  const Json& record = records[index];
  for (const Json& e : errors.value("records", Json::array()))
    if (e["name"] == record["name"] && e["index_topk"] == record["index_topk"])
      return ParityBound{.max = 1.5 * e["max"].get<double>(), .rms = 1.5 * e["rms"].get<double>()};
  return fail(
      "{} holds no error of record '{}', index_topk {}: run golden/micro-glm/oracle/bf16_error.py "
      "again, on a machine with torch, transformers and a GPU",
      errors.value("of", "the file"), record["name"].get<std::string>(),
      record["index_topk"].dump());
}

RecordParity check_continuation(Engine& engine, const Json& record) {
  const auto prompt = record["prompt_ids"].get<std::vector<int>>();
  const auto expected = record["ids"].get<std::vector<int>>();
  RecordParity out{.name = fmt::format("{} {}{}", record["group"].get<std::string>(),
                                       record["lang"].get<std::string>(),
                                       record["thinking"].get<bool>() ? "" : " direct"),
                   .sparse = !record["settings"]["index_topk"].is_null(),
                   .n_tokens = static_cast<int>(prompt.size() + expected.size())};
  const auto completion = generate(
      engine, {.prompt = prompt, .max_tokens = record["settings"]["max_new_tokens"], .n_top = 2});
  CHECK(completion.has_value()) << completion.error().message;
  const auto ids = completion->ids();
  for (std::size_t i = 0; i < std::max(ids.size(), expected.size()); ++i) {
    if (i < ids.size() && i < expected.size() && ids[i] == expected[i]) {
      ++out.n_checked;
      continue;
    }
    const int position = static_cast<int>(prompt.size() + i);
    const std::string what =
        fmt::format("token {}: got {}, expected {}", i, i < ids.size() ? ids[i] : -1,
                    i < expected.size() ? expected[i] : -1);
    if (i < ids.size()) {
      const auto& top = completion->tokens[i].top;
      const double margin = static_cast<double>(top[0].second) - static_cast<double>(top[1].second);
      if (margin < kTop2Tie) {
        out.fork = fmt::format("top-2 near-tie, margin {:.2g}; {}", margin, what);
        return out;
      }
    }
    std::vector<int> text = prompt;
    text.insert(text.end(), ids.begin(),
                ids.begin() + static_cast<std::ptrdiff_t>(std::min(i, ids.size())));
    out.fork = first_near_tie(engine, text, position);
    if (!out.fork) out.failure = what + ", and no near-tie explains it";
    return out;
  }
  return out;
}

RecordParity check_hidden(Engine& engine, std::size_t index, double bound) {
  const auto records =
      load_oracle_traces(std::string(ASSAY_SOURCE_DIR) + "/golden/micro-glm/oracle/hidden.json.gz");
  CHECK(records.has_value()) << records.error().message;
  const OracleTrace& record = (*records)[index];
  RecordParity out{.name = record.name + " (hidden states)",
                   .n_tokens = static_cast<int>(record.ids.size())};
  const auto trace = record_trace(engine, record.ids);
  CHECK(trace.has_value()) << trace.error().message;
  const TraceComparison comparison = compare_traces(*trace, record.trace, bound);
  CHECK(comparison.tensors.size() == record.trace.tensors.size()) << comparison.tensors.size();
  for (const TensorDifference& d : comparison.tensors) {
    out.n_checked += d.n_rows;
    out.max_delta = std::max(out.max_delta, d.max_abs);
    if (d.max_abs > bound && !out.failure)
      out.failure = fmt::format("{} at position {}, column {}: {} against the oracle's {}", d.name,
                                d.position, d.column, d.value_a, d.value_b);
  }
  return out;
}

std::string parity_table(const std::vector<RecordParity>& rows) {
  std::string table = fmt::format("{:<34} {:<7} {:>7} {:>8} {:>10} {:>10}  {}\n", "record", "attn",
                                  "tokens", "checked", "max |Δ|", "rms", "fork");
  for (const RecordParity& r : rows)
    table += fmt::format("{:<34} {:<7} {:>7} {:>8} {:>10.2e} {:>10.2e}  {}\n", r.name,
                         r.sparse ? "sparse" : "dense", r.n_tokens, r.n_checked, r.max_delta,
                         r.rms_delta, r.failure ? "FAILED: " + *r.failure : r.fork.value_or(""));
  return table;
}

}  // namespace assay::engine
