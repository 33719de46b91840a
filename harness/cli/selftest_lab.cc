#include "harness/cli/selftest_lab.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/expert_usage.h"
#include "engine/plant.h"
#include "engine/quantize/quantize.h"
#include "harness/cli/calibration_texts.h"
#include "harness/cli/command_line.h"
#include "harness/cli/engine_flags.h"
#include "harness/cli/progress.h"
#include "harness/cli/say.h"
#include "harness/divergence_suite_run.h"
#include "harness/measurement.h"
#include "harness/metrics.h"
#include "harness/provenance.h"
#include "harness/record.h"
#include "harness/runner.h"
#include "harness/verdict.h"

namespace assay::cli {
namespace {

using namespace assay::harness;
using engine::ExpertRef;
using engine::ExpertUsage;

fs::path model_folder(const fs::path& out, const SelftestFault& fault) {
  return out / "models" / fault.name;
}

// Usage by language, as far as there are texts of it.
Result<std::map<std::string, ExpertUsage>> usage_by_language(engine::Engine& engine,
                                                             const Lab::Texts& texts) {
  std::map<std::string, ExpertUsage> out;
  for (const auto& [language, list] : texts) {
    ASSAY_TRY(out[language], engine::expert_usage(engine, list));
  }
  if (out.empty()) return fail("there is no reply that routing could be counted on");
  return out;
}

bool is_sparse(const ExpertUsage& usage, int layer) {
  for (int e = 0; e < usage.n_experts; ++e)
    if (usage.at(layer, e) > 0) return true;
  return false;
}

struct Chosen {
  int layer = 0;
  ExpertRef busiest{}, idlest{};
  std::vector<ExpertRef> japanese;  // of each sparse layer the one that Japanese prefers most
};

Result<Chosen> choose(const std::map<std::string, ExpertUsage>& usage) {
  const ExpertUsage& any = usage.begin()->second;
  std::vector<int> sparse;
  for (int l = 0; l < any.n_layers; ++l)
    if (is_sparse(any, l)) sparse.push_back(l);
  if (sparse.empty()) return fail("the model has no layer with experts");
  Chosen out;
  out.layer = sparse[(sparse.size() - 1) / 2];
  std::vector<double> sum(static_cast<std::size_t>(any.n_experts));
  for (const auto& [language, u] : usage)
    for (int e = 0; e < any.n_experts; ++e) sum[static_cast<std::size_t>(e)] += u.at(out.layer, e);
  const auto index = [&](auto it) { return static_cast<int>(it - sum.begin()); };
  out.busiest = {out.layer, index(std::max_element(sum.begin(), sum.end()))};
  out.idlest = {out.layer, index(std::min_element(sum.begin(), sum.end()))};
  const auto ja = usage.find("ja");
  if (ja == usage.end() || usage.size() < 2) return out;
  for (const int l : sparse) {
    const auto preference = [&](int e) {
      double others = 0;
      for (const auto& [language, u] : usage)
        if (language != "ja") others = std::max(others, u.at(l, e));
      return ja->second.at(l, e) - others;
    };
    int best = 0;
    for (int e = 1; e < any.n_experts; ++e)
      if (preference(e) > preference(best)) best = e;
    out.japanese.push_back({l, best});
  }
  return out;
}

void replace(std::string& text, const std::string& what, const std::string& by) {
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what))
    text.replace(at, what.size(), by);
}

Result<engine::Fault> fault_of(const SelftestFault& fault, const Chosen& chosen) {
  if (fault.how == SelftestFault::How::kExperts) {
    engine::Fault out;
    out.kind = engine::Fault::Kind::kExpertScale;
    out.factor = fault.value;
    out.experts = fault.experts == SelftestFault::Experts::kJapanese
                      ? chosen.japanese
                      : std::vector<ExpertRef>{chosen.busiest};
    if (out.experts.empty())
      return fail("fault {}: no Japanese reply shows which experts Japanese uses", fault.name);
    return out;
  }
  const auto text = [](const ExpertRef& e) { return fmt::format("{}/{}", e.layer, e.expert); };
  std::string written = fault.files;
  replace(written, "{busiest}", text(chosen.busiest));
  replace(written, "{idlest}", text(chosen.idlest));
  replace(written, "{layer}", std::to_string(chosen.layer));
  return engine::parse_fault(written);
}

Result<void> quantize_to(double bits, const std::string& model, const fs::path& out, int threads) {
  if (fs::exists(out / "config.json")) return {};  // written last
  engine::QuantizeInput in;
  in.model = model;
  in.out = out;
  ASSAY_TRY(in.recipe, engine::named_recipe("ja-1.71"));
  in.recipe.bits = bits;
  const std::string file = default_calibration(in.recipe.name);
  ASSAY_TRY(in.texts, read_calibration(file, model, 0));
  in.calibration = fs::path(file).filename().string();
  in.n_threads = threads;
  std::string last;
  in.on_progress = [&last](std::string_view stage, int, int) {
    if (stage != last) say("  quantising: {}\n", stage);
    last = stage;
  };
  ASSAY_TRY([[maybe_unused]] const auto report, engine::quantize(in));
  return {};
}

}  // namespace

