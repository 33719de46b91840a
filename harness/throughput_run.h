// Clocks an engine. What is fed is the same for every build of one tokenizer, whatever it would
// say itself, so that each routes its experts alike; choosing a token (sampling) is not in it.
#pragma once

#include <functional>
#include <optional>
#include <stop_token>

#include "base/result.h"
#include "engine/engine.h"
#include "harness/throughput.h"

namespace assay::harness {

struct ThroughputHooks {
  std::function<void(int n_done, int n_total)> on_progress;  // repetitions of all rows
  std::stop_token stop;                                      // asked for between steps
};

// Every row of the settings, not yet clocked, those that cannot be with the reason. The contexts of
// all depths are in the caches together; where these do not hold them all, the deepest are left
// out.
ThroughputResult rows_to_clock(const ThroughputSettings& settings, int n_positions,
                               const engine::CacheRoom& room);

// With all threads on one engine that shares `engine`'s weights (n_threads 0: every usable core).
// Repetition 1 of every row comes before repetition 2 of any, and every other round goes
// backwards, so that a machine that warms up or fills up favours no row. A row that the model
// cannot hold has a reason and no repetition. None: stopped.
Result<std::optional<ThroughputResult>> run_throughput(const engine::Engine& engine,
                                                       const ThroughputSettings& settings,
                                                       int n_threads,
                                                       const ThroughputHooks& hooks = {});

// Two engines, each repetition of the one beside the same of the other: A B, then B A, and so on,
// so that a machine that warms up or slows down touches both alike. For comparisons
// (harness/compare_speed.h).
struct ThroughputPair {
  ThroughputResult base, candidate;
};
Result<std::optional<ThroughputPair>> run_throughput_in_turns(const engine::Engine& base,
                                                              const engine::Engine& candidate,
                                                              const ThroughputSettings& settings,
                                                              int n_threads,
                                                              const ThroughputHooks& hooks = {});

}  // namespace assay::harness
