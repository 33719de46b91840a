#include "engine/score.h"

#include <algorithm>
#include <numeric>

#include "base/plural.h"
#include "engine/engine.h"

namespace assay::engine {
namespace {

std::vector<std::pair<int, float>> largest(std::span<const float> logits, int n) {
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto count = static_cast<std::ptrdiff_t>(
      std::min(logits.size(), static_cast<std::size_t>(std::max(n, 0))));
  std::partial_sort(order.begin(), order.begin() + count, order.end(), [&](int a, int b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  std::vector<std::pair<int, float>> top;
  for (std::ptrdiff_t i = 0; i < count; ++i) top.emplace_back(order[i], logits[order[i]]);
  return top;
}

}  // namespace

Result<std::vector<PositionScore>> score(Engine& engine, std::span<const int> ids,
                                         std::span<const int> positions, int n_top) {
  const EngineInfo& info = engine.info();
  const int n = static_cast<int>(ids.size());
  if (n == 0) return fail("nothing to score: the text has no tokens");
  if (n > info.max_positions)
    return fail("the text has {}, the model has {}. Shorten the text.", counted(n, "token"),
                counted(info.max_positions, "position"));
  for (int i = 0; i < n; ++i)
    if (ids[i] < 0 || ids[i] >= info.vocab)
      return fail("token {} has id {}, expected 0 to {} (the model's vocabulary)", i, ids[i],
                  info.vocab - 1);
  for (std::size_t i = 0; i < positions.size(); ++i) {
    if (positions[i] < 0 || positions[i] >= n)
      return fail("position {} is outside the text, which has {} (0 to {})", positions[i],
                  counted(n, "token"), n - 1);
    if (i > 0 && positions[i] <= positions[i - 1])
      return fail("positions must ascend, got {} after {}", positions[i], positions[i - 1]);
  }

  Sequence sequence = engine.new_sequence(n);
  sequence.keep_all_logits(true);
  sequence.feed(ids);
  std::vector<PositionScore> scores;
  std::size_t wanted = 0;
  while (sequence.n_pending() > 0) {
    const int first = sequence.n_tokens();
    Sequence* batch[] = {&sequence};
    engine.step(batch);
    for (int p = first; p < sequence.n_tokens(); ++p) {
      if (!positions.empty()) {
        if (wanted == positions.size() || positions[wanted] != p) continue;
        ++wanted;
      }
      const auto row =
          sequence.logits().subspan(static_cast<std::size_t>(p - first) * info.vocab, info.vocab);
      PositionScore s{.position = p, .logsumexp = logsumexp(row), .top = largest(row, n_top)};
      if (p + 1 < n) {
        s.next_id = ids[p + 1];
        s.next_logprob = static_cast<float>(static_cast<double>(row[s.next_id]) - s.logsumexp);
      }
      scores.push_back(std::move(s));
    }
  }
  return scores;
}

}  // namespace assay::engine