Result<std::unique_ptr<EngineTarget>> Lab::load(const std::string& dir,
                                                const engine::PlantedFault& fault) const {
  EngineFlags flags;
  flags.model = dir;
  flags.backend = options_.backend;
  flags.n_threads = 1;  // the workers share it with one thread each
  flags.n_engines = EngineTarget::n_engines(options_.threads);
  ASSAY_TRY(engine::EngineOptions options, engine_options(flags));
  options.planted_fault = fault;
  ASSAY_TRY(engine::Engine engine, engine::Engine::load(dir, options));
  return std::make_unique<EngineTarget>(std::move(engine), options_.threads);
}

Result<EngineTarget*> Lab::healthy(bool quantised) {
  auto& target = healthy_[quantised ? 1 : 0];
  if (!target) {
    ASSAY_TRY(target, load(healthy_dir(quantised)));
  }
  return target.get();
}

Result<std::string> Lab::plant(const SelftestFault& fault, const Texts& usage_texts) {
  using How = SelftestFault::How;
  const std::string& original = healthy_dir(fault.quantised);
  if (fault.how == How::kEngine) return original;
  const fs::path folder = model_folder(options_.out, fault);
  std::error_code error;
  fs::create_directories(folder.parent_path(), error);
  if (error) return fail("cannot create {}: {}", folder.parent_path().string(), error.message());
  if (fault.how == How::kBits) {
    ASSAY_TRY_VOID(quantize_to(fault.value, options_.model, folder, options_.threads));
    return folder.string();
  }
  fs::remove_all(folder, error);  // of a call that was killed
  Chosen chosen;
  if (fault.how == How::kExperts || fault.files.find('{') != std::string::npos) {
    ASSAY_TRY(EngineTarget* const target, healthy(fault.quantised));
    ASSAY_TRY(engine::Engine counter, target->engine().share(options_.threads));
    ASSAY_TRY(const auto usage, usage_by_language(counter, usage_texts));
    ASSAY_TRY(chosen, choose(usage));
  }
  ASSAY_TRY(const engine::Fault planted, fault_of(fault, chosen));
  say("  {}\n", name_of(planted));
  ASSAY_TRY_VOID(engine::plant(original, planted, folder));
  return folder.string();
}

void Lab::discard(const SelftestFault& fault) {
  std::error_code ignored;
  if (fault.how != SelftestFault::How::kBits)
    fs::remove_all(model_folder(options_.out, fault), ignored);
}

Result<Answers> Lab::ask(const Plan& plan, EngineTarget& target, const fs::path& folder) {
  std::error_code ignored;
  const bool begun = fs::exists(folder / "run.json", ignored);
  Json options = {{"selftest", true}};
  const Json head = {{"options", options},
                     {"plan", plan.to_json()},
                     {"identity", target.identity()},
                     {"provenance", make_provenance(command_line(), target.describe())}};
  if (!begun) fs::remove_all(folder, ignored);
  ASSAY_TRY(RunRecord record,
            begun ? RunRecord::resume(folder, head) : RunRecord::create(folder, head));
  if (begun && record.earlier().size() == plan.items.size()) {
    ASSAY_TRY(const Json run, read_run_json(folder));
    if (run.value("status", "") == "complete") return record.earlier();
  }
  ProgressPrinter printer;
  RunnerHooks hooks;
  hooks.on_progress = [&](const Progress& p) { printer.show(p); };
  hooks.interrupted = options_.interrupted;
  ASSAY_TRY(RunResult result, run_plan(plan, target, record, hooks));
  if (result.interrupted) return std::nullopt;
  Json metrics = Json::array();
  for (const Group& group : summarise(result.samples)) metrics.push_back(to_json(group));
  ASSAY_TRY_VOID(record.finish(result.samples, to_json(judge(plan, result.samples)),
                               std::move(metrics),
                               {{"wall_s", result.wall_s}, {"n_tokens", result.n_tokens}}));
  return std::move(result.samples);
}

Result<std::optional<Json>> Lab::diverge(const DivergenceSuite& suite,
                                         const DivergenceSettings& settings, EngineTarget& target) {
  ASSAY_TRY(EngineTarget* const base, healthy(false));
  if (settings.n_noise_texts > 0 && !reference_) {
    EngineFlags flags;
    flags.model = healthy_dir(false);
    flags.backend = "reference";
    flags.n_threads = 1;
    ASSAY_TRY(reference_, load_engine(flags));
  }
  std::stop_source stop;
  ASSAY_TRY(auto result,
            run_divergence(
                suite, settings,
                {.loaded = &base->engine(), .loaded_again = reference_ ? &*reference_ : nullptr},
                target.engine(), options_.threads,
                [&](int, int) {
                  if (options_.interrupted()) stop.request_stop();
                },
                stop.get_token()));
  if (!result) return std::nullopt;
  return Json::array({to_json(Measurement{suite.head, "", *std::move(result), 0})});
}

Result<std::optional<std::vector<GoldenCheck>>> Lab::check_goldens(const Plan& plan,
                                                                   EngineTarget& target) const {
  std::vector<GoldenCheck> out;
  ASSAY_TRY(const auto folders, find_goldens(options_.golden, target.identity()));
  for (const fs::path& folder : folders) {
    ASSAY_TRY(const Golden golden, read_golden(folder));
    std::stop_source stop;
    out.push_back(
        check_golden(golden, folder.string(), plan, target, stop.get_token(), [&](int, int) {
          if (options_.interrupted()) stop.request_stop();
        }));
    if (stop.stop_requested()) return std::nullopt;
  }
  return out;
}

}  // namespace assay::cli
