// assay selftest --power: what this harness catches, and how often it accuses the healthy.
#include "harness/selftest.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <memory>

#include "base/hash.h"
#include "harness/cli/at_least.h"
#include "harness/cli/command_line.h"
#include "harness/cli/say.h"
#include "harness/cli/selftest_lab.h"
#include "harness/cli/verb.h"
#include "harness/find_suites.h"
#include "harness/provenance.h"
#include "harness/version.h"

namespace assay::cli {
namespace {

using namespace assay::harness;
using Clock = std::chrono::steady_clock;

// Nights draw at this temperature, whatever a suite asks for.
constexpr double kNightTemperature = 0.6;
constexpr const char* kNightSuites[] = {"arithmetic", "thinking"};
// Replies of a language on which routing is counted.
constexpr std::size_t kUsageTexts = 100;

volatile std::sig_atomic_t interrupt_signal = 0;
void on_interrupt(int signal) {
  interrupt_signal = 1;
  std::signal(signal, SIG_DFL);  // a second one ends the process at once
}

struct Options {
  std::string model = std::string(ASSAY_GOLDEN_DIR) + "/micro-glm/model";
  std::string vq = std::string(ASSAY_GOLDEN_DIR) + "/micro-glm/vq-1.71";
  std::string suites = ASSAY_SUITES_DIR, profile = "quick", out = "out/selftest";
  std::vector<std::string> faults = {"all"};
  std::string backend = "cpu";
  int nights = 300, limit = 0, threads = 0;
  bool power = false;
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string clock_text(double seconds) {
  const long s = static_cast<long>(seconds + 0.5);
  return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

// Says what comes next, and when all will be done.
class Steps {
 public:
  Steps(std::string what, int n_total) : what_(std::move(what)), n_total_(n_total) {}
  void begin(int number, const std::string& name) {
    std::string eta;
    if (n_done_ > 0)
      eta = fmt::format("  eta {}",
                        clock_text(seconds_since(start_) / n_done_ * (n_total_ - number + 1)));
    say("assay selftest: {} {} of {}{}{}\n", what_, number, n_total_,
        name.empty() ? "" : ": " + name, eta);
  }
  void end() { ++n_done_; }

 private:
  std::string what_;
  int n_total_, n_done_ = 0;
  Clock::time_point start_ = Clock::now();
};

// The divergence suite of the folder, if it has one and that the profile.
Result<std::optional<DivergenceSuite>> divergence_suite(const Options& o, Profile profile) {
  const std::vector<std::string> all = {"all"};
  ASSAY_TRY(FoundSuites found, find_suites(all, o.suites));
  for (MeasureSuite& suite : found.measures)
    if (auto* divergence = std::get_if<DivergenceSuite>(&suite);
        divergence && divergence->profiles.contains(profile))
      return std::move(*divergence);
  return std::nullopt;
}

// All suites of the profile that need nothing of the user, and the sampled arm of suite thinking
// even where the profile leaves it out: a greedy run sees nothing of a sampler.
Result<Plan> detection_plan(const Options& o, const Profile profile) {
  const std::vector<std::string> all = {"all"};
  ASSAY_TRY(FoundSuites found, find_suites(all, o.suites));
  std::erase_if(found.suites, [&](const Suite& s) {
    return std::find(s.profiles.begin(), s.profiles.end(), profile) == s.profiles.end();
  });
  for (Suite& suite : found.suites)
    for (Arm& arm : suite.arms)
      if (suite.name == "thinking" && arm.name == "sampled")
        arm.profile = std::min(arm.profile, profile);
  PlanOptions options;
  options.profile = profile;
  options.limit = o.limit;
  return make_plan(std::move(found.suites), options);
}

Result<Plan> night_plan(const Options& o, const Profile profile, std::uint64_t seed) {
  const std::vector<std::string> names(std::begin(kNightSuites), std::end(kNightSuites));
  ASSAY_TRY(FoundSuites found, find_suites(names, o.suites));
  PlanOptions options;
  options.profile = profile;
  options.limit = o.limit;
  options.seed = seed;
  options.temperature = kNightTemperature;
  return make_plan(std::move(found.suites), options);
}

// Seeds of nights are nobody else's, and no two are the same.
std::uint64_t night_seed(int night, const char* side) {
  return hash_u64(fmt::format("assay selftest night {} {}", night, side));
}

class Selftest {
 public:
  Selftest(const Options& o, Profile profile)
      : o_(o),
        profile_(profile),
        lab_({.model = o.model,
              .vq = o.vq,
              .golden = ASSAY_GOLDEN_DIR,
              .out = o.out,
              .backend = o.backend,
              .threads = o.threads,
              .interrupted = [] { return interrupt_signal != 0; }}) {}

  Result<int> run(const std::vector<SelftestFault>& faults) {
    ASSAY_TRY(plan_, detection_plan(o_, profile_));
    ASSAY_TRY(divergence_, divergence_suite(o_, profile_));
    ASSAY_TRY_VOID(begin(faults));
    Steps fault_steps("fault", static_cast<int>(faults.size()));
    for (std::size_t i = 0; i < faults.size() && !stopped(); ++i)
      ASSAY_TRY_VOID(run_fault(faults[i], static_cast<int>(i) + 1, fault_steps));
    Steps steps("night", o_.nights);
    for (int night = 1; night <= o_.nights && !stopped(); ++night)
      ASSAY_TRY_VOID(run_night(night, steps));
    return conclude();
  }

 private:
  static bool stopped() { return interrupt_signal != 0; }
  fs::path file(const fs::path& relative) const { return fs::path(o_.out) / relative; }

  // What the folder holds must have been asked of the same models, with the same cases.
  Result<void> begin(const std::vector<SelftestFault>& faults) {
    std::error_code error;
    fs::create_directories(file("faults"), error);
    fs::create_directories(file("nights"), error);
    if (error) return fail("cannot create {}: {}", o_.out, error.message());
    head_ = {{"format", 1},
             {"profile", o_.profile},
             {"limit", o_.limit},
             {"plan", hash_hex(plan_.to_json().dump())},
             {"assay", version_text()}};
    if (o_.nights > 0) {
      ASSAY_TRY(const Plan night, night_plan(o_, profile_, 0));
      head_["night_plan"] = hash_hex(night.to_json().dump());
    }
    for (const bool quantised : {false, true}) {
      const bool needed = (!quantised && o_.nights > 0) ||
                          std::any_of(faults.begin(), faults.end(), [&](const SelftestFault& f) {
                            return f.quantised == quantised;
                          });
      if (!needed) continue;
      ASSAY_TRY(EngineTarget* const target, lab_.healthy(quantised));
      head_["models"][quantised ? "vq" : "bf16"] = target->identity();
      if (plan_.leave_out_longer(target->max_positions()) > 0)
        say("assay selftest: prompts longer than the model are left out\n");
    }
    const fs::path path = file("selftest-plan.json");
    if (!fs::exists(path, error)) return write_file_atomic(path, head_.dump(1) + "\n");
    ASSAY_TRY(const Json was, read_json(path));
    // A call for faults alone says nothing of nights, and may load one of the models.
    for (const auto& [key, value] : head_.items()) {
      const Json old = was.value(key, value);
      bool same = key == "models" || old == value;
      if (key == "models")
        for (const auto& [build, identity] : value.items())
          same &= old.value(build, identity) == identity;
      if (!same)
        return fail(
            "{} holds a selftest that differs in \"{}\": {}, here {}. Repeat its options with that "
            "build of assay, or name another folder with --out.",
            o_.out, key, old.dump(), value.dump());
    }
    Json both = was;
    both.merge_patch(head_);
    head_ = std::move(both);
    return write_file_atomic(path, head_.dump(1) + "\n");
  }

  Result<Answers> healthy_run(bool quantised) {
    auto& kept = healthy_[quantised ? 1 : 0];
    if (!kept) {
      ASSAY_TRY(EngineTarget* const target, lab_.healthy(quantised));
      say("  the healthy {} model\n", quantised ? "VQ" : "bf16");
      ASSAY_TRY(kept, lab_.ask(plan_, *target, file(quantised ? "healthy-vq" : "healthy-bf16")));
    }
    return kept;
  }

  // Of the healthy model; empty: there is no such suite. None: interrupted.
  Result<std::optional<Json>> healthy_divergence(bool quantised) {
    auto& kept = healthy_divergence_[quantised ? 1 : 0];
    if (!kept) {
      ASSAY_TRY(EngineTarget* const target, lab_.healthy(quantised));
      // The noise floor is the base's: once is enough.
      ASSAY_TRY(kept, diverge(*target,
                              divergence_ ? divergence_->profiles.at(profile_).n_noise_texts : 0));
    }
    return kept;
  }

  Result<std::optional<Json>> diverge(EngineTarget& target, int n_noise_texts) {
    if (!divergence_) return Json::array();
    // All texts: they cost seconds, and a plan of whatever profile needs them as much.
    return lab_.diverge(*divergence_, {.limit = o_.limit, .n_noise_texts = n_noise_texts}, target);
  }

  static Lab::Texts usage_texts(const std::vector<Sample>& samples) {
    Lab::Texts texts;
    for (const Sample& s : samples) {
      auto& list = texts[s.language];
      if (s.prompt_ids.empty() || s.ids.empty() || list.size() == kUsageTexts) continue;
      std::vector<int> ids = s.prompt_ids;
      ids.insert(ids.end(), s.ids.begin(), s.ids.end());
      list.push_back(std::move(ids));
    }
    std::erase_if(texts, [](const auto& entry) { return entry.second.empty(); });
    return texts;
  }

  Result<void> run_fault(const SelftestFault& fault, int number, Steps& steps) {
    const fs::path done = file("faults") / (fault.name + ".json");
    std::error_code ignored;
    if (fs::exists(done, ignored)) {
      ASSAY_TRY(const Json json, read_json(done));
      ASSAY_TRY(Detection d, parse_detection(json, done.string()));
      detections_.push_back(std::move(d));
      return {};
    }
    steps.begin(number, fault.name);
    ASSAY_TRY(const Answers base, healthy_run(fault.quantised));
    if (!base) return {};
    FaultRun run;
    ASSAY_TRY(auto base_divergence, healthy_divergence(fault.quantised));
    if (!base_divergence) return {};
    run.base_measurements = *std::move(base_divergence);
    ASSAY_TRY(const std::string model, lab_.plant(fault, usage_texts(*base)));
    const auto start = Clock::now();
    auto target = lab_.load(model, fault.engine);
    if (!target) {
      run.refused = target.error().message;
      // Where the copy lay is nobody's business.
      if (run.refused.starts_with(model))
        run.refused = fault.name + run.refused.substr(model.size());
    } else {
      const fs::path folder = file("runs") / fault.name;
      ASSAY_TRY(Answers answers, lab_.ask(plan_, **target, folder));
      if (!answers) return {};
      run.samples = *std::move(answers);
      ASSAY_TRY(const bool finished, second_stage(fault, *base, **target, folder, run));
      if (!finished) return {};
      ASSAY_TRY(auto goldens, lab_.check_goldens(plan_, **target));
      if (!goldens) return {};
      run.goldens = *std::move(goldens);
      const auto before = Clock::now();
      auto measured = diverge(**target, 0);
      if (measured && !*measured) return {};
      // NaN, another tokenizer: the other checks speak.
      if (!measured) say("  its divergence cannot be measured: {}\n", measured.error().message);
      run.measurements = measured ? **std::move(measured) : Json::array();
      run.divergence_wall_s = seconds_since(before);
    }
    lab_.discard(fault);
    run.wall_s = seconds_since(start);
    const Detection d = detect(fault, plan_, *base, run);
    ASSAY_TRY_VOID(write_file_atomic(done, to_json(d).dump(1) + "\n"));
    say("  → {}{}\n", d.state, d.by.empty() ? "" : ": " + d.by.front());
    detections_.push_back(d);
    steps.end();
    return {};
  }

  // What is suspected in sampled arms is asked again, of both, unless the run is a regression
  // already: a wreck's replies are as long as they may be. False: interrupted.
  Result<bool> second_stage(const SelftestFault& fault, const std::vector<Sample>& base,
                            EngineTarget& target, const fs::path& folder, FaultRun& run) {
    const Comparison first = compare(base, run.samples, rules_of(plan_));
    const bool is_decided =
        !first.regressions.empty() || judge(plan_, run.samples).state == VerdictState::kRegression;
    if (is_decided || !first.needs_confirmation()) return true;
    const Plan again = confirmation_plan(plan_, confirm_keys(first, base, run.samples));
    if (again.items.empty()) return true;
    ASSAY_TRY(EngineTarget* const healthy, lab_.healthy(fault.quantised));
    ASSAY_TRY(Answers of_base, lab_.ask(again, *healthy, folder / "base-again"));
    if (!of_base) return false;
    ASSAY_TRY(Answers of_fault, lab_.ask(again, target, folder / "again"));
    if (!of_fault) return false;
    run.base_again = *std::move(of_base);
    run.candidate_again = *std::move(of_fault);
    return true;
  }

  Result<void> run_night(int number, Steps& steps) {
    const fs::path done = file("nights") / fmt::format("{:04}.json", number);
    std::error_code ignored;
    if (fs::exists(done, ignored)) {
      ASSAY_TRY(const Json json, read_json(done));
      ASSAY_TRY(Night night, parse_night(json, done.string()));
      nights_.push_back(std::move(night));
      return {};
    }
    steps.begin(number, "");
    const auto start = Clock::now();
    // A night that was killed begins again: its draws are the same.
    const fs::path folder = file("night");
    fs::remove_all(folder, ignored);
    ASSAY_TRY(EngineTarget* const target, lab_.healthy(false));
    ASSAY_TRY(const Plan base_plan, night_plan(o_, profile_, night_seed(number, "base")));
    ASSAY_TRY(const Plan plan, night_plan(o_, profile_, night_seed(number, "candidate")));
    ASSAY_TRY(const Answers base, lab_.ask(base_plan, *target, folder / "base"));
    if (!base) return {};
    ASSAY_TRY(const Answers candidate, lab_.ask(plan, *target, folder / "candidate"));
    if (!candidate) return {};
    const Comparison first = compare(*base, *candidate, rules_of(plan));
    Confirmation second;
    if (first.needs_confirmation()) {
      const auto keys = confirm_keys(first, *base, *candidate);
      ASSAY_TRY(const Answers base_again,
                lab_.ask(confirmation_plan(base_plan, keys), *target, folder / "base-again"));
      if (!base_again) return {};
      ASSAY_TRY(const Answers again,
                lab_.ask(confirmation_plan(plan, keys), *target, folder / "again"));
      if (!again) return {};
      second = confirm(first, *base_again, *again);
    }
    Night night = judge_night(number, plan, *base, *candidate, second);
    night.wall_s = seconds_since(start);
    ASSAY_TRY_VOID(write_file_atomic(done, to_json(night).dump(1) + "\n"));
    for (const std::string& suspicion : night.suspicions) say("  suspected: {}\n", suspicion);
    if (night.state != "pass" || !night.suspicions.empty()) say("  → {}\n", night.state);
    fs::remove_all(folder, ignored);
    nights_.push_back(std::move(night));
    steps.end();
    return {};
  }

  Result<int> conclude() {
    const FalseFails fails = count_false_fails(nights_);
    Json json = head_;
    json["status"] = stopped() ? "running" : "complete";
    json["provenance"] = make_provenance(command_line(), {{"threads", o_.threads}});
    json["night"] = {{"suites", kNightSuites}, {"temperature", kNightTemperature}};
    json["false_fails"] = to_json(fails);
    json["nights"] = Json::array();
    for (const Night& night : nights_) json["nights"].push_back(to_json(night));
    json["faults"] = Json::array();
    for (const Detection& d : detections_) json["faults"].push_back(to_json(d));
    const bool passes = selftest_passes(detections_, fails);
    json["passes"] = passes;
    ASSAY_TRY_VOID(write_file_atomic(file("selftest.json"), json.dump(1) + "\n"));
    ASSAY_TRY_VOID(write_file_atomic(
        file("selftest.md"), selftest_markdown(detections_) + "\n" + false_fail_text(fails)));
    if (!detections_.empty()) fmt::print("\n{}", selftest_table(detections_));
    if (!nights_.empty()) fmt::print("\n{}", false_fail_text(fails));
    fmt::print("\n  {}\n", file("selftest.json").string());
    if (stopped()) {
      say("assay selftest: interrupted; the same command goes on from here\n");
      return kInterrupted;
    }
    return passes ? kPass : kRegression;
  }

  const Options& o_;
  Profile profile_;
  Lab lab_;
  Plan plan_;
  Json head_;
  Answers healthy_[2];
  std::optional<DivergenceSuite> divergence_;
  std::optional<Json> healthy_divergence_[2];
  std::vector<Detection> detections_;
  std::vector<Night> nights_;
};

Result<int> run(const Options& o) {
  if (!o.power) return fail("what is to be tested? --power: what is caught, and who is accused.");
  ASSAY_TRY(const Profile profile, parse_profile(o.profile));
  ASSAY_TRY(const auto faults, faults_named(o.faults));
  if (faults.empty() && o.nights == 0) return fail("--faults none --nights 0 leaves nothing to do");
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  return Selftest(o, profile).run(faults);
}

Action setup(CLI::App& app) {
  const auto o = std::make_shared<Options>();
  app.add_flag("--power", o->power,
               "Plant faults and see what catches them; judge healthy nights against each other");
  app.add_option("--model", o->model, "bf16 checkpoint")->capture_default_str();
  app.add_option("--vq", o->vq, "VQ build of it")->capture_default_str();
  app.add_option("--nights", o->nights, "Nights of the bf16 model against itself")
      ->check(at_least(0))
      ->capture_default_str();
  app.add_option("--faults", o->faults, "Only these, or all, or none")
      ->delimiter(',')
      ->type_name("LIST");
  app.add_option("--profile", o->profile, "quick or ci: the cases that are asked")
      ->capture_default_str();
  app.add_option("--limit", o->limit, "Only N samples of each plan, spread over its suites")
      ->check(at_least(1));
  app.add_option("--suites", o->suites, "Folder of the suites")->type_name("DIR");
  app.add_option("--out", o->out, "Folder to write; a second call goes on there")
      ->capture_default_str();
  app.add_option("--backend,--device", o->backend, "That computes: cpu, cuda or reference")
      ->capture_default_str();
  app.add_option("--threads", o->threads, "Workers (default: every core)")->check(at_least(1));
  return [o] { return run(*o); };
}

}  // namespace

const Verb selftest_verb = {
    "selftest",
    "Test the harness itself: planted faults must be caught, healthy models not accused",
    "  assay selftest --power                          every fault, 300 nights: hours\n"
    "  assay selftest --power --nights 0               the faults alone\n"
    "  assay selftest --power --faults stuck,greedy --nights 0\n"
    "  assay selftest --power --faults none --nights 50 --out out/nights\n\n"
    "Killed or stopped? The same command goes on. Writes selftest.json and selftest.md.\n"
    "Exit codes: 0 every strong fault is caught and false failures are rare, 1 not so,\n"
    "            2 could not run, 130 interrupted.",
    &setup};

}  // namespace assay::cli
