// The embedded engine as a target: one worker per core, each with its own share of the engine and
// up to kMaxBatch requests in flight, all pulling from one queue. The engine is deterministic, so
// which worker answers a case, and beside which others, is irrelevant to the answer.
#pragma once

#include <limits>

#include "engine/engine.h"
#include "harness/target.h"

namespace assay::harness {

class EngineTarget : public Target {
 public:
  static constexpr int kMaxBatch = 8;
  // Of a worker's requests in flight, their prompts' tokens together: no more are taken up beyond
  // it. Long prompts gain nothing from a batch, and their caches are what fills memory.
  static constexpr std::size_t kMaxPromptTokens = std::size_t{1} << 15;

  // n_workers 0: one per usable core.
  EngineTarget(engine::Engine engine, int n_workers);
  // At a time, of a target with so many workers, which has at most n_tasks requests or replies in
  // one call: EngineOptions::n_engines.
  static constexpr std::size_t kAnyNumber = std::numeric_limits<std::size_t>::max();
  static int n_engines(int n_workers, std::size_t n_tasks = kAnyNumber);

  Json describe() const override;
  Json identity() const override;
  int max_positions() const override { return engine_.info().max_positions; }
  const TokenRoles& roles() const override { return roles_; }
  Result<Prompt> render(const OrderedJson& messages, bool enable_thinking) const override;
  Result<std::vector<int>> encode(std::string_view text) const override;
  std::string decode(std::span<const int> ids) const override;
  Result<void> complete(std::span<const Request> requests, const OnDone& on_done,
                        const std::function<void()>& on_token, std::stop_token stop) override;
  Result<void> score(std::span<const GivenReply> replies, const OnScored& on_done,
                     std::stop_token stop) override;

  const engine::Engine& engine() const { return engine_; }  // for suites that measure

 private:
  Result<void> run_workers(std::size_t n_tasks,
                           const std::function<void(engine::Engine&)>& work) const;

  engine::Engine engine_;
  int n_workers_;
  TokenRoles roles_;
};

}  // namespace assay::harness
