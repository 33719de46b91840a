#include "harness/target.h"

namespace assay::harness {

Result<void> Target::score(std::span<const GivenReply> replies, const OnScored& on_done,
                           std::stop_token stop) {
  for (std::size_t i = 0; i < replies.size() && !stop.stop_requested(); ++i)
    on_done(i, fail("this target cannot say what it thinks of a given reply"));
  return {};
}

}  // namespace assay::harness
