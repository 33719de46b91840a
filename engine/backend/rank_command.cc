#include "engine/backend/rank_command.h"

#include <algorithm>

#include "base/check.h"

namespace assay::engine {

void FromBytes::take(std::span<std::byte> out) {
  CHECK(out.size() <= left_.size()) << out.size() << " bytes of " << left_.size();
  std::copy_n(left_.begin(), out.size(), out.begin());
  left_ = left_.subspan(out.size());
}

template <class T>
T from_bytes(std::span<const std::byte> bytes) {
  T value;
  FromBytes in(bytes);
  value.visit(in);
  CHECK(in.all_taken()) << bytes.size();
  return value;
}
template Command from_bytes<Command>(std::span<const std::byte>);
template Reply from_bytes<Reply>(std::span<const std::byte>);

}  // namespace assay::engine
