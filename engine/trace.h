// Where do two computations of the same text part? Every named intermediate of the forward pass,
// side by side.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace assay::engine {

class Engine;

// One named intermediate over a whole text: (n_rows, width) with the position of each row.
struct TracedTensor {
  std::string name;
  int width = 0;
  std::vector<int> positions;
  std::vector<float> values;
};

// A choice (of experts, or of keys) of one layer at one position.
struct TracedChoice {
  std::string name;  // "layer3.experts", "layer2.keys"
  int position = 0;
  std::vector<int> chosen;  // ascending
  float margin = 0;         // score of the last chosen minus that of the first left out
};

struct Trace {
  std::vector<TracedTensor> tensors;  // in order of computation
  std::vector<TracedChoice> choices;
};

Result<Trace> record_trace(Engine& engine, std::span<const int> ids);

struct TensorDifference {
  std::string name;
  int n_rows = 0;
  double max_abs = 0, rms = 0;     // largest |a - b|; root mean square of b over the compared rows
  int position = 0, column = 0;    // where the largest is …
  float value_a = 0, value_b = 0;  // … and the two values there
  bool diverged = false;
};

struct TraceComparison {
  std::vector<TensorDifference> tensors;
  int first_diverging = -1;        // index into tensors, -1: none
  std::vector<std::string> forks;  // choices that differ, in order, with their margins
};

// A tensor diverges where max |a - b| exceeds tolerance × (1 + rms of b), or where one of the two
// is not finite. Only rows that both have are compared (an oracle holds a few positions).
TraceComparison compare_traces(const Trace& a, const Trace& b, double tolerance);

// Records of golden/micro-glm/oracle/hidden.json.gz: {"ids", "states": {name: {position:
// [values]}}}.
struct OracleTrace {
  std::string name;
  std::vector<int> ids;
  Trace trace;
};
Result<std::vector<OracleTrace>> load_oracle_traces(const std::string& path);

}  // namespace assay::engine
