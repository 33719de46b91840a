#include "harness/measure_suite.h"

#include "base/suggest.h"
#include "harness/divergence_table.h"
#include "harness/suite.h"
#include "harness/table.h"
#include "harness/throughput_table.h"

namespace assay::harness {

Result<MeasureSuite> load_measure_suite(const fs::path& folder) {
  const fs::path path = folder / "suite.json";
  ASSAY_TRY(const std::string text, read_file(path));
  ASSAY_TRY(const Json json, parse_json(text, path.string()));
  const std::string measure = measure_of(json).value_or("");
  if (measure == "throughput") {
    ASSAY_TRY(ThroughputSuite suite, parse_throughput_suite(text, path.string()));
    return suite;
  }
  if (measure == "divergence") {
    ASSAY_TRY(DivergenceSuite suite, load_divergence_suite(folder));
    return suite;
  }
  const std::vector<std::string> known = {"throughput", "divergence"};
  return fail("{}: unknown measure '{}'.{}", path.string(), measure, suggestion(measure, known));
}

const MeasureHead& head_of(const MeasureSuite& suite) {
  return std::visit([](const auto& s) -> const MeasureHead& { return s.head; }, suite);
}

bool supports(const MeasureSuite& suite, Profile profile) {
  return std::visit([&](const auto& s) { return s.profiles.contains(profile); }, suite);
}

std::string render_measurements(const Json& measurements, bool colour) {
  std::string out;
  for (const Json& m : measurements) {
    if (!out.empty()) out += "\n";
    const bool measured = m.at("state") == "measured";
    out += fmt::format("  {}", painted(m.at("suite").get<std::string>(), Ink::kBold, colour));
    if (!measured) {
      const std::string reason = "not run: " + m.at("reason").get<std::string>();
      out += fmt::format("  {}\n", painted(reason, Ink::kWarn, colour));
      continue;
    }
    out += fmt::format("  {}\n", m.at("title").get<std::string>());
    const Json& result = m.at("result");
    out += m.at("measure") == "throughput" ? render_throughput(result, colour)
                                           : render_divergence(result, colour);
  }
  return out;
}

}  // namespace assay::harness
