// Units (vq_units.h, vq_sums.h) made where the caller wants them, so that a layer's experts need
// not each take memory of their own.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/vq_units.h"

namespace assay::kernels {

// As pack_units; out: unit_bytes, whatever is in it.
void pack_units_into(const VqMatrix& w, const UnitForm& form, ThreadPool& pool,
                     std::span<std::byte> out);
void pack_sums_into(const VqMatrix& w, ThreadPool& pool, std::span<std::byte> out);

}  // namespace assay::kernels
