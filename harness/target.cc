#include "harness/target.h"

#include <utility>

namespace assay::harness {

Result<void> Target::score(std::span<const GivenReply> replies, const OnScored& on_done,
                           std::stop_token stop) {
  const std::stop_token asked = std::move(stop);
  for (std::size_t i = 0; i < replies.size() && !asked.stop_requested(); ++i)
    on_done(i, fail("this target cannot say what it thinks of a given reply"));
  return {};
}

}  // namespace assay::harness
