#include "harness/junit.h"

#include <fmt/format.h>

#include <map>
#include <set>

#include "harness/escape.h"

namespace assay::harness {
namespace {

// Of a question or an answer; samples.jsonl has the whole.
constexpr int kMostCharacters = 500;

enum class State { kPass, kFailure, kError, kSkipped };

struct TestCase {
  std::string classname, name;
  double time_s = 0;
  State state = State::kPass;
  std::string type, message;  // where it did not pass
  std::string out;            // what else a reader wants to know
};

struct TestSuite {
  std::string name;
  std::vector<TestCase> cases;
};

int count(const TestSuite& suite, State state) {
  int n = 0;
  for (const TestCase& c : suite.cases) n += c.state == state;
  return n;
}

double time_of(const TestSuite& suite) {
  double time = 0;
  for (const TestCase& c : suite.cases) time += c.time_s;
  return time;
}

std::string attribute(const char* name, std::string_view value) {
  return fmt::format(" {}=\"{}\"", name, xml_attribute(value));
}

std::string counts(int n, int n_failures, int n_errors, int n_skipped, double time_s) {
  return fmt::format(R"( tests="{}" failures="{}" errors="{}" skipped="{}" time="{:.3f}")", n,
                     n_failures, n_errors, n_skipped, time_s);
}

std::string to_xml(const TestCase& c) {
  std::string out = "    <testcase" + attribute("classname", c.classname) +
                    attribute("name", c.name) + fmt::format(" time=\"{:.3f}\"", c.time_s);
  if (c.state == State::kPass && c.out.empty()) return out + "/>\n";
  out += ">\n";
  const std::string message = attribute("message", c.message);
  if (c.state == State::kSkipped) out += "      <skipped" + message + "/>\n";
  if (c.state == State::kFailure)
    out += "      <failure" + message + attribute("type", c.type) + "/>\n";
  if (c.state == State::kError)
    out += "      <error" + message + attribute("type", c.type) + "/>\n";
  if (!c.out.empty()) out += "      <system-out>" + xml_text(c.out) + "</system-out>\n";
  return out + "    </testcase>\n";
}

std::string to_xml(const TestSuite& suite, const std::string& timestamp) {
  std::string out =
      "  <testsuite" + attribute("name", suite.name) +
      counts(static_cast<int>(suite.cases.size()), count(suite, State::kFailure),
             count(suite, State::kError), count(suite, State::kSkipped), time_of(suite)) +
      attribute("timestamp", timestamp) + ">\n";
  for (const TestCase& c : suite.cases) out += to_xml(c);
  return out + "  </testsuite>\n";
}

std::string text_of(const Json& json, const char* key) { return json.at(key).get<std::string>(); }

// The run as a whole: red whatever its reason is, a sample that is missing for one.
TestSuite verdict_suite(const Json& run) {
  const Json& verdict = run.at("verdict");
  TestCase c{.classname = "assay", .name = "verdict"};
  const std::string state = text_of(verdict, "state");
  if (state == "regression") c.state = State::kFailure;
  if (state == "invalid") c.state = State::kError;
  c.type = state;
  c.message = text_of(verdict, "summary");
  c.out = state + ": " + c.message + "\n";
  for (const char* list : {"problems", "warnings"})
    for (const Json& line : verdict.value(list, Json::array()))
      c.out += fmt::format("- {}\n", line.get<std::string>());
  c.out += "again: " + text_of(run.at("provenance"), "command") + "\n";
  return {"verdict", {std::move(c)}};
}

std::string limit_of(const Json& gate) {
  const bool is_min = !gate.at("min").is_null();
  return fmt::format("{} {:.1f} %", is_min ? "≥" : "≤",
                     100 * gate.at(is_min ? "min" : "max").get<double>());
}

TestSuite gate_suite(const Json& run) {
  TestSuite suite{.name = "gates"};
  for (const Json& gate : run.at("verdict").at("gates")) {
    TestCase c{.classname = "gates." + text_of(gate, "suite"), .name = text_of(gate, "name")};
    const Json& rate = gate.at("rate");
    const std::string state = text_of(gate, "state"), detail = text_of(gate, "detail");
    c.out = rate.at("n") == 0
                ? detail
                : fmt::format("{} {:.1f} % of {}, limit {}: {}", text_of(gate, "metric"),
                              100 * rate.at("estimate").get<double>(), rate.at("n").get<int>(),
                              limit_of(gate), detail);
    c.message = c.out;
    if (state == "fail") c.state = State::kFailure;
    if (state == "not_run") c.state = State::kSkipped;
    if (c.state != State::kPass) c.out.clear();
    c.type = text_of(gate, "metric");
    suite.cases.push_back(std::move(c));
  }
  if (run.at("verdict").contains("sampler")) {
    const Json& sampler = run.at("verdict").at("sampler");
    TestCase c{.classname = "gates", .name = "the sampler draws what it says"};
    if (!sampler.at("holds").get<bool>()) c.state = State::kFailure;
    c.type = "sampler";
    c.message = text_of(sampler, "text");
    if (c.state == State::kPass) c.out = c.message;
    suite.cases.push_back(std::move(c));
  }
  return suite;
}

void set_row_verdict(TestCase& c, const std::string& verdict, std::string what) {
  if (verdict == "regression") c.state = State::kFailure;
  if (verdict == "suspected") c.state = State::kError;  // a second stage has to decide
  c.type = verdict;
  c.message = verdict + ": " + what;
  if (c.state == State::kPass) c.out = verdict == "pass" ? std::move(what) : c.message;
}

std::string verdict_of_row(const Json& row) {
  return row.value("verdict", row.value("regressed", false) ? "regression" : "pass");
}

TestSuite baseline_suite(const Json& comparison) {
  TestSuite suite{.name = "baseline"};
  const auto place = [](const Json& row) {
    return "baseline." + text_of(row, "suite") + "." + text_of(row, "arm");
  };
  const auto name = [](const std::string& metric, const Json& row) {
    const std::string language = text_of(row, "language");
    return language.empty() ? metric : metric + " " + language;
  };
  for (const Json& row : comparison.at("rows")) {
    TestCase c{.classname = place(row), .name = name(text_of(row, "metric"), row)};
    const int n = row.at("n").get<int>(), detectable = row.at("detectable").get<int>();
    set_row_verdict(
        c, verdict_of_row(row),
        fmt::format("{} of {} before, {} now ({} regressed, {} fixed, p = {:.2g} after Holm){}",
                    row.at("n_base").get<int>(), n, row.at("n_candidate").get<int>(),
                    row.at("n_regressed").get<int>(), row.at("n_fixed").get<int>(),
                    row.at("p_holm").get<double>(),
                    detectable > n ? "; no drop could have shown"
                                   : fmt::format("; {} more would have shown", detectable)));
    suite.cases.push_back(std::move(c));
  }
  for (const Json& row : comparison.value("lengths", Json::array())) {
    TestCase c{.classname = place(row), .name = name("thinking length", row)};
    set_row_verdict(c, verdict_of_row(row),
                    fmt::format("{:.2f} times as long, n {}, p = {:.2g} after Holm",
                                row.at("ratio").get<double>(), row.at("n").get<int>(),
                                row.at("p_holm").get<double>()));
    suite.cases.push_back(std::move(c));
  }
  if (!comparison.contains("fidelity")) return suite;
  for (const Json& row : comparison.at("fidelity").at("rows")) {
    if (!row.value("can_tell", false)) continue;
    TestCase c{.classname = "baseline.fidelity",
               .name = "KLD to the base " + text_of(row, "language")};
    set_row_verdict(
        c, verdict_of_row(row),
        fmt::format("the typical text is {:.2f} times as far, p = {:.2g} after Holm",
                    row.at("ratio").at("estimate").get<double>(), row.at("p_holm").get<double>()));
    suite.cases.push_back(std::move(c));
  }
  return suite;
}

TestSuite golden_suite(const Json& goldens) {
  TestSuite suite{.name = "goldens"};
  for (const Json& golden : goldens) {
    TestCase c{.classname = "goldens", .name = text_of(golden, "name")};
    const std::string state = text_of(golden, "state");
    c.type = state;
    c.message =
        state == "not_comparable"
            ? text_of(golden, "reason")
            : fmt::format("{} of {} replies are computed otherwise now",
                          golden.at("divergences").size(), golden.at("n_replies").get<int>());
    if (state == "diverged") c.state = State::kFailure;
    if (state == "not_comparable") c.state = State::kError;
    for (const Json& d : golden.at("divergences"))
      c.out +=
          fmt::format("{} at token {}: '{}' was '{}'\n", text_of(d, "key"),
                      d.at("position").get<int>(), text_of(d, "is_text"), text_of(d, "was_text"));
    suite.cases.push_back(std::move(c));
  }
  return suite;
}

TestSuite no_golden_suite(const std::string& note) {
  TestSuite suite{.name = "goldens"};
  suite.cases.push_back(
      {.classname = "goldens", .name = "any", .state = State::kSkipped, .message = note});
  return suite;
}

TestSuite measurement_suite(const Json& measurements) {
  TestSuite suite{.name = "measurements"};
  for (const Json& m : measurements) {
    TestCase c{.classname = "measurements." + text_of(m, "measure"),
               .name = text_of(m, "suite"),
               .time_s = m.at("wall_s").get<double>()};
    if (text_of(m, "state") != "measured") c.state = State::kSkipped;
    c.message = text_of(m, "reason");
    suite.cases.push_back(std::move(c));
  }
  return suite;
}

// Suites whose own gate on errors passed: so many were allowed.
std::set<std::string> suites_that_allow_errors(const Json& run) {
  std::set<std::string> out;
  for (const Json& gate : run.at("verdict").at("gates"))
    if (gate.at("metric") == "error" && gate.at("state") == "pass")
      out.insert(text_of(gate, "suite"));
  return out;
}

// What a reader needs to see why a sample is not right. A wrong answer is no failure of the run:
// whether there are too many of them is what the gates say.
std::string story_of(const Sample& s) {
  const auto line = [](const char* key, const std::string& text) {
    return text.empty() ? "" : fmt::format("{}: {}\n", key, shortened(text, kMostCharacters));
  };
  std::string out = fmt::format("class: {}\n", class_of(s.outcome));
  out += line("question", s.question) + line("expected", s.expected) + line("answer", s.answer);
  if (s.extraction) out += line("extracted", s.extraction->value);
  return out + fmt::format("reply: {} tokens, {}\n", s.ids.size(),
                           s.finish.empty() ? "not finished" : s.finish);
}

TestCase case_of(const Sample& s, const std::set<std::string>& allow_errors) {
  TestCase c{.classname = s.suite + "." + s.arm,
             .name = s.repeat > 0 ? fmt::format("{}#{}", s.id, s.repeat) : s.id,
             .time_s = s.prefill_s + s.decode_s};
  const bool as_it_should =
      s.outcome.correctness == Correctness::kCorrect || class_of(s.outcome) == "answered";
  if (s.finish == "non_finite") {
    c.state = State::kFailure;
    c.type = s.finish;
  } else if (!s.ran()) {
    c.state = allow_errors.contains(s.suite) ? State::kSkipped : State::kError;
    c.type = name_of(s.outcome.termination);
  }
  c.message = shortened(s.error.empty() ? c.type : s.error, kMostCharacters);
  if (!as_it_should) c.out = story_of(s);
  return c;
}

std::vector<TestSuite> sample_suites(const std::vector<Sample>& samples,
                                     const std::set<std::string>& allow_errors) {
  std::vector<TestSuite> suites;
  std::map<std::string, std::size_t> index;
  for (const Sample& s : samples) {
    const std::string name = s.suite + "." + s.arm;
    const auto [at, is_new] = index.emplace(name, suites.size());
    if (is_new) suites.push_back({name, {}});
    suites[at->second].cases.push_back(case_of(s, allow_errors));
  }
  return suites;
}

}  // namespace

std::string render_junit(const Json& run, const std::vector<Sample>& samples) {
  std::vector<TestSuite> suites = {verdict_suite(run), gate_suite(run)};
  if (run.contains("goldens")) suites.push_back(golden_suite(run.at("goldens")));
  if (run.contains("golden_note")) suites.push_back(no_golden_suite(text_of(run, "golden_note")));
  if (run.contains("comparison")) suites.push_back(baseline_suite(run.at("comparison")));
  if (run.contains("measurements")) suites.push_back(measurement_suite(run.at("measurements")));
  for (TestSuite& suite : sample_suites(samples, suites_that_allow_errors(run)))
    suites.push_back(std::move(suite));
  std::erase_if(suites, [](const TestSuite& suite) { return suite.cases.empty(); });

  // The format's times have no zone; these are UTC.
  std::string timestamp = text_of(run.at("provenance"), "started");
  if (timestamp.ends_with('Z')) timestamp.pop_back();
  int n = 0, n_failures = 0, n_errors = 0, n_skipped = 0;
  double time_s = 0;
  std::string body;
  for (const TestSuite& suite : suites) {
    n += static_cast<int>(suite.cases.size());
    n_failures += count(suite, State::kFailure);
    n_errors += count(suite, State::kError);
    n_skipped += count(suite, State::kSkipped);
    time_s += time_of(suite);
    body += to_xml(suite, timestamp);
  }
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites" + attribute("name", "assay") +
         counts(n, n_failures, n_errors, n_skipped, time_s) + ">\n" + body + "</testsuites>\n";
}

}  // namespace assay::harness
