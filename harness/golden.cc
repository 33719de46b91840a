#include "harness/golden.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "base/check.h"
#include "base/json_line.h"

namespace assay::harness {
namespace {

constexpr const char *kHeadFile = "golden.json", *kRepliesFile = "replies.jsonl.gz";
constexpr double kMarginUnit = 0.1, kTopUnit = 1e-6;

double rounded(double value, double unit) { return std::round(value / unit) * unit; }
int units_of(double value, double unit) { return static_cast<int>(std::lround(value / unit)); }

// As they come back from the file, so that a golden that was just made equals the one that is read.
GoldenReply reply_of(const Sample& s) {
  GoldenReply r;
  r.key = s.key();
  r.prompt_hash = s.prompt_hash;
  r.finish = s.finish;
  r.ids = s.ids;
  for (std::size_t i = 0; i < s.ids.size(); ++i) {
    const StepFigures& step = s.steps[i];
    const double margin = static_cast<double>(step.top[0].logprob) - step.top[1].logprob;
    // A forced token may have probability 0.
    const double logprob = std::max(static_cast<double>(step.logprob), -1000.0);
    r.logprobs.push_back(rounded(logprob, GoldenReply::kLogprobUnit));
    r.margins.push_back(rounded(std::min(margin, GoldenReply::kLargestMargin), kMarginUnit));
    if (margin >= GoldenReply::kSmallMargin && step.top[0].id == s.ids[i]) continue;
    auto& top = r.top[static_cast<int>(i)];
    for (std::size_t k = 0; k < top.size(); ++k)
      top[k] = {step.top[k].id, static_cast<float>(rounded(step.top[k].logprob, kTopUnit))};
  }
  return r;
}

Json to_json(const GoldenReply& r) {
  Json logprobs = Json::array(), margins = Json::array(), top = Json::array();
  for (const double v : r.logprobs) logprobs.push_back(units_of(v, GoldenReply::kLogprobUnit));
  for (const double v : r.margins) margins.push_back(units_of(v, kMarginUnit));
  for (const auto& [position, tokens] : r.top) {
    Json row = {position};
    for (const TopToken& t : tokens) {
      row.push_back(t.id);
      row.push_back(units_of(t.logprob, kTopUnit));
    }
    top.push_back(std::move(row));
  }
  return {
      {"key", r.key},         {"prompt_hash", r.prompt_hash},    {"finish", r.finish},
      {"ids", r.ids},         {"logprobs", std::move(logprobs)}, {"margins", std::move(margins)},
      {"top", std::move(top)}};
}

Result<GoldenReply> parse_reply(const Json& json, const std::string& where) {
  GoldenReply r;
  try {
    json.at("key").get_to(r.key);
    json.at("prompt_hash").get_to(r.prompt_hash);
    json.at("finish").get_to(r.finish);
    json.at("ids").get_to(r.ids);
    for (const Json& v : json.at("logprobs"))
      r.logprobs.push_back(
          rounded(v.get<int>() * GoldenReply::kLogprobUnit, GoldenReply::kLogprobUnit));
    for (const Json& v : json.at("margins"))
      r.margins.push_back(rounded(v.get<int>() * kMarginUnit, kMarginUnit));
    for (const Json& row : json.at("top")) {
      auto& top = r.top[row.at(0).get<int>()];
      for (std::size_t k = 0; k < top.size(); ++k)
        top[k] = {row.at(1 + 2 * k).get<int>(),
                  static_cast<float>(rounded(row.at(2 + 2 * k).get<int>() * kTopUnit, kTopUnit))};
    }
  } catch (const Json::exception& error) {
    return fail("{}: not a reply of a golden: {}", where, error.what());
  }
  if (r.logprobs.size() != r.ids.size() || r.margins.size() != r.ids.size())
    return fail("{}: {} ids, but {} logprobs and {} margins", where, r.ids.size(),
                r.logprobs.size(), r.margins.size());
  if (!r.top.empty() &&
      (r.top.begin()->first < 0 || r.top.rbegin()->first >= static_cast<int>(r.ids.size())))
    return fail("{}: \"top\" names position {}, the reply has {} tokens", where,
                r.top.begin()->first < 0 ? r.top.begin()->first : r.top.rbegin()->first,
                r.ids.size());
  return r;
}

Json head_of(const Golden& golden) {
  Json noise = Json::object();
  for (const auto& [backend, floor] : golden.noise)
    noise[backend] = {
        {"logprob", floor.logprob}, {"margin", floor.margin}, {"n_positions", floor.n_positions}};
  return {{"format", kGoldenFormat},
          {"identity", golden.identity},
          {"profile", golden.profile},
          {"suites", golden.suites},
          {"made", golden.made},
          {"noise_floor", noise},
          {"n_replies", golden.replies.size()},
          {"n_positions", golden.n_positions()}};
}

}  // namespace

int GoldenReply::top1_at(int position) const {
  const auto it = top.find(position);
  return it == top.end() ? ids[static_cast<std::size_t>(position)] : it->second[0].id;
}

double GoldenReply::margin_at(int position) const {
  const auto it = top.find(position);
  if (it == top.end()) return margins[static_cast<std::size_t>(position)];
  return static_cast<double>(it->second[0].logprob) - it->second[1].logprob;
}

double GoldenReply::margin_over(int position, int id) const {
  const auto it = top.find(position);
  if (it != top.end())
    for (const TopToken& t : it->second)
      if (t.id == id) return static_cast<double>(it->second[0].logprob) - t.logprob;
  return std::numeric_limits<double>::infinity();
}

long Golden::n_positions() const {
  long n = 0;
  for (const auto& [key, reply] : replies) n += static_cast<long>(reply.ids.size());
  return n;
}

Result<Golden> make_golden(const Json& run, std::span<const Sample> samples) {
  Golden golden;
  golden.identity = run.at("identity");
  golden.identity.erase("backend");
  golden.identity.erase("tensor_parallel");
  const Json& plan = run.at("plan");
  golden.profile = plan.at("profile").get<std::string>();
  std::set<std::string> asked;
  for (const Sample& s : samples) asked.insert(s.suite);
  golden.suites = Json::array();
  for (const Json& suite : plan.at("suites")) {
    if (!asked.contains(suite.at("name").get<std::string>())) continue;
    Json arms = Json::object();
    for (const Json& arm : suite.at("arms"))
      arms[arm.at("name").get<std::string>()] = arm.at("sampling");
    golden.suites.push_back(
        {{"name", suite.at("name")}, {"version", suite.at("version")}, {"arms", std::move(arms)}});
  }
  const Json& provenance = run.at("provenance");
  golden.made = {{"commit", provenance.value("commit", "")},
                 {"started", provenance.value("started", "")},
                 {"command", provenance.value("command", "")},
                 {"backend", run.at("identity").value("backend", "")},
                 {"kernel", provenance.value("target", Json::object()).value("kernel", "")}};
  for (const Sample& s : samples) {
    if (!s.ran() || s.ids.empty()) continue;
    const bool whole = s.steps.size() == s.ids.size() &&
                       std::all_of(s.steps.begin(), s.steps.end(),
                                   [](const StepFigures& f) { return f.top[1].id >= 0; });
    if (!whole)
      return fail(
          "{}: the record lacks the most likely tokens of its steps (steps.bin), so no golden can "
          "be made of it. Run it again with this assay.",
          s.key());
    GoldenReply reply = reply_of(s);
    golden.replies.emplace(reply.key, std::move(reply));
  }
  if (golden.replies.empty()) return fail("the run has no reply of which a golden could be made");
  return golden;
}

Result<Json> read_golden_head(const fs::path& folder) {
  const fs::path file = folder / kHeadFile;
  std::error_code ignored;
  if (!fs::exists(file, ignored))
    return fail("{} holds no golden: there is no {}", folder.string(), kHeadFile);
  ASSAY_TRY(Json head, read_json(file));
  const bool known = head.is_object() && head.contains("format") && head["format"] == kGoldenFormat;
  if (!known)
    return fail("{}: expected a golden of format {}, got {}. Make it anew with `assay accept`.",
                file.string(), kGoldenFormat,
                head.is_object() ? head.value("format", Json()).dump() : "no object");
  return head;
}

Result<Golden> read_golden(const fs::path& folder) {
  ASSAY_TRY(const Json head, read_golden_head(folder));
  Golden golden;
  golden.name = folder.filename().string();
  std::size_t n_replies = 0;
  try {
    golden.identity = head.at("identity");
    head.at("profile").get_to(golden.profile);
    golden.suites = head.at("suites");
    golden.made = head.at("made");
    for (const auto& [backend, floor] : head.at("noise_floor").items())
      golden.noise[backend] = {floor.at("logprob").get<double>(), floor.at("margin").get<double>(),
                               floor.at("n_positions").get<long>()};
    head.at("n_replies").get_to(n_replies);
  } catch (const Json::exception& error) {
    return fail("{}: not a golden of this format: {}", (folder / kHeadFile).string(), error.what());
  }
  const fs::path file = folder / kRepliesFile;
  ASSAY_TRY(const std::string text, read_text_file(file));
  int line = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string where = fmt::format("{}:{}", file.string(), ++line);
    ASSAY_TRY(const Json json,
              parse_json_line(std::string_view(text).substr(begin, end - begin), where));
    ASSAY_TRY(GoldenReply reply, parse_reply(json, where));
    const std::string key = reply.key;
    if (!golden.replies.emplace(key, std::move(reply)).second)
      return fail("{}: reply '{}' is there twice", where, key);
    begin = end + 1;
  }
  if (golden.replies.size() != n_replies)
    return fail("{}: {} replies, golden.json says {}. Restore both files from git.", file.string(),
                golden.replies.size(), n_replies);
  return golden;
}

