#include "harness/score.h"

#include <algorithm>

namespace assay::harness {
namespace {

bool is_blank(std::string_view text) {
  // U+3000, the ideographic space, is blank too.
  for (std::size_t i = 0; i < text.size();) {
    if (std::string_view(" \t\r\n\f\v").find(text[i]) != std::string_view::npos) {
      ++i;
    } else if (text.substr(i, 3) == "\xE3\x80\x80") {
      i += 3;
    } else {
      return false;
    }
  }
  return true;
}

bool thinks_after(std::span<const int> prompt, const TokenRoles& roles) {
  for (auto id = prompt.rbegin(); id != prompt.rend(); ++id) {
    if (roles.think_close && *id == *roles.think_close) return false;
    if (roles.think_open && *id == *roles.think_open) return true;
  }
  return false;
}

bool is_tag(int id, const TokenRoles& roles) {
  return (roles.think_open && id == *roles.think_open) ||
         (roles.think_close && id == *roles.think_close);
}

Termination terminated(const Split& split, std::string_view answer, std::string_view finish) {
  const bool stopped = finish == "stop";
  if (!split.closed) return stopped ? Termination::kEosInThink : Termination::kNoClose;
  if (!stopped) return Termination::kTruncatedAnswer;
  return is_blank(answer) ? Termination::kClosedEmpty : Termination::kClosed;
}

}  // namespace

Split split_reply(std::span<const int> prompt, std::span<const int> reply,
                  const TokenRoles& roles) {
  if (!reply.empty() &&
      std::find(roles.stop.begin(), roles.stop.end(), reply.back()) != roles.stop.end())
    reply = reply.first(reply.size() - 1);
  Split split;
  if (!thinks_after(prompt, roles)) {
    split.answer = reply;
    split.closed = true;
  } else {
    const auto close = std::find_if(reply.begin(), reply.end(), [&](int id) {
      return roles.think_close && id == *roles.think_close;
    });
    split.closed = close != reply.end();
    const auto n = static_cast<std::size_t>(close - reply.begin());
    split.thinking = reply.first(n);
    if (split.closed) split.answer = reply.subspan(n + 1);
  }
  split.n_stray_tags = static_cast<int>(std::count_if(split.answer.begin(), split.answer.end(),
                                                      [&](int id) { return is_tag(id, roles); }));
  return split;
}

Scored score_reply(std::span<const int> prompt, const Reply& reply, const TokenRoles& roles,
                   const Decode& decode, std::string_view expected, std::string_view language) {
  const Split split = split_reply(prompt, reply.ids, roles);
  Scored scored;
  scored.thinking = decode(split.thinking);
  scored.answer = decode(split.answer);
  scored.n_thinking_tokens = static_cast<int>(split.thinking.size());
  scored.n_stray_tags = split.n_stray_tags;

  Outcome& outcome = scored.outcome;
  if (reply.finish == "non_finite") {  // nothing after a NaN means anything
    outcome.termination = Termination::kError;
    return scored;
  }
  outcome.termination = terminated(split, scored.answer, reply.finish);
  std::span<const int> body = reply.ids;
  if (reply.finish == "stop" && !body.empty()) body = body.first(body.size() - 1);
  if (const auto loop = find_suffix_loop(body)) {
    outcome.degeneration =
        loop->period == 1 ? Degeneration::kDegenerateToken : Degeneration::kLoopExact;
    outcome.loop_start = loop->start;
    outcome.loop_period = loop->period;
  }
  if (outcome.termination != Termination::kClosed) return scored;
  scored.extraction = extract_number(scored.answer, language);
  outcome.correctness = !scored.extraction                      ? Correctness::kUnextractable
                        : answers(*scored.extraction, expected) ? Correctness::kCorrect
                                                                : Correctness::kWrong;
  return scored;
}

}  // namespace assay::harness
