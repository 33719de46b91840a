#include "harness/report.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/check.h"
#include "base/hash.h"
#include "harness/closing_lines.h"
#include "harness/report_page.h"

namespace assay::harness {
namespace {

std::string html_escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '&')
      out += "&amp;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

// A trace of at most kTracePoints points, each the largest of its stretch of tokens, so that a peak
// is never lost: log10, from 0 down to kTraceFloor.
constexpr std::size_t kTracePoints = 120;
constexpr double kTraceFloor = -6;
Json page_trace(const std::vector<StepFigures>& steps, float StepFigures::*figure) {
  Json points = Json::array();
  const std::size_t n = std::min(kTracePoints, steps.size());
  for (std::size_t i = 0; i < n; ++i) {
    float largest = 0;
    for (std::size_t k = i * steps.size() / n; k < (i + 1) * steps.size() / n; ++k)
      largest = std::max(largest, steps[k].*figure);
    const double log = largest > 0 ? std::log10(static_cast<double>(largest)) : kTraceFloor;
    points.push_back(std::round(100 * std::max(kTraceFloor, log)) / 100);
  }
  return points;
}

// The report shows text; token ids stay in samples.jsonl. The extraction's byte span becomes three
// pieces, because the page counts in UTF-16.
Json page_sample(const Sample& s) {
  Json json = to_json(s);
  json.erase("prompt_ids");
  json.erase("ids");
  json.erase("timings");
  if (s.reask) json["reask"].erase("ids");
  json["n_tokens"] = s.ids.size();
  if (s.drawn && !s.steps.empty())
    json["trace"] = {{"floor", kTraceFloor},
                     {"think_close", page_trace(s.steps, &StepFigures::p_think_close)},
                     {"eos", page_trace(s.steps, &StepFigures::p_eos)}};
  if (s.extraction) {
    const auto& [value, rule, begin, end, per] = *s.extraction;
    json["extraction"] = {{"value", value},
                          {"rule", rule},
                          {"before", s.answer.substr(0, begin)},
                          {"span", s.answer.substr(begin, end - begin)},
                          {"after", s.answer.substr(end)}};
  }
  return json;
}

// One pass over the template, so that text put in is never searched for placeholders.
std::string filled(std::string_view page, const std::map<std::string_view, std::string>& values) {
  std::string out;
  while (true) {
    const std::size_t open = page.find("{{");
    out += page.substr(0, open);
    if (open == std::string_view::npos) return out;
    const std::size_t close = page.find("}}", open);
    CHECK(close != std::string_view::npos) << "an unclosed placeholder in report.html.in";
    const auto name = page.substr(open + 2, close - open - 2);
    const auto value = values.find(name);
    CHECK(value != values.end()) << "unknown placeholder " << name;
    out += value->second;
    page.remove_prefix(close + 2);
  }
}

}  // namespace

std::string script_safe_json(const Json& json) {
  const std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  std::string out;
  out.reserve(text.size());
  // Outside strings JSON has no "<" and no such separator, so the escapes always stand inside one.
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto three = std::string_view(text).substr(i, 3);
    if (text[i] == '<') {
      out += "\\u003c";
    } else if (three == "\xE2\x80\xA8" || three == "\xE2\x80\xA9") {
      out += three == "\xE2\x80\xA8" ? "\\u2028" : "\\u2029";
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string render_report(const Json& run, const std::vector<Sample>& samples) {
  const auto command = run.at("provenance").at("command").get<std::string>();
  Json data = {{"run", run}, {"samples", Json::array()}, {"command_again", command_again(command)}};
  for (const Sample& sample : samples) data["samples"].push_back(page_sample(sample));
  const std::string json = script_safe_json(data);
  std::string names;
  for (const Json& suite : run.at("plan").at("suites"))
    names += (names.empty() ? "" : ", ") + suite.at("name").get<std::string>();
  const std::string title =
      fmt::format("assay: {} — {}", run.at("verdict").at("state").get<std::string>(), names);
  return filled(
      kReportHtml,
      {{"nonce", hash_hex(json)},
       {"title", html_escaped(title)},
       {"css", std::string(kReportCss)},
       {"js", fmt::format("{}{}{}", kReportJs, kReportComparisonJs, kReportMeasurementsJs)},
       {"data", json}});
}

}  // namespace assay::harness
