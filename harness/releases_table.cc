#include "harness/releases_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <vector>

#include "base/file.h"
#include "harness/table.h"

namespace assay::harness {
namespace {

std::string text_of(const Json& json, const char* key) { return json.at(key).get<std::string>(); }

// A line of the table: one figure of every run, null where a run has none.
struct Line {
  std::string suite, arm, language, figure;
  std::vector<Json> values;
};

bool is_row(const Json& g) { return g.at("gated").get<bool>() && text_of(g, "kind").empty(); }

const Json* same_group(const Json& run, const Json& like) {
  for (const Json& g : run.at("metrics"))
    if (is_row(g) && g.at("suite") == like.at("suite") && g.at("arm") == like.at("arm") &&
        g.at("language") == like.at("language"))
      return &g;
  return nullptr;
}

const Json* measured(const Json& run, std::string_view measure) {
  if (!run.contains("measurements")) return nullptr;
  for (const Json& m : run.at("measurements"))
    if (m.at("measure") == measure && m.at("state") == "measured") return &m.at("result");
  return nullptr;
}

bool is_null(const Json& value) { return value.is_null(); }

// Figures of every group of samples that the first run to have it lists.
void add_groups(std::span<const Release> releases, std::vector<Line>& lines) {
  std::vector<const Json*> groups;
  for (const Release& release : releases)
    for (const Json& g : release.run->at("metrics")) {
      const bool known = std::any_of(groups.begin(), groups.end(), [&](const Json* other) {
        return other->at("suite") == g.at("suite") && other->at("arm") == g.at("arm") &&
               other->at("language") == g.at("language");
      });
      if (is_row(g) && !known) groups.push_back(&g);
    }
  const auto add = [&](const char* figure, const std::function<Json(const Json&)>& of,
                       bool languages) {
    for (const Json* like : groups) {
      if (!languages && !text_of(*like, "language").empty()) continue;
      Line line{
          text_of(*like, "suite"), text_of(*like, "arm"), text_of(*like, "language"), figure, {}};
      for (const Release& release : releases) {
        const Json* g = same_group(*release.run, *like);
        line.values.push_back(g == nullptr ? Json() : of(*g));
      }
      if (!std::all_of(line.values.begin(), line.values.end(), is_null))
        lines.push_back(std::move(line));
    }
  };
  const auto rate = [](const char* key) {
    return [key](const Json& g) { return g.at(key).at("n") == 0 ? Json() : Json(g.at(key)); };
  };
  const auto thinks = [](const Json& g) {
    return g.at("thinking_tokens").contains("survival") &&
           !g.at("thinking_tokens").at("survival").empty();
  };
  add("accuracy", rate("accuracy"), true);
  add(
      "thinking closes", [&](const Json& g) { return thinks(g) ? rate("closed")(g) : Json(); },
      true);
  add(
      "thinking tokens p50",
      [&](const Json& g) {
        const bool is_known = thinks(g) && g.at("thinking_tokens").value("n", 1) > 0;
        return is_known ? g.at("thinking_tokens").at("p50") : Json();
      },
      false);
}

void add_measured(std::span<const Release> releases, std::vector<Line>& lines) {
  const auto add = [&](std::string figure, const std::string& language,
                       const std::function<Json(const Json&)>& of) {
    Line line{"", "", language, std::move(figure), {}};
    for (const Release& release : releases) line.values.push_back(of(*release.run));
    if (!std::all_of(line.values.begin(), line.values.end(), is_null))
      lines.push_back(std::move(line));
  };
  for (const char* language : {"all", "ja", "en", "zh"})
    add("mean KLD, nats", std::string(language) == "all" ? "" : language, [&](const Json& run) {
      const Json* result = measured(run, "divergence");
      if (result == nullptr) return Json();
      for (const Json& g : result->at("groups"))
        if (g.at("lang") == language && g.at("part") == "all") return g.at("kld").at("mean");
      return Json();
    });
  std::vector<std::pair<int, int>> decoded;
  for (const Release& release : releases)
    if (const Json* result = measured(*release.run, "throughput"))
      for (const Json& row : result->at("decode")) {
        const std::pair key{row.at("depth").get<int>(), row.at("batch").get<int>()};
        if (std::find(decoded.begin(), decoded.end(), key) == decoded.end()) decoded.push_back(key);
      }
  for (const auto& [depth, batch] : decoded)
    add(fmt::format("decode tokens/s, depth {}, batch {}", depth, batch), "",
        [depth = depth, batch = batch](const Json& run) {
          if (const Json* result = measured(run, "throughput"))
            for (const Json& row : result->at("decode"))
              if (row.at("depth") == depth && row.at("batch") == batch &&
                  !row.at("tokens_per_s").is_null())
                return Json(row.at("tokens_per_s").at("median"));
          return Json();
        });
  add("weight MB a token reads", "", [](const Json& run) {
    const Json& target = run.at("provenance").at("target");
    return target.contains("active_bytes") ? Json(target.at("active_bytes").get<double>() / 1e6)
                                           : Json();
  });
}

std::vector<Line> lines_of(std::span<const Release> releases) {
  std::vector<Line> lines;
  add_groups(releases, lines);
  add_measured(releases, lines);
  return lines;
}

std::string value_text(const Json& value) {
  if (value.is_null()) return "–";
  if (value.is_number()) return fmt::format("{:.4g}", value.get<double>());
  if (value.contains("lo"))
    return fmt::format("{:.1f} % [{:.1f}, {:.1f}]", 100 * value.at("estimate").get<double>(),
                       100 * value.at("lo").get<double>(), 100 * value.at("hi").get<double>());
  const std::string text = fmt::format("{:.4f}", value.at("value").get<double>());
  return value.at("error").is_null()
             ? text
             : fmt::format("{} ± {:.4f}", text, value.at("error").get<double>());
}

// A single language in which all runs are equal says what its arm does.
bool says_nothing(const Line& line) {
  const auto estimate = [](const Json& v) { return v.is_object() ? v.value("estimate", v) : v; };
  return !line.suite.empty() && !line.language.empty() &&
         std::all_of(line.values.begin(), line.values.end(), [&](const Json& value) {
           return estimate(value) == estimate(line.values.front());
         });
}

}  // namespace

std::string render_releases(std::span<const Release> releases, bool colour) {
  std::vector<std::vector<Cell>> rows = {{Cell{"", false, Ink::kSoft}}};
  for (const Release& release : releases) rows[0].push_back({release.name, true, Ink::kBold});
  std::string figure;
  int n_left_out = 0;
  for (const Line& line : lines_of(releases)) {
    if (says_nothing(line)) {
      ++n_left_out;
      continue;
    }
    if (line.figure != figure && !line.suite.empty()) {
      figure = line.figure;
      rows.push_back({Cell{figure, false, Ink::kSoft}});
    }
    const std::string place =
        line.suite.empty() ? line.figure + (line.language.empty() ? "" : " · " + line.language)
                           : "  " + line.suite + " · " + line.arm +
                                 (line.language.empty() ? "" : " · " + line.language);
    std::vector<Cell> row = {{place}};
    for (const Json& value : line.values) row.push_back({value_text(value), true});
    rows.push_back(std::move(row));
  }
  std::string text = table_text(rows, colour);
  if (n_left_out > 0)
    text += fmt::format("  {} rows of single languages in which all are equal are in --json\n",
                        n_left_out);
  return text;
}

Json releases_json(std::span<const Release> releases) {
  Json lines = Json::array(), names = Json::array();
  for (const Release& release : releases) names.push_back(release.name);
  for (const Line& line : lines_of(releases))
    lines.push_back({{"suite", line.suite},
                     {"arm", line.arm},
                     {"language", line.language},
                     {"figure", line.figure},
                     {"values", line.values}});
  return {{"runs", std::move(names)}, {"rows", std::move(lines)}};
}

std::vector<std::string> names_apart(std::span<const std::string> folders) {
  std::vector<std::vector<std::string>> parts;  // of each, the last one first
  for (const std::string& folder : folders) {
    auto& own = parts.emplace_back();
    for (const fs::path& part : fs::path(folder).lexically_normal())
      if (!part.empty() && part != "/") own.insert(own.begin(), part.string());
  }
  const auto name = [&](std::size_t i, std::size_t n_parts) {
    std::string out;
    for (std::size_t k = std::min(n_parts, parts[i].size()); k-- > 0;)
      out += (out.empty() ? "" : "/") + parts[i][k];
    return out;
  };
  std::vector<std::string> out;
  for (std::size_t i = 0; i < folders.size(); ++i) {
    std::size_t n_parts = 1, n_before = 0;
    for (std::size_t other = 0; other < folders.size(); ++other) {
      n_before += other < i && parts[other] == parts[i];
      while (parts[other] != parts[i] && n_parts < parts[i].size() &&
             name(other, n_parts) == name(i, n_parts))
        ++n_parts;
    }
    out.push_back(name(i, n_parts) +
                  (n_before > 0 ? fmt::format(" ({})", n_before + 1) : std::string()));
  }
  return out;
}

}  // namespace assay::harness
