// For tests of the embedded engine as a target: prompts long enough to be shared, and replies.
#pragma once

#include <string>
#include <vector>

#include "base/check.h"
#include "harness/engine_target.h"

namespace assay::harness {

// A question about a text of so many times three sentences; the topic stands before all else, so
// that prompts of one share their beginning, and those of two nothing.
inline std::vector<int> prompt_about(const EngineTarget& target, int topic, int n_sentences,
                                     const std::string& question) {
  std::string text = "Part " + std::to_string(topic) + ". ";
  for (int i = 0; i < n_sentences; ++i) text += "The sky is blue. The grass is green. Here we go. ";
  text += "The secret code for Kesslow is 38216.\nQuestion: " + question;
  const auto rendered =
      target.render(OrderedJson::array({{{"role", "user"}, {"content", text}}}), false);
  CHECK(rendered.has_value()) << rendered.error().message;
  return rendered->ids;
}

inline std::vector<Reply> answers(EngineTarget& target, const std::vector<Request>& requests) {
  std::vector<Reply> out(requests.size());
  const auto asked = target.complete(
      requests,
      [&](std::size_t i, Result<Reply> reply) {
        CHECK(reply.has_value()) << reply.error().message;
        out[i] = *std::move(reply);
      },
      [] {}, {});
  CHECK(asked.has_value()) << asked.error().message;
  return out;
}

}  // namespace assay::harness
