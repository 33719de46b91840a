// assay score: teacher forcing. What does the model think of this text?
#include "engine/score.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "base/figure.h"
#include "base/plural.h"
#include "engine/engine.h"
#include "harness/cli/at_least.h"
#include "harness/cli/engine_flags.h"
#include "harness/cli/text_input.h"
#include "harness/cli/verb.h"
#include "harness/step_counts.h"

namespace assay::cli {
namespace {

struct Options {
  EngineFlags engine;
  TextFlags text;
  std::vector<int> positions;
  int n_top = 20;
  bool json = false;
};

Result<int> run(const Options& o) {
  ASSAY_TRY(engine::Engine e, load_engine(o.engine));
  ASSAY_TRY(const std::vector<int> ids, token_ids(o.text, e));
  std::vector<int> positions = o.positions;
  for (int& p : positions)
    if (p < 0) p += static_cast<int>(ids.size());  // -1 is the last token
  ASSAY_TRY(const auto scores, engine::score(e, ids, positions, o.n_top));

  if (o.json) {
    Json rows = Json::array();
    for (const auto& s : scores) {
      Json row = {{"pos", s.position},
                  {"logsumexp", s.logsumexp},
                  {"ids", Json::array()},
                  {"logits", Json::array()}};
      for (const auto& [id, logit] : s.top) {
        row["ids"].push_back(id);
        row["logits"].push_back(logit);
      }
      if (s.next_id >= 0) row["next"] = {{"id", s.next_id}, {"logprob", s.next_logprob}};
      rows.push_back(std::move(row));
    }
    Json out = {{"engine", e.info().to_json()}, {"ids", ids}, {"rows", rows}};
    if (e.info().memory.is_planned()) out["engine_steps"] = harness::to_json(e.step_counts());
    std::puts(out.dump(2).c_str());
    return 0;
  }
  double total = 0;
  int n_scored = 0;
  const auto shown = [&](int id) -> std::string {
    const auto text = e.tokenizer().decode(std::span(&id, 1));
    return text ? Json(*text).dump(-1, ' ', false, Json::error_handler_t::replace) : "?";
  };
  fmt::print("{:>6}  {:>10}  {:>10}  {:<24} {}\n", "pos", "logsumexp", "logprob", "next token",
             "most likely (logit)");
  for (const auto& s : scores) {
    std::string top;
    for (std::size_t i = 0; i < std::min<std::size_t>(4, s.top.size()); ++i)
      top += fmt::format("{} {:.3f}  ", shown(s.top[i].first), s.top[i].second);
    const bool has_next = s.next_id >= 0;
    fmt::print("{:>6}  {:>10.4f}  {:>10}  {:<24} {}\n", s.position, s.logsumexp,
               has_next ? fmt::format("{:.4f}", s.next_logprob) : "-",
               has_next ? shown(s.next_id) : "-", top);
    if (has_next) {
      total += static_cast<double>(s.next_logprob);
      ++n_scored;
    }
  }
  if (n_scored > 0)
    fmt::print("\n{} scored, mean log probability {:.4f}, perplexity {}\n",
               counted(n_scored, "token"), total / n_scored,
               figure(std::exp(-total / n_scored), 4, 6));
  return 0;
}

}  // namespace

const Verb score_verb{
    .name = "score",
    .summary = "Teacher-forced logits of a text at given positions",
    .examples =
        "  assay score --model golden/micro-glm/model --chat \"127 × 8 = ?\"\n"
        "      log probability of every token of the rendered prompt, and perplexity\n"
        "  assay score --model M --ids 3053,3055,3058 --positions 0,-1 --top 20 --json\n"
        "      top-20 logits and logsumexp after the first and the last token\n",
    .setup = [](CLI::App& app) -> Action {
      auto o = std::make_shared<Options>();
      add_engine_flags(app, o->engine);
      add_text_flags(app, o->text);
      app.add_option("--positions", o->positions,
                     "Positions to report, ascending; negative counts from the end (default: all)")
          ->delimiter(',');
      app.add_option("--top", o->n_top, "Logits kept per position")
          ->check(at_least(0))
          ->capture_default_str();
      app.add_flag("--json", o->json, "Print JSON");
      return [o] { return run(*o); };
    }};

}  // namespace assay::cli
