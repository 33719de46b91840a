// Width of each activation of backend.h, in values.
#pragma once

#include "engine/backend/backend.h"

namespace assay::engine {

inline constexpr int kNumActs = 8;

inline int act_width(Act act, const ModelConfig& c) {
  switch (act) {
    case Act::kQueryLora:
    case Act::kQueryResid:
      return c.q_lora;
    case Act::kQuery:
      return c.n_heads * c.qk_head();
    case Act::kKvLora:
      return c.kv_row();
    case Act::kAttention:
      return c.n_heads * c.v_head;
    case Act::kResidual:
    case Act::kNormed:
    case Act::kFinal:
      break;
  }
  return c.hidden;
}

}  // namespace assay::engine
