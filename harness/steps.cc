#include "harness/steps.h"

#include <zlib.h>

#include <array>
#include <bit>
#include <cstring>

#include "base/check.h"

namespace assay::harness {
namespace {

static_assert(std::endian::native == std::endian::little, "the file is little-endian");

// Magic, bytes of the key, number of steps, bytes of the zlib stream; then key and stream. The
// stream holds planes of 32 bits: logprob, p_think_close, p_eos; of "STP2" also the ids of the kTop
// most likely tokens, rank by rank, and their logprobs.
constexpr std::uint32_t kMagic = 0x32505453, kMagicWithoutTop = 0x31505453;
using Head = std::array<std::uint32_t, 4>;
constexpr std::size_t kFigures = 3, kPlanes = kFigures + 2 * StepFigures::kTop;
constexpr std::uint32_t kMostSteps = 1U << 24, kMostKey = 1U << 16;

constexpr float StepFigures::*kFigureOf[kFigures] = {
    &StepFigures::logprob, &StepFigures::p_think_close, &StepFigures::p_eos};

}  // namespace

std::string encode_steps(std::string_view key, std::span<const StepFigures> steps) {
  std::vector<std::uint32_t> planes;
  planes.reserve(kPlanes * steps.size());
  for (const auto figure : kFigureOf)
    for (const StepFigures& step : steps)
      planes.push_back(std::bit_cast<std::uint32_t>(step.*figure));
  for (std::size_t k = 0; k < StepFigures::kTop; ++k)
    for (const StepFigures& step : steps)
      planes.push_back(static_cast<std::uint32_t>(step.top[k].id));
  for (std::size_t k = 0; k < StepFigures::kTop; ++k)
    for (const StepFigures& step : steps)
      planes.push_back(std::bit_cast<std::uint32_t>(step.top[k].logprob));
  const uLong n_plain = planes.size() * sizeof planes[0];
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
    if ((magic != kMagic && magic != kMagicWithoutTop) || n_key > kMostKey || n_steps > kMostSteps)
      return fail("{}: expected a frame of steps at byte {}, found something else", source,
                  out.n_bytes);
    const std::size_t n_frame = sizeof head + n_key + n_packed;
    if (bytes.size() - out.n_bytes < n_frame) break;
    const std::string_view frame = bytes.substr(out.n_bytes, n_frame);
    const std::size_t n_planes = magic == kMagic ? kPlanes : kFigures;
    std::vector<std::uint32_t> planes(n_planes * n_steps);
    uLongf n_plain = planes.size() * sizeof planes[0];
    const std::string_view packed = frame.substr(sizeof head + n_key);
    const int status = uncompress(reinterpret_cast<Bytef*>(planes.data()), &n_plain,
                                  reinterpret_cast<const Bytef*>(packed.data()),
                                  static_cast<uLong>(packed.size()));
    if (status != Z_OK || n_plain != planes.size() * sizeof planes[0])
      return fail("{}: the frame at byte {} does not unpack to {} steps", source, out.n_bytes,
                  n_steps);
    std::vector<StepFigures>& steps = out.by_key[std::string(frame.substr(sizeof head, n_key))];
    steps.resize(n_steps);
    const auto at = [&, n_steps = n_steps](std::size_t plane, std::size_t i) {
      return planes[plane * n_steps + i];
    };
    for (std::size_t i = 0; i < n_steps; ++i) {
      for (std::size_t f = 0; f < kFigures; ++f)
        steps[i].*kFigureOf[f] = std::bit_cast<float>(at(f, i));
      if (n_planes == kFigures) continue;
      for (std::size_t k = 0; k < StepFigures::kTop; ++k)
        steps[i].top[k] = {static_cast<int>(at(kFigures + k, i)),
                           std::bit_cast<float>(at(kFigures + StepFigures::kTop + k, i))};
    }
    out.n_bytes += n_frame;
  }
  return out;
}

}  // namespace assay::harness
