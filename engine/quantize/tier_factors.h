// The factors of one Hessian by which the tiers' sub-vectors are swept: a single one where columns
// are swept as they lie, else one for each width of sub-vectors, made when it is asked for.
#pragma once

#include <map>
#include <string>

#include "engine/quantize/hessian.h"
#include "engine/quantize/recipe.h"

namespace assay::engine {

class TierFactors {
 public:
  // `h` is pointed at; errors name the matrix `name`. Without error feedback (`compensate`) no
  // order matters, and none is made.
  TierFactors(const Hessian& h, const Recipe& recipe, bool compensate, std::string name, Stop* stop)
      : h_(h),
        recipe_(recipe),
        is_ordered_(compensate && recipe.activation_order != 0),
        name_(std::move(name)),
        stop_(stop) {}

  Result<const HessianFactor*> of(int dim) {
    const int key = is_ordered_ ? dim : 0;
    if (const auto it = factors_.find(key); it != factors_.end()) return &it->second;
    ASSAY_TRY(HessianFactor made,
              factor(h_, recipe_.damping, name_, stop_,
                     is_ordered_ ? activation_order(h_, dim) : std::vector<int>()));
    return &(factors_[key] = std::move(made));
  }

 private:
  const Hessian& h_;
  const Recipe& recipe_;
  bool is_ordered_;
  std::string name_;
  Stop* stop_;
  std::map<int, HessianFactor> factors_;  // by width
};

}  // namespace assay::engine