Result<void> write_golden(const fs::path& folder, const Golden& golden) {
  std::string text;
  for (const auto& [key, reply] : golden.replies) text += to_json(reply).dump() + "\n";
  const std::string packed = gzip(text), head = head_of(golden).dump(1) + "\n";
  if (packed.size() + head.size() > kMaxGoldenBytes)
    return fail(
        "the golden would take {:.1f} MiB, a golden has at most {} MiB: accept a smaller run",
        static_cast<double>(packed.size() + head.size()) / 0x1p20, kMaxGoldenBytes >> 20);
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return fail("cannot create {}: {}", folder.string(), error.message());
  ASSAY_TRY_VOID(write_file_atomic(folder / kRepliesFile, packed));
  return write_file_atomic(folder / kHeadFile, head);
}

std::vector<GoldenDifference> difference_of(const Golden& was, const Golden& now) {
  using Kind = GoldenDifference::Kind;
  std::vector<GoldenDifference> out;
  for (const auto& [key, reply] : now.replies)
    if (!was.replies.contains(key)) out.push_back({.key = key, .kind = Kind::kNew});
  for (const auto& [key, before] : was.replies) {
    const auto found = now.replies.find(key);
    if (found == now.replies.end()) {
      out.push_back({.key = key, .kind = Kind::kGone});
      continue;
    }
    const GoldenReply& after = found->second;
    if (before == after) continue;
    GoldenDifference d{.key = key, .kind = Kind::kFigures};
    const auto parted =
        std::mismatch(before.ids.begin(), before.ids.end(), after.ids.begin(), after.ids.end());
    if (parted.first != before.ids.end() || parted.second != after.ids.end()) {
      d.kind = Kind::kChanged;
      d.position = static_cast<int>(parted.first - before.ids.begin());
      if (parted.first != before.ids.end()) {
        d.was = *parted.first;
        d.margin = before.margin_at(d.position);
      }
      if (parted.second != after.ids.end()) d.is = *parted.second;
    } else {
      for (std::size_t i = 0; i < before.ids.size(); ++i)
        if (const double change = std::abs(after.logprobs[i] - before.logprobs[i]);
            change > d.logprob_change) {
          d.logprob_change = change;
          d.position = static_cast<int>(i);
        }
    }
    out.push_back(std::move(d));
  }
  return out;
}

}  // namespace assay::harness
