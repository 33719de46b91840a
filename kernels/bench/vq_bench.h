// What main.cc prints after the vq benchmarks.
#pragma once

#include <map>
#include <string>

namespace assay::kernels {

// weights_per_s by benchmark name.
void print_vq_ratios(const std::map<std::string, double>& weights_per_s);

}  // namespace assay::kernels
