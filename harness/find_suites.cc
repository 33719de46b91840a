#include "harness/find_suites.h"

#include <algorithm>
#include <set>

#include "base/shortened.h"
#include "base/suggest.h"

namespace assay::harness {
namespace {

bool has_suite(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / "suite.json", ignored);
}

}  // namespace

Result<FoundSuites> find_suites(std::span<const std::string> names, const fs::path& suites_folder,
                                const SuiteInputs& inputs) {
  std::vector<std::string> known;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(suites_folder, ignored))
    if (has_suite(entry.path())) known.push_back(entry.path().filename().string());
  std::sort(known.begin(), known.end());

  struct Wanted {
    fs::path folder;
    bool by_name;
  };
  std::vector<Wanted> wanted;
  for (const std::string& name : names) {
    if (name == "all") {
      if (known.empty())
        return fail("no suite in {}. Name another folder with --suites.", suites_folder.string());
      for (const std::string& each : known) wanted.push_back({suites_folder / each, false});
    } else if (std::find(known.begin(), known.end(), name) != known.end()) {
      wanted.push_back({suites_folder / name, true});
    } else if (has_suite(name)) {
      wanted.push_back({name, true});
    } else if (name.find('/') != std::string::npos) {
      return fail("{}: no suite.json there, so it is no suite's folder. Suites by name: {}.", name,
                  shortened(known, ", ", 20));
    } else if (known.empty()) {
      return fail("unknown suite '{}': there is no suite in {}. Name another folder with --suites.",
                  name, suites_folder.string());
    } else {
      std::vector<std::string> choices = known;
      choices.push_back("all");
      return fail("unknown suite '{}' in {}.{}", name, suites_folder.string(),
                  suggestion(name, choices));
    }
  }
  FoundSuites found;
  std::set<std::string> loaded;
  for (const auto& [folder, by_name] : wanted) {
    ASSAY_TRY(const Json json, read_json(folder / "suite.json"));
    std::string name;
    if (measure_of(json)) {
      ASSAY_TRY(MeasureSuite suite, load_measure_suite(folder));
      name = head_of(suite).name;
      found.measures.push_back(std::move(suite));
    } else if (!by_name && json.is_object() && json.contains("cases") &&
               json["cases"].is_object() && inputs.data.empty()) {
      // "all" means all that can be asked here.
      name = folder.filename().string();
      found.skipped.push_back({name, "needs its public files: --data DIR"});
    } else {
      ASSAY_TRY(Suite suite, load_suite(folder, inputs));
      name = suite.name;
      found.suites.push_back(std::move(suite));
    }
    if (!loaded.insert(name).second) return fail("suite '{}' is asked for twice", name);
  }
  return found;
}

}  // namespace assay::harness
