#include "harness/steps.h"

#include <zlib.h>

#include <array>
#include <bit>
#include <cstring>

#include "base/check.h"

namespace assay::harness {
namespace {

static_assert(std::endian::native == std::endian::little, "the file is little-endian");

// "STP1", bytes of the key, number of steps, bytes of the zlib stream; then key and stream. The
// stream holds three planes of float32: logprob, p_think_close, p_eos.
constexpr std::uint32_t kMagic = 0x31505453;
using Head = std::array<std::uint32_t, 4>;
constexpr std::size_t kPlanes = 3;
constexpr std::uint32_t kMostSteps = 1U << 24, kMostKey = 1U << 16;

}  // namespace

std::string encode_steps(std::string_view key, std::span<const StepFigures> steps) {
  std::vector<float> planes(kPlanes * steps.size());
  for (std::size_t i = 0; i < steps.size(); ++i) {
    planes[i] = steps[i].logprob;
    planes[steps.size() + i] = steps[i].p_think_close;
    planes[2 * steps.size() + i] = steps[i].p_eos;
  }
  const uLong n_plain = planes.size() * sizeof(float);
  uLongf n_packed = compressBound(n_plain);
  std::string packed(n_packed, '\0');
  const int status = compress2(reinterpret_cast<Bytef*>(packed.data()), &n_packed,
                               reinterpret_cast<const Bytef*>(planes.data()), n_plain, 6);
  CHECK(status == Z_OK) << status;
  packed.resize(n_packed);
  const Head head = {kMagic, static_cast<std::uint32_t>(key.size()),
                     static_cast<std::uint32_t>(steps.size()),
                     static_cast<std::uint32_t>(packed.size())};
  std::string out(reinterpret_cast<const char*>(head.data()), sizeof head);
  return out.append(key).append(packed);
}

Result<StepFrames> decode_steps(std::string_view bytes, std::string_view source) {
  StepFrames out;
  while (bytes.size() - out.n_bytes >= sizeof(Head)) {
    Head head;
    std::memcpy(head.data(), bytes.data() + out.n_bytes, sizeof head);
    const auto [magic, n_key, n_steps, n_packed] = head;
    if (magic != kMagic || n_key > kMostKey || n_steps > kMostSteps)
      return fail("{}: expected a frame of steps at byte {}, found something else", source,
                  out.n_bytes);
    const std::size_t n_frame = sizeof head + n_key + n_packed;
    if (bytes.size() - out.n_bytes < n_frame) break;
    const std::string_view frame = bytes.substr(out.n_bytes, n_frame);
    std::vector<float> planes(kPlanes * n_steps);
    uLongf n_plain = planes.size() * sizeof(float);
    const std::string_view packed = frame.substr(sizeof head + n_key);
    const int status = uncompress(reinterpret_cast<Bytef*>(planes.data()), &n_plain,
                                  reinterpret_cast<const Bytef*>(packed.data()),
                                  static_cast<uLong>(packed.size()));
    if (status != Z_OK || n_plain != planes.size() * sizeof(float))
      return fail("{}: the frame at byte {} does not unpack to {} steps", source, out.n_bytes,
                  n_steps);
    std::vector<StepFigures>& steps = out.by_key[std::string(frame.substr(sizeof head, n_key))];
    steps.resize(n_steps);
    for (std::size_t i = 0; i < n_steps; ++i)
      steps[i] = {planes[i], planes[n_steps + i], planes[2 * std::size_t{n_steps} + i]};
    out.n_bytes += n_frame;
  }
  return out;
}

}  // namespace assay::harness
