// For tests that interrupt runs: what in a run's folder must not depend on how often that happened,
// and what an interruption hit.
#pragma once

#include <algorithm>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/file.h"
#include "base/json.h"
#include "harness/steps.h"

namespace assay {

inline std::string without_path(std::string text, const fs::path& folder) {
  const std::string path = folder.string();
  for (std::size_t at = 0; (at = text.find(path, at)) != std::string::npos;)
    text.replace(at, path.size(), "RUN");
  return text;
}

inline Json without_times(Json run) {
  run.erase("timings");
  run["provenance"].erase("started");
  run["provenance"].erase("resumed");
  return run;
}

// By what it is. Of two folders in which the same was asked of the same model, all are equal.
inline std::map<std::string, std::string> lasting_contents(const fs::path& folder) {
  const auto text = [&](const char* file) {
    const auto read = read_file(folder / file);
    CHECK(read.has_value()) << read.error().message;
    return without_path(*read, folder);
  };
  std::map<std::string, std::string> out;
  out["run.json"] = without_times(Json::parse(text("run.json"))).dump(1);

  std::vector<std::string> lines, keys;
  std::istringstream samples(text("samples.jsonl"));
  for (std::string line; std::getline(samples, line);) {
    Json sample = Json::parse(line);
    sample.erase("timings");
    lines.push_back(sample.dump());
    keys.push_back(sample["suite"].get<std::string>() + "/" + sample["arm"].get<std::string>() +
                   "/" + sample["id"].get<std::string>() +
                   (sample["repeat"] == 0 ? "" : "#" + sample["repeat"].dump()));
  }
  std::sort(lines.begin(), lines.end());
  for (const std::string& line : lines) out["samples.jsonl"] += line + "\n";

  const std::string bytes = *read_file(folder / "steps.bin");
  const auto frames = harness::decode_steps(bytes, "steps.bin");
  CHECK(frames.has_value()) << frames.error().message;
  out["steps.bin, bytes after the last frame"] = std::to_string(bytes.size() - frames->n_bytes);
  std::sort(keys.begin(), keys.end());
  std::string of_samples;
  for (const std::string& key : keys) of_samples += key + "\n";
  out["keys of samples"] = of_samples;
  for (const auto& [key, steps] : frames->by_key) {
    out["keys of steps"] += key + "\n";
    out["steps.bin"] += harness::encode_steps(key, steps);
  }

  const std::string page = text("report.html");
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const auto begin = page.find(open) + open.size(), end = page.find("</script", begin);
  Json data = Json::parse(page.substr(begin, end - begin));
  data["run"] = without_times(data["run"]);
  out["report.html, data"] = data.dump();
  const auto nonce = page.find("script-src 'nonce-") + 18;
  out["report.html, page"] = page.substr(0, begin) + page.substr(end);
  for (std::string& shown = out["report.html, page"];
       shown.find(page.substr(nonce, 32)) != std::string::npos;)
    shown.replace(shown.find(page.substr(nonce, 32)), 32, "NONCE");

  out["junit.xml"] =
      std::regex_replace(text("junit.xml"), std::regex(" (time|timestamp)=\"[^\"]*\""), "");
  out["summary.md"] = text("summary.md");
  for (const auto& entry : fs::directory_iterator(folder))
    out["files"] += entry.path().filename().string() + "\n";
  std::string& files = out["files"];
  std::istringstream names(files);
  std::vector<std::string> sorted;
  for (std::string name; std::getline(names, name);) sorted.push_back(name);
  std::sort(sorted.begin(), sorted.end());
  files.clear();
  for (const std::string& name : sorted) files += name + "\n";
  return out;
}

inline int count_lines(const fs::path& file) {
  const auto text = read_file(file);
  return text ? static_cast<int>(std::count(text->begin(), text->end(), '\n')) : 0;
}

// What a run was doing when it ended, as its folder shows.
inline std::string stage_of(const fs::path& folder, int n_samples) {
  std::error_code ignored;
  if (!fs::exists(folder / "run.json", ignored)) return "before run.json";
  const auto run = read_json(folder / "run.json");
  CHECK(run.has_value()) << run.error().message;  // it is never half a file
  if ((*run)["status"] == "running")
    return count_lines(folder / "samples.jsonl") < n_samples ? "among samples"
                                                             : "before the verdict";
  for (const char* file : {"report.html", "junit.xml", "summary.md"})
    if (!fs::exists(folder / file, ignored) ||
        fs::exists(folder / (std::string(file) + ".tmp"), ignored))
      return "among reports";
  return "at the end";
}

// A line or a frame that was not written whole.
inline bool has_torn_end(const fs::path& folder) {
  const auto samples = read_file(folder / "samples.jsonl");
  if (samples && !samples->empty() && samples->back() != '\n') return true;
  const auto steps = read_file(folder / "steps.bin");
  if (!steps) return false;
  const auto frames = harness::decode_steps(*steps, "steps.bin");
  CHECK(frames.has_value()) << frames.error().message;
  return frames->n_bytes < steps->size();
}

// Cuts up to `n` bytes off the last line, as a machine does that loses power.
inline bool tear_last_line(const fs::path& folder, std::size_t n) {
  std::error_code ignored;
  const fs::path file = folder / "samples.jsonl";
  const auto text = read_file(file);
  if (!text || text->size() < 2) return false;
  const std::size_t line = text->rfind('\n', text->size() - 2) + 1;  // npos + 1: the first
  fs::resize_file(file, std::max(line + 1, text->size() - std::min(n, text->size())), ignored);
  return !ignored;
}

}  // namespace assay
