#include "kernels/vq_slices.h"

#include <algorithm>

#include "base/check.h"

namespace assay::kernels {
namespace {

constexpr int kLeastRows = 1024;

bool may_be_sliced(const VqMatrix& w) {
  return (w.dim == 4 || w.dim == 8) && (w.index_bits == 8 || w.index_bits == 12) &&
         w.n_books == 1 && w.n_rows > 0 && w.n_cols > 0 && w.n_cols % w.dim == 0 &&
         (w.group % kSliceScaleColumns == 0 || w.group >= w.n_cols) &&
         (w.index_bits == 8 || may_be_in_units(w));  // as codes of 4096 lie
}

// Of gate and up, or of down.
bool plan_launch(std::span<const VqMatrix> experts, bool down, UnitLaunch& l) {
  for (std::size_t i = 0; i < experts.size(); ++i) {
    if ((i % 3 == 2) != down) continue;
    const VqMatrix& w = experts[i];
    if (!may_be_sliced(w)) return false;
    const UnitLaunch::TableOf which = UnitLaunch::table_of(w.dim, w.index_bits);
    UnitLaunch::Table& t = l.table[which];
    if (t.copies > 0 && (t.codebook != w.codebook || t.n_codes != w.n_codes)) return false;
    t = {w.codebook, w.n_codes, slice_copies(which)};
  }
  l.scales = kSliceUnitScales;
  l.by_slices = true;
  return true;
}

}  // namespace

UnitPlan plan_slices(std::span<const VqMatrix> experts, int top_k, std::size_t shared_bytes) {
  CHECK(experts.size() % 3 == 0 && top_k > 0) << experts.size() << ", " << top_k;
  UnitPlan plan;
  if (experts.empty() || experts.size() > 3 * kMostSliceExperts ||
      shared_bytes < kSlicesSharedBytes)
    return {};
  if (!plan_launch(experts, false, plan.gate_up) || !plan_launch(experts, true, plan.down))
    return {};
  plan.top_k = top_k;
  return plan;
}

bool slices_pay(std::span<const VqMatrix> experts) {
  const auto all = [&](const auto& is) { return std::all_of(experts.begin(), experts.end(), is); };
  const auto table = [](const VqMatrix& w) { return UnitLaunch::table_of(w.dim, w.index_bits); };
  if (all([&](const VqMatrix& w) { return table(w) == UnitLaunch::k4x4096; })) return false;
  return all([&](const VqMatrix& w) {
    const int padded = n_slices(table(w), w.n_cols) * slice_columns(table(w));
    return w.n_rows >= kLeastRows && padded - w.n_cols <= w.n_cols / 8;
  });
}

}  // namespace assay::kernels
