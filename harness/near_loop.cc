#include "harness/near_loop.h"

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/check.h"

namespace assay::harness {
namespace {

// Two different grams share a hash once in 2^64 / n² replies; a wrong copy would change nothing.
std::uint64_t hash_gram(std::span<const int> gram) {
  std::uint64_t hash = 0x9E3779B97F4A7C15;
  for (const int id : gram) {
    hash ^= static_cast<std::uint32_t>(id);
    hash *= 0xFF51AFD7ED558CCD;
    hash ^= hash >> 32;
  }
  return hash;
}

// Those that occur kNearCopies times among the last kNearWindow, in order.
std::vector<std::uint64_t> frequent(const std::vector<std::uint64_t>& grams) {
  const std::size_t n = std::min<std::size_t>(grams.size(), kNearWindow);
  std::vector<std::uint64_t> tail(grams.end() - static_cast<std::ptrdiff_t>(n), grams.end());
  std::sort(tail.begin(), tail.end());
  std::vector<std::uint64_t> found;
  for (std::size_t i = 0; i < tail.size();) {
    std::size_t end = i;
    while (end < tail.size() && tail[end] == tail[i]) ++end;
    if (end - i >= kNearCopies) found.push_back(tail[i]);
    i = end;
  }
  return found;
}

}  // namespace

double compression_ratio(std::string_view bytes) {
  if (bytes.empty()) return 0;
  constexpr std::size_t kDeflateWindow = 32768;
  if (bytes.size() > kDeflateWindow) bytes.remove_prefix(bytes.size() - kDeflateWindow);
  uLongf packed_bytes = compressBound(bytes.size());
  std::vector<Bytef> packed(packed_bytes);
  const int status = compress2(packed.data(), &packed_bytes,
                               reinterpret_cast<const Bytef*>(bytes.data()), bytes.size(), 6);
  CHECK(status == Z_OK) << "zlib: " << status;
  return static_cast<double>(bytes.size()) / static_cast<double>(packed_bytes);
}

std::optional<TailRepetition> measure_tail(std::span<const int> ids, const DecodeIds& decode) {
  if (ids.size() < kMinNearLoopTokens + kNearGram) return std::nullopt;
  std::vector<std::uint64_t> grams(ids.size() - kNearGram + 1);
  for (std::size_t i = 0; i < grams.size(); ++i) grams[i] = hash_gram(ids.subspan(i, kNearGram));
  const std::vector<std::uint64_t> often = frequent(grams);

  // The change point: the suffix with the largest sum of (repeated − threshold), as in CUSUM. What
  // lies before it lowers the share below the threshold wherever one begins.
  double sum = 0, best = 0;
  int n_repeated = 0, n_repeated_best = 0, n_repeated_last = 0;
  std::size_t start = grams.size();
  for (std::size_t i = grams.size(); i-- > 0;) {
    const bool repeated = std::binary_search(often.begin(), often.end(), grams[i]);
    n_repeated += repeated ? 1 : 0;
    if (grams.size() - i == kMinNearLoopTokens) n_repeated_last = n_repeated;
    sum += (repeated ? 1.0 : 0.0) - kRepeatedShareChange;
    if (sum > best) {
      best = sum;
      start = i;
      n_repeated_best = n_repeated;
    }
  }
  if (ids.size() - start < kMinNearLoopTokens) return std::nullopt;
  if (n_repeated_last < kRepeatedShareChange * kMinNearLoopTokens) return std::nullopt;

  TailRepetition tail;
  tail.start = static_cast<int>(start);
  tail.repeated_share =
      static_cast<double>(n_repeated_best) / static_cast<double>(grams.size() - start);
  const std::string text = decode(ids.subspan(start));
  tail.compression_ratio = compression_ratio(text);
  tail.language = detect_language(text).language;
  return tail;
}

NearLoopThresholds near_loop_thresholds(Language language) {
  switch (language) {
    case Language::kEnglish:
      return {0.4, 3.9};
    case Language::kJapanese:
      return {0.4, 4.0};
    case Language::kChinese:
      return {0.4, 3.3};
    default:
      return {0.6, 5.4};
  }
}

std::optional<TailRepetition> find_near_loop(std::span<const int> ids, const DecodeIds& decode) {
  auto tail = measure_tail(ids, decode);
  if (!tail) return std::nullopt;
  const NearLoopThresholds at_least = near_loop_thresholds(tail->language);
  if (tail->repeated_share < at_least.repeated_share ||
      tail->compression_ratio < at_least.compression_ratio)
    return std::nullopt;
  return tail;
}

}  // namespace assay::harness
