#include "harness/mgsm.h"

#include <algorithm>

#include "base/hash.h"
#include "engine/text/unicode.h"
#include "harness/extract.h"
#include "harness/json_fields.h"

namespace assay::harness {
namespace {

constexpr std::string_view kPlace = "{question}";

bool contains(const std::vector<std::string>& list, const std::string& one) {
  return std::find(list.begin(), list.end(), one) != list.end();
}

// What to do without the file of one language; `asked` for are these.
std::string no_file(const Json& files, const std::string& language, const fs::path& data,
                    const std::vector<std::string>& asked) {
  std::string others;
  for (const std::string& one : asked)
    if (files.contains(one) && files[one].is_string() &&
        is_there(data / files[one].get<std::string>()))
      others += (others.empty() ? "" : ",") + one;
  return fmt::format(
      "--data: there is no {}. Get it from https://github.com/google-research/url-nlp "
      "(folder mgsm, of the same release as the others){}",
      (data / files[language].get<std::string>()).string(),
      others.empty() ? "" : fmt::format(", or ask without it: --languages {}", others));
}

}  // namespace

Result<std::vector<std::pair<std::string, std::string>>> parse_mgsm(std::string_view tsv,
                                                                    std::string_view source) {
  if (const auto bad = text::first_invalid_utf8(tsv))
    return fail("{}: not valid UTF-8 at byte {}", source, *bad);
  std::vector<std::pair<std::string, std::string>> out;
  for (int line = 1; !tsv.empty(); ++line) {
    const std::size_t end = tsv.find('\n');
    std::string_view text = tsv.substr(0, end);
    tsv.remove_prefix(end == std::string_view::npos ? tsv.size() : end + 1);
    if (text.ends_with('\r')) text.remove_suffix(1);
    if (text.empty()) continue;
    const std::size_t tab = text.find('\t');
    if (tab == std::string_view::npos || tab == 0 ||
        text.find('\t', tab + 1) != std::string_view::npos)
      return fail("{}:{}: expected a question, one tab and a number, got '{}'", source, line,
                  text.substr(0, 60));
    const auto number = canonical_number(text.substr(tab + 1));
    if (!number)
      return fail("{}:{}: expected a number behind the tab, got '{}'", source, line,
                  text.substr(tab + 1));
    out.emplace_back(text.substr(0, tab), *number);
  }
  if (out.empty()) return fail("{}: there is no problem in it", source);
  return out;
}

Result<MgsmCases> load_mgsm_cases(const Json& spec, const std::string& where,
                                  const std::vector<std::string>& languages, const fs::path& data,
                                  const std::vector<std::string>& asked) {
  ASSAY_TRY(const auto fields,
            JsonFields::open(spec, where, {"format", "files", "prompts", "profiles"}));
  ASSAY_TRY(const std::string format, fields.text("format"));
  if (format != "mgsm") return fail("{}: 'format' must be \"mgsm\", got \"{}\"", where, format);
  for (const char* key : {"files", "prompts", "profiles"})
    if (!spec.contains(key) || !spec[key].is_object())
      return fail("{}: '{}' must be an object", where, key);
  ASSAY_TRY(const auto profiles, JsonFields::open(spec["profiles"], where + ".profiles",
                                                  {"quick", "ci", "nightly", "full"}));
  std::vector<std::pair<long, Profile>> limits;  // problems below the limit are in the profile
  for (const Profile p : {Profile::kQuick, Profile::kCi, Profile::kNightly, Profile::kFull}) {
    const long least = limits.empty() ? 0 : limits.back().first;
    ASSAY_TRY(const long limit, profiles.integer(name_of(p), least, 1 << 20));
    limits.emplace_back(limit, p);
  }
  if (data.empty())
    return fail(
        "{}: the files of this suite are not ours to bring along. Get them from "
        "https://github.com/google-research/url-nlp (folder mgsm) and name their folder with "
        "--data DIR.",
        where);
  std::error_code ignored;
  if (!fs::is_directory(data, ignored))
    return fail("--data {}: expected the folder that holds the files, found {}", data.string(),
                fs::exists(data, ignored) ? "a file" : "nothing");
  MgsmCases out;
  Hasher hasher;
  std::size_t n_problems = 0;
  for (const std::string& language : languages) {
    for (const char* key : {"files", "prompts"})
      if (!spec[key].contains(language) || !spec[key][language].is_string())
        return fail("{}: '{}' has no entry for language '{}'", where, key, language);
    const std::string prompt = spec["prompts"][language];
    const std::size_t place = prompt.find(kPlace);
    if (place == std::string::npos)
      return fail("{}: the prompt of '{}' must hold {}", where, language, kPlace);
    const fs::path file = data / spec["files"][language].get<std::string>();
    ASSAY_TRY_VOID(check_link(file));
    if (!is_there(file)) {
      if (!asked.empty() && !contains(asked, language)) continue;
      return fail("{}", no_file(spec["files"], language, data, asked.empty() ? languages : asked));
    }
    ASSAY_TRY(const std::string text, read_file(file));
    hasher.update(text);
    ASSAY_TRY(const auto problems, parse_mgsm(text, file.string()));
    if (n_problems != 0 && problems.size() != n_problems)
      return fail(
          "{}: expected {} problems, as many as the languages before it have, got {}: line n must "
          "be the same problem in every file",
          file.string(), n_problems, problems.size());
    n_problems = problems.size();
    for (std::size_t i = 0; i < problems.size(); ++i) {
      Case c;
      c.cluster = fmt::format("mgsm-{:03}", i + 1);
      c.id = c.cluster + "-" + language;
      c.language = language;
      c.kind = "word";
      for (const auto& [limit, profile] : limits)
        if (static_cast<long>(i) < limit) {
          c.profile = profile;
          break;
        }
      if (static_cast<long>(i) >= limits.back().first) continue;
      std::string content = prompt;
      content.replace(place, kPlace.size(), problems[i].first);
      c.messages = OrderedJson::array({{{"role", "user"}, {"content", content}}});
      c.answer = problems[i].second;
      out.cases.push_back(std::move(c));
    }
  }
  out.hash = hasher.hex();
  return out;
}

}  // namespace assay::harness
