// Faults that a release could carry, by name and strength: what engine/plant.h puts into a copy of
// a model, so that tests can show that a harness finds them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace assay::engine {

struct ExpertRef {
  int layer, expert;
  bool operator==(const ExpertRef&) const = default;
};

struct Fault {
  enum class Kind {
    kExpertScale,    // scales (dense: weights) of the experts × factor, all three projections
    kExpertSwap,     // two experts of a layer exchanged
    kSharedDrop,     // the shared expert of a layer adds nothing: its down_proj is zero
    kRopeHalfSplit,  // rope_interleave false: pairs taken from the two halves of a head
    kIndexerRopeHalfSplit,  // likewise the indexer: seen only beyond index_topk tokens
    kChatTemplate,          // no <think> after the generation prompt; readers here refuse the file
    kChatTags,              // the ids of two added tokens exchanged in tokenizer.json
    kTierDim,     // a VQ tier's d halved, its index bits with it; codewords by flat position
    kCodesShift,  // every row's stream of VQ codes one bit too late
    kCodesFlip,   // the lowest bit of every VQ index inverted
    kLogitNan,    // NaN in one row of lm_head: load it with EngineOptions::check_finite off
  };
  Kind kind = Kind::kExpertScale;
  std::vector<ExpertRef> experts;  // kExpertScale: any number; kExpertSwap: two of one layer
  int layer = -1;                  // kSharedDrop; VQ codes: only this layer's, -1 all
  double factor = 1;               // kExpertScale
  double bits = 0;                 // kTierDim: code bits of the tier, such as 1.5
  int token = -1;                  // kLogitNan
  std::vector<std::string> tags;   // kChatTags: two, such as "<|user|>" and "<|assistant|>"
};

// "expert-scale:experts=3/5,factor=2"; names and keys are listed by the error for an unknown one.
Result<Fault> parse_fault(std::string_view written);
// As parse_fault reads it.
std::string name_of(const Fault& fault);
// Every kind with its keys, an example each.
std::string fault_examples();

}  // namespace assay::engine
