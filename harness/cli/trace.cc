// assay trace: the first intermediate tensor in which two computations part.
#include "engine/trace.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "base/plural.h"
#include "engine/engine.h"
#include "harness/cli/engine_flags.h"
#include "harness/cli/text_input.h"
#include "harness/cli/verb.h"

namespace assay::cli {
namespace {

struct Options {
  EngineFlags engine;
  TextFlags text;
  std::string against = "reference", against_kernel, oracle;
  double tolerance = 1e-3;
  bool json = false;
};

Json to_json(const std::string& what, const engine::TraceComparison& c) {
  Json tensors = Json::array();
  for (const auto& d : c.tensors)
    tensors.push_back({{"name", d.name},
                       {"max_abs", d.max_abs},
                       {"rms", d.rms},
                       {"position", d.position},
                       {"column", d.column},
                       {"a", d.value_a},
                       {"b", d.value_b},
                       {"diverged", d.diverged}});
  return {{"comparison", what},
          {"first_diverging",
           c.first_diverging < 0 ? Json(nullptr) : Json(c.tensors[c.first_diverging].name)},
          {"forks", c.forks},
          {"tensors", tensors}};
}

void print(const std::string& what, const engine::TraceComparison& c) {
  fmt::print("{}\n{:<28} {:>10} {:>10} {:>9} {:>7}  {}\n", what, "tensor", "max |Δ|", "rms",
             "position", "column", "");
  for (const auto& d : c.tensors)
    fmt::print("{:<28} {:>10.2e} {:>10.3g} {:>9} {:>7}  {}\n", d.name, d.max_abs, d.rms, d.position,
               d.column, d.diverged ? "<-- diverges" : "");
  for (const std::string& fork : c.forks) fmt::print("fork: {}\n", fork);
  if (c.first_diverging < 0) {
    fmt::print("No tensor diverges.\n\n");
  } else {
    const auto& d = c.tensors[c.first_diverging];
    fmt::print("First to diverge: {} at position {}, column {}: {} against {}\n\n", d.name,
               d.position, d.column, d.value_a, d.value_b);
  }
}

Result<int> run(const Options& o) {
  if (!(o.tolerance > 0)) return fail("--tolerance is {}, expected more than 0", o.tolerance);
  ASSAY_TRY(engine::Engine a, load_engine(o.engine));
  std::vector<std::pair<std::string, engine::TraceComparison>> comparisons;
  if (!o.oracle.empty()) {
    ASSAY_TRY(const auto records, engine::load_oracle_traces(o.oracle));
    for (const auto& record : records) {
      ASSAY_TRY(const auto trace, engine::record_trace(a, record.ids));
      comparisons.emplace_back(
          fmt::format("{} ({}): {} against {}", record.name, counted(record.ids.size(), "token"),
                      a.info().backend, o.oracle),
          engine::compare_traces(trace, record.trace, o.tolerance));
    }
  } else {
    ASSAY_TRY(const std::vector<int> ids, token_ids(o.text, a));
    EngineFlags other = o.engine;
    other.backend = o.against;
    other.kernel = o.against_kernel;
    other.tensor_parallel = 1;
    ASSAY_TRY(engine::Engine b, load_engine(other));
    ASSAY_TRY(const auto trace_a, engine::record_trace(a, ids));
    ASSAY_TRY(const auto trace_b, engine::record_trace(b, ids));
    comparisons.emplace_back(
        fmt::format("{}: {} {} against {} {}", counted(ids.size(), "token"), a.info().backend,
                    a.info().kernel, b.info().backend, b.info().kernel),
        engine::compare_traces(trace_a, trace_b, o.tolerance));
  }
  bool diverged = false;
  Json out = Json::array();
  for (const auto& [what, comparison] : comparisons) {
    diverged = diverged || comparison.first_diverging >= 0;
    if (o.json)
      out.push_back(to_json(what, comparison));
    else
      print(what, comparison);
  }
  if (o.json) std::puts(out.dump(2).c_str());
  return diverged ? 1 : 0;
}

}  // namespace

const Verb trace_verb{
    .name = "trace",
    .summary = "Compare two backends, or a backend with an oracle, tensor by tensor",
    .examples =
        "  assay trace --model golden/micro-glm/model --chat \"127 × 8 = ?\"\n"
        "      cpu against reference; the tensor's name where they part\n"
        "  assay trace --model golden/micro-glm/model --oracle "
        "golden/micro-glm/oracle/hidden.json.gz --attention dense\n"
        "      against the hidden states that Hugging Face transformers computed\n\n"
        "Exit codes: 0 the same within the tolerance, 1 they part, 2 could not run.",
    .setup = [](CLI::App& app) -> Action {
      auto o = std::make_shared<Options>();
      add_engine_flags(app, o->engine);
      add_text_flags(app, o->text);
      app.add_option("--against", o->against, "The other backend")->capture_default_str();
      app.add_option("--against-kernel", o->against_kernel, "Force the other backend's kernel");
      app.add_option("--oracle", o->oracle,
                     "Compare with the records of this hidden-states file instead");
      app.add_option("--tolerance", o->tolerance,
                     "A tensor diverges where max |Δ| > tolerance × (1 + its rms)")
          ->capture_default_str();
      app.add_flag("--json", o->json, "Print JSON");
      return [o] { return run(*o); };
    }};

}  // namespace assay::cli
