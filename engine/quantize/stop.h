// Whether to go on, asked between matrices and between steps of texts: what is in memory then is
// given up, what is on disk is whole.
#pragma once

#include <functional>
#include <utility>

#include "base/result.h"

namespace assay::engine {

class Stop {
 public:
  explicit Stop(std::function<bool()> is_asked) : is_asked_(std::move(is_asked)) {}

  // An error once a stop is asked for, which ends the work like any other …
  Result<void> check() {
    if (is_asked_ && is_asked_()) is_stopped_ = true;
    if (is_stopped_) return fail("interrupted");
    return {};
  }
  bool is_stopped() const { return is_stopped_; }  // … and this tells it from others

 private:
  std::function<bool()> is_asked_;
  bool is_stopped_ = false;
};

}  // namespace assay::engine
