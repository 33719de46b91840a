// Pages of a mapped file, many in one call instead of a fault each.
#pragma once

#include <cstddef>
#include <span>

namespace assay {

// Before these bytes are read. Advice: where it is not taken, reading faults them in.
void fault_in(std::span<const std::byte> bytes);

}  // namespace assay
