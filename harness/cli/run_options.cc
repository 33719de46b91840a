#include "harness/cli/run_options.h"

#include <algorithm>

#include "base/file.h"
#include "harness/cli/at_least.h"
#include "harness/cli/command_line.h"
#include "harness/cli/engine_flags.h"

#if !defined(ASSAY_SUITES_DIR) || !defined(ASSAY_GOLDEN_DIR)
#error "the build defines where the suites and the goldens lie"
#endif

namespace assay::cli {
namespace {

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

template <class T>
void read(const Json& json, const char* key, std::optional<T>& value) {
  if (json.contains(key) && !json[key].is_null()) value = json[key].get<T>();
}

}  // namespace

Json to_json(const RunOptions& o) {
  return {{"suites", o.suites},
          {"suites_folder", o.suites_folder},
          {"model", o.model},
          {"baseline", o.baseline},
          {"out", o.out},
          {"data", o.data},
          {"haystacks", o.haystacks},
          {"base", o.base},
          {"golden", o.golden},
          {"profile", o.profile},
          {"languages", o.languages},
          {"arms", o.arms},
          {"limit", o.limit},
          {"threads", o.threads},
          {"seed", o.seed},
          {"temperature", or_null(o.temperature)},
          {"top_p", or_null(o.top_p)},
          {"top_k", or_null(o.top_k)},
          {"min_p", or_null(o.min_p)},
          {"repetition_penalty", or_null(o.repetition_penalty)},
          {"max_tokens", or_null(o.max_tokens)},
          {"tensor_parallel", o.tensor_parallel},
          {"context", o.context},
          {"backend", o.backend},
          {"kernel", o.kernel},
          {"attention", o.attention}};
}

Result<RunOptions> merge_options(const Json& recorded, const Json& given) {
  RunOptions o;
  o.suites_folder = ASSAY_SUITES_DIR;
  o.golden = ASSAY_GOLDEN_DIR;
  Json merged = to_json(o);
  merged.update(recorded);
  merged.update(given);
  try {
    merged["suites"].get_to(o.suites);
    merged["suites_folder"].get_to(o.suites_folder);
    merged["model"].get_to(o.model);
    merged["baseline"].get_to(o.baseline);
    merged["out"].get_to(o.out);
    merged["data"].get_to(o.data);
    merged["haystacks"].get_to(o.haystacks);
    merged["base"].get_to(o.base);
    merged["golden"].get_to(o.golden);
    merged["profile"].get_to(o.profile);
    merged["languages"].get_to(o.languages);
    merged["arms"].get_to(o.arms);
    merged["limit"].get_to(o.limit);
    merged["threads"].get_to(o.threads);
    merged["seed"].get_to(o.seed);
    read(merged, "temperature", o.temperature);
    read(merged, "top_p", o.top_p);
    read(merged, "top_k", o.top_k);
    read(merged, "min_p", o.min_p);
    read(merged, "repetition_penalty", o.repetition_penalty);
    read(merged, "max_tokens", o.max_tokens);
    merged["tensor_parallel"].get_to(o.tensor_parallel);
    merged["context"].get_to(o.context);
    merged["backend"].get_to(o.backend);
    merged["kernel"].get_to(o.kernel);
    merged["attention"].get_to(o.attention);
  } catch (const Json::exception& error) {
    return fail("the recorded options of run.json cannot be read: {}", error.what());
  }
  if (o.suites.empty()) return fail("which suite? Name one, or 'all'. See assay run --help.");
  return o;
}

Result<void> check_recorded_paths(const std::string& run, const Json& recorded, const Json& given) {
  constexpr std::pair<const char*, const char*> kPaths[] = {
      {"model", "--model"}, {"baseline", "--baseline"}, {"base", "--base"},
      {"data", "--data"},   {"golden", "--golden"},     {"suites_folder", "--suites"},
      {"suites", "SUITE"},  {"haystacks", "--haystack"}};
  std::error_code ignored;
  for (const auto& [key, flag] : kPaths) {
    if (given.contains(key) || !recorded.contains(key)) continue;
    const Json& value = recorded[key];
    for (const Json& each : value.is_array() ? value : Json::array({value})) {
      if (!each.is_string()) continue;  // merge_options says that
      const std::string written = each.get<std::string>();
      const std::string path = written.substr(written.find('=') + 1);  // of LANGUAGE=FILE
      const bool is_name = path.find('/') == std::string::npos &&
                           (key == std::string_view("suites") || path == "none" || path.empty());
      if (is_name || fs::exists(path, ignored)) continue;
      const std::string again = fmt::format("assay run --resume {}{} PATH", shell_quoted(run),
                                            flag[0] == '-' ? fmt::format(" {}", flag) : "");
      if (fs::path(path).is_absolute()) {
        // What of the rest is not there is said by whoever reads it.
        constexpr std::string_view kMoves[] = {"model", "baseline", "base", "data"};
        if (std::find(std::begin(kMoves), std::end(kMoves), key) == std::end(kMoves)) continue;
        return fail("cannot resume {}: its {} {} is not there any more. Say where it is now: {}",
                    run, flag, written, again);
      }
      return fail(
          "cannot resume {} from {}: its {} {} is relative to the folder in which the run was "
          "started, and is not there from here. Resume it in that folder, or say where it is "
          "now: {}",
          run, fs::current_path(ignored).string(), flag, written, again);
    }
  }
  return {};
}

Result<harness::SuiteInputs> to_suite_inputs(const RunOptions& o) {
  harness::SuiteInputs inputs;
  inputs.data = o.data;
  inputs.languages = o.languages;
  for (const std::string& written : o.haystacks) {
    const std::size_t sign = written.find('=');
    const std::string language = written.substr(0, sign);
    if (sign == std::string::npos || sign + 1 == written.size() ||
        (language != "ja" && language != "en" && language != "zh"))
      return fail("--haystack: expected LANGUAGE=FILE with ja, en or zh, got '{}'", written);
    if (!inputs.haystacks.emplace(language, written.substr(sign + 1)).second)
      return fail("--haystack: there are two texts for '{}'", language);
  }
  return inputs;
}

Result<harness::PlanOptions> to_plan_options(const RunOptions& o) {
  harness::PlanOptions plan;
  ASSAY_TRY(plan.profile, harness::parse_profile(o.profile));
  plan.languages = o.languages;
  plan.arms = o.arms;
  plan.limit = o.limit;
  plan.seed = o.seed;
  plan.temperature = o.temperature;
  plan.top_p = o.top_p;
  plan.top_k = o.top_k;
  plan.min_p = o.min_p;
  plan.repetition_penalty = o.repetition_penalty;
  plan.max_tokens = o.max_tokens;
  return plan;
}

void RunFlags::add_to(CLI::App& app) {
  const auto option = [&](const char* key, CLI::Option* added, const char* type) {
    flags_.emplace_back(key, added->type_name(type));
    return added;
  };
  RunOptions& v = values_;
  constexpr const char* kWhat = "What is asked";
  option("suites", app.add_option("suite", v.suites, "Suites by name, 'all', or paths"), "SUITE");
  option("model", app.add_option("--model", v.model, "Folder of the checkpoint"), "DIR");
  option("out", app.add_option("--out", v.out, "Folder to write (default: out/<suite>-<UTC>)"),
         "DIR");
  option("baseline",
         app.add_option("--baseline", v.baseline,
                        "Folder of an earlier run with the same options: compare case by case"),
         "DIR");
  option("profile", app.add_option("--profile", v.profile, "quick, ci, nightly or full"), "NAME")
      ->group(kWhat);
  option("languages", app.add_option("--languages", v.languages, "Only these: ja,en,zh"), "LIST")
      ->delimiter(',')
      ->allow_extra_args(false)  // else "--arms direct arithmetic" would swallow the suite
      ->group(kWhat);
  option("arms", app.add_option("--arms", v.arms, "Only these: thinking,direct"), "LIST")
      ->delimiter(',')
      ->allow_extra_args(false)  // else "--arms direct arithmetic" would swallow the suite
      ->group(kWhat);
  option("limit",
         app.add_option("--limit", v.limit,
                        "Only N samples, spread over the suites: the first of each"),
         "N")
      ->check(at_least(1))
      ->group(kWhat);
  option("suites_folder", app.add_option("--suites", v.suites_folder, "Folder of the suites"),
         "DIR")
      ->group(kWhat);
  option("data",
         app.add_option("--data", v.data, "Folder of public files that suites read (mgsm_ja.tsv)"),
         "DIR")
      ->group(kWhat);
  option("haystacks",
         app.add_option("--haystack", v.haystacks,
                        "A text of your own for needles to be hidden in (repeat per language)"),
         "LANG=FILE")
      ->allow_extra_args(false)
      ->group(kWhat);
  option(
      "base",
      app.add_option("--base", v.base,
                     "What suite divergence compares with: a model's folder, or a captured base"),
      "MODEL|FILE")
      ->group(kWhat);
  option("golden",
         app.add_option("--golden", v.golden,
                        "Goldens that the model is held to: a folder of <model>/runs/<name>, or "
                        "none (default: the bundled ones)"),
         "DIR")
      ->group(kWhat);
  constexpr const char* kHow = "Sampling (recorded; each overrides the suite's)";
  option("seed", app.add_option("--seed", v.seed, "Seed of the run (default 0)"), "N")
      ->check(any_seed())
      ->group(kHow);
  option("temperature", app.add_option("--temperature", temperature_, "0 is greedy"), "T")
      ->check(between(0.0, 10.0))
      ->group(kHow);
  option("top_p", app.add_option("--top-p", top_p_, "1 is off"), "P")
      ->check(between(0.0, 1.0))
      ->group(kHow);
  option("top_k", app.add_option("--top-k", top_k_, "0 is off"), "K")
      ->check(at_least(0))
      ->group(kHow);
  option("min_p", app.add_option("--min-p", min_p_, "0 is off"), "P")
      ->check(between(0.0, 1.0))
      ->group(kHow);
  option("repetition_penalty",
         app.add_option("--repetition-penalty", repetition_penalty_, "1 is off"), "R")
      ->check(between(0.01, 100.0))
      ->group(kHow);
  option(
      "max_tokens",
      app.add_option("--max-tokens", max_tokens_, "Of every reply, instead of its arm's own limit"),
      "N")
      ->check(at_least(1))
      ->group(kHow);
  constexpr const char* kEngine = "Engine";
  option("threads", app.add_option("--threads", v.threads, "Workers (default, and 0: every core)"),
         "N")
      ->check(at_least(0))
      ->group(kEngine);
  option("backend", app.add_option("--backend,--device", v.backend, "cpu, cuda or reference"),
         "NAME")
      ->group(kEngine);
  option("kernel",
         app.add_option("--kernel", v.kernel,
                        "Force avx2 or avx512 (cpu); graph, stream, bf16 or bf16-stream (cuda)"),
         "NAME")
      ->group(kEngine);
  option("tensor_parallel", app.add_option("--tp", v.tensor_parallel, kTensorParallelHelp), "N")
      ->group(kEngine);
  option("context", app.add_option("--context", v.context, kContextHelp), "N")
      ->check(at_least(1))
      ->group(kEngine);
  option("attention", app.add_option("--attention", v.attention, "auto, dense or sparse"), "NAME")
      ->check(CLI::IsMember({"auto", "dense", "sparse"}))
      ->group(kEngine);
}

Json RunFlags::given() const {
  RunOptions values = values_;
  values.temperature = temperature_;
  values.top_p = top_p_;
  values.top_k = top_k_;
  values.min_p = min_p_;
  values.repetition_penalty = repetition_penalty_;
  values.max_tokens = max_tokens_;
  const Json all = to_json(values);
  Json given = Json::object();
  for (const auto& [key, flag] : flags_)
    if (flag->count() > 0) given[key] = all[key];
  return given;
}

}  // namespace assay::cli
