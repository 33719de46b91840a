// What the harness's tests share: a small suite, and a target that answers by rule.
#pragma once

#include <unistd.h>

#include <atomic>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "harness/plan.h"
#include "harness/sample.h"
#include "harness/target.h"

namespace assay::harness {

inline const char* const kSuiteJson =
    R"({"format": 1, "name": "sums", "version": 3, "title": "Sums",
 "description": "For tests.", "languages": ["ja", "en", "zh"], "cases": "cases.csv", "scoring": "number",
 "arms": [{"name": "thinking", "enable_thinking": true, "max_tokens": 768, "max_thinking_tokens": 640},
          {"name": "direct", "enable_thinking": false, "max_tokens": 128}],
 "sampling": {"temperature": 0},
 "gates": [{"name": "thinking accuracy", "metric": "accuracy", "where": {"arm": "thinking"}, "min": 0.75},
           {"name": "thinking ends", "metric": "closed", "where": {"arm": "thinking"}, "min": 1.0}],
 "profiles": ["quick", "full"]})";

inline const char* const kCasesCsv =
    "id,cluster,language,kind,profile,prompt,messages,answer,steps,note\n"
    "ja-1,c1,ja,add,quick,2たす3は？,,5,1,\n"
    "en-1,c1,en,add,quick,What is 2 + 3?,,5,1,\n"
    "zh-1,c1,zh,add,quick,2加3等于多少？,,5,1,\n"
    "ja-2,c2,ja,mul,quick,127×8は？,,1016,1,\n"
    "en-2,c2,en,mul,quick,What is 127 × 8?,,1016,1,\n"
    "zh-2,c2,zh,mul,full,127乘以8等于多少？,,1016,1,\n"
    "en-3,c3,en,mul,full,,\"[{\"\"role\"\": \"\"system\"\", \"\"content\"\": \"\"Be brief.\"\"}, "
    "{\"\"role\"\": "
    "\"\"user\"\", \"\"content\"\": \"\"6 × 7?\"\"}]\",42,1,\n";

inline Plan small_plan(Profile profile = Profile::kFull, PlanOptions options = {}) {
  auto suite = parse_suite(kSuiteJson, "suite.json", kCasesCsv, "cases.csv");
  if (!suite) throw std::runtime_error(suite.error().message);
  options.profile = profile;
  auto plan = make_plan({*std::move(suite)}, options);
  if (!plan) throw std::runtime_error(plan.error().message);
  return *std::move(plan);
}

// A folder that goes away with the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "assay-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// A token is a byte; three more ids stand for the tags and the stop token.
class FakeTarget : public Target {
 public:
  static constexpr int kOpen = 256, kClose = 257, kStop = 258;
  using Answer = std::function<Result<Reply>(const std::string& prompt, const Request& request)>;

  explicit FakeTarget(Answer answer, unsigned order_seed = 0)
      : answer_(std::move(answer)), order_seed_(order_seed) {
    roles_.think_open = kOpen;
    roles_.think_close = kClose;
    roles_.stop = {kStop};
  }

  static std::vector<int> bytes(std::string_view text) {
    std::vector<int> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  static std::vector<int> thought(std::string_view thinking, std::string_view answer) {
    std::vector<int> ids = bytes(thinking);
    ids.push_back(kClose);
    for (const int id : bytes(answer)) ids.push_back(id);
    ids.push_back(kStop);
    return ids;
  }

  Json describe() const override { return {{"kind", "fake"}, {"backend", "fake"}}; }
  Json identity() const override { return {{"model", model}}; }
  int max_positions() const override { return context; }
  const TokenRoles& roles() const override { return roles_; }
  Result<Prompt> render(const OrderedJson& messages, bool enable_thinking) const override {
    Prompt prompt;
    for (const auto& m : messages) prompt.text += m["content"].get<std::string>();
    prompt.ids = bytes(prompt.text);
    prompt.ids.push_back(kOpen);
    if (!enable_thinking) prompt.ids.push_back(kClose);
    return prompt;
  }
  Result<std::vector<int>> encode(std::string_view text) const override { return bytes(text); }
  std::string decode(std::span<const int> ids) const override {
    std::string text;
    for (const int id : ids)
      if (id < 256) text += static_cast<char>(id);
    return text;
  }
  // Answers in an order of its own, and stops after `stop_after` replies.
  Result<void> complete(std::span<const Request> requests, const OnDone& on_done,
                        const std::function<void()>& on_token, std::stop_token stop) override {
    if (!out_of_order.empty()) return fail("{}", out_of_order);
    std::vector<std::size_t> order(requests.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::mt19937 random(order_seed_);
    if (order_seed_ != 0) std::shuffle(order.begin(), order.end(), random);
    for (const std::size_t i : order) {
      if (stop.stop_requested() || n_asked == stop_after) return {};
      ++n_asked;
      on_token();
      std::string prompt;
      for (const int id : requests[i].prompt)
        if (id < 256) prompt += static_cast<char>(id);
      on_done(i, answer_(prompt, requests[i]));
    }
    return {};
  }

  std::string model = "m1", out_of_order;  // out_of_order: why it can answer nothing
  int context = 4096, n_asked = 0, stop_after = -1;

 private:
  Answer answer_;
  unsigned order_seed_;
  TokenRoles roles_;
};

// Right on everything but 6 × 7; thinks where it is asked to.
inline Result<Reply> good_answer(const std::string& prompt, const Request& request) {
  const std::string value = prompt.find('7') == std::string::npos     ? "5"
                            : prompt.find("127") != std::string::npos ? "1016"
                                                                      : "43";
  Reply reply;
  reply.ids = request.prompt.back() == FakeTarget::kOpen
                  ? FakeTarget::thought("let me see", "It is " + value + ".")
                  : FakeTarget::bytes(value);
  if (reply.ids.back() != FakeTarget::kStop) reply.ids.push_back(FakeTarget::kStop);
  reply.finish = "stop";
  reply.decode_s = 0.5;
  return reply;
}

// A sample as the scorer would leave it, for the tests of what comes after.
inline Sample made_sample(std::string id, std::string cluster, std::string language,
                          Correctness correctness, std::string arm = "thinking") {
  Sample s;
  s.suite = "sums";
  s.arm = std::move(arm);
  s.id = std::move(id);
  s.cluster = std::move(cluster);
  s.language = std::move(language);
  s.kind = "add";
  s.finish = "stop";
  s.outcome.correctness = correctness;
  return s;
}

}  // namespace assay::harness
