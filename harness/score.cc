#include "harness/score.h"

#include <algorithm>

#include "harness/hesitation.h"
#include "harness/language_check.h"
#include "harness/near_loop.h"
#include "harness/text_answer.h"

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

void find_loop(std::span<const int> body, const Decode& decode, Outcome& outcome) {
  if (const auto loop = find_suffix_loop(body)) {
    outcome.degeneration =
        loop->period == 1 ? Degeneration::kDegenerateToken : Degeneration::kLoopExact;
    outcome.loop_start = loop->start;
    outcome.loop_period = loop->period;
  } else if (const auto near = find_near_loop(body, decode)) {
    outcome.degeneration = Degeneration::kLoopNear;
    outcome.loop_start = near->start;
  }
}

// Chinese says in which script; where characters of both or of neither stand, it is simplified.
std::string language_of(std::string_view text) {
  const LanguageGuess guess = detect_language(text);
  if (guess.language == Language::kNone) return "";
  const bool traditional =
      guess.language == Language::kChinese && guess.n_traditional > guess.n_simplified;
  return std::string(name_of(guess.language)) + (traditional ? "-Hant" : "");
}

// A Chinese answer in the other script than its question. Only where both show theirs, and where
// the question does not speak of scripts itself.
bool other_script(const Question& question, std::string_view answer) {
  for (const char* word : {"繁", "簡", "简", "raditional", "implified"})
    if (question.text.find(word) != std::string::npos) return false;
  if (question.language != "zh") return false;
  const auto lean = [](std::string_view text) {  // > 0: traditional
    const LanguageGuess guess = detect_language(text);
    return guess.n_traditional - guess.n_simplified;
  };
  const int asked = lean(question.text), got = lean(answer);
  return (asked > 0 && got < 0) || (asked < 0 && got > 0);
}

// Whether the answer is in the question's language and script, and the thinking in the one asked
// for. What cannot be told (numbers, a formula, a name) is not wrong.
void check_language(const Question& question, Scored& scored) {
  scored.thinking_language = language_of(scored.thinking);
  scored.answer_language = language_of(scored.answer);
  const auto compare = [&](const std::string& is, const std::string& asked) {
    if (is.empty() || asked.empty()) return;
    scored.language_right = scored.language_right.value_or(true) && is.substr(0, 2) == asked;
  };
  compare(scored.answer_language, question.language);
  compare(scored.thinking_language, question.reasoning_language);
  const bool drifts =
      find_drift(scored.answer, parse_language(question.language).value_or(Language::kNone))
          .has_value();
  if (drifts || other_script(question, scored.answer)) scored.language_right = false;
  if (drifts && scored.outcome.degeneration == Degeneration::kNone)
    scored.outcome.degeneration = Degeneration::kLanguageDrift;
}

struct Judged {
  Correctness correctness = Correctness::kNotJudged;
  std::optional<Extraction> extraction;
};

Judged judge_needles(const Question& question, std::string_view answer) {
  const NeedleJudgement judged = judge_needle(answer, question.truth, *question.tables);
  Judged out{judged.correctness, {}};
  if (judged.spans.empty()) return out;
  const Span& span = judged.spans.front();
  std::string value;
  for (const Span& s : judged.spans)
    value += (value.empty() ? "" : ", ") + std::string(answer.substr(s.begin, s.end - s.begin));
  out.extraction = {value, judged.reason.empty() ? "needle" : judged.reason, span.begin, span.end};
  return out;
}

Judged judge(const Question& question, const Scored& scored) {
  switch (question.scoring) {
    case Scoring::kNumber: {
      const auto found = extract_number(scored.answer, question.language);
      return {!found                               ? Correctness::kUnextractable
              : answers(*found, question.expected) ? Correctness::kCorrect
                                                   : Correctness::kWrong,
              found};
    }
    case Scoring::kText: {
      const auto found = find_accepted(scored.answer, question.expected);
      return {found ? Correctness::kCorrect : Correctness::kWrong, found};
    }
    case Scoring::kNeedle:
      return judge_needles(question, scored.answer);
    case Scoring::kLanguage:
      return {!scored.language_right   ? Correctness::kUnextractable
              : *scored.language_right ? Correctness::kCorrect
                                       : Correctness::kWrong,
              {}};
    case Scoring::kNone:
      return {};
  }
  return {};
}

// The right answer stands in the thinking: reached there, but not put out.
bool reaches(const Question& question, const std::string& thinking) {
  switch (question.scoring) {
    case Scoring::kNumber:
      return mentions_number(thinking, question.language, question.expected);
    case Scoring::kText:
      return find_accepted(thinking, question.expected).has_value();
    case Scoring::kNeedle: {
      // Other values may stand there too: the thinking may look at every key.
      const std::vector<std::string>& wanted = question.truth.expected;
      return !wanted.empty() &&
             std::all_of(wanted.begin(), wanted.end(), [&](const std::string& value) {
               return find_accepted(thinking, value).has_value();
             });
    }
    default:
      return false;
  }
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
                   const Decode& decode, const Question& question) {
  const Split split = split_reply(prompt, reply.ids, roles);
  Scored scored;
  scored.thinking = decode(split.thinking);
  scored.answer = decode(split.answer);
  scored.n_thinking_tokens = static_cast<int>(split.thinking.size());
  scored.n_stray_tags = split.n_stray_tags;
  scored.n_hesitations = count_hesitations(scored.thinking).total();

  Outcome& outcome = scored.outcome;
  if (reply.finish == "non_finite") {  // nothing after a NaN means anything
    outcome.termination = Termination::kError;
    return scored;
  }
  outcome.termination = terminated(split, scored.answer, reply.finish);
  std::span<const int> body = reply.ids;
  if (reply.finish == "stop" && !body.empty()) body = body.first(body.size() - 1);
  find_loop(body, decode, outcome);
  check_language(question, scored);
  if (outcome.termination == Termination::kClosed) {
    const auto [correctness, extraction] = judge(question, scored);
    outcome.correctness = correctness;
    scored.extraction = extraction;
  }
  scored.reached =
      outcome.correctness != Correctness::kCorrect && reaches(question, scored.thinking);
  return scored;
}

}  // namespace assay::harness
