// steps.bin beside samples.jsonl: the most likely tokens at every token of a reply, and what the
// model thought of </think> and of stopping there. Bulk, so binary and compressed
// (docs/formats/run-record.md).
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "harness/target.h"

namespace assay::harness {

// One frame: the figures of one sample.
std::string encode_steps(std::string_view key, std::span<const StepFigures> steps);

struct StepFrames {
  std::map<std::string, std::vector<StepFigures>, std::less<>> by_key;  // the last of a key counts
  std::size_t n_bytes = 0;  // of whole frames; what follows is torn
};
// A frame that cannot be what was written is an error; one that is cut short ends the reading.
Result<StepFrames> decode_steps(std::string_view bytes, std::string_view source);

}  // namespace assay::harness
