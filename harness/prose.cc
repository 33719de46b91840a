#include "harness/prose.h"

#include <unicode/utf8.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>

namespace assay::harness {
namespace {

constexpr std::size_t kMaxSpan = 200;  // characters of a formula or quotation within a line

struct Pair {
  std::u32string_view open, close;
  bool many_lines;  // and without a close, to the end of the text
};
// The first that opens at a place wins, so fences stand before back-quotes.
constexpr std::array<Pair, 6> kNeutral = {{{U"```", U"```", true},
                                           {U"$$", U"$$", true},
                                           {U"\\[", U"\\]", true},
                                           {U"\\(", U"\\)", false},
                                           {U"`", U"`", false},
                                           {U"$", U"$", false}}};
constexpr std::array<Pair, 7> kQuotation = {{{U"「", U"」", false},
                                             {U"『", U"』", false},
                                             {U"《", U"》", false},
                                             {U"〈", U"〉", false},
                                             {U"“", U"”", false},
                                             {U"‘", U"’", false},
                                             {U"\"", U"\"", false}}};

class Reader {
 public:
  explicit Reader(std::string_view utf8) {
    const auto n = static_cast<std::int32_t>(utf8.size());
    for (std::int32_t i = 0; i < n;) {
      const std::int32_t begin = i;
      UChar32 c = 0;
      U8_NEXT_OR_FFFD(utf8.data(), i, n, c);
      text_ += static_cast<char32_t>(c);
      begins_.push_back(static_cast<std::size_t>(begin));
    }
    neutral_.assign(text_.size(), false);
  }

  void drop_neutral() {
    for (std::size_t i = 0; i < text_.size();) {
      std::optional<std::size_t> end;
      for (const Pair& pair : kNeutral)
        if ((end = end_of(pair, i))) break;
      if (!end) end = end_of_command(i);
      if (!end) end = end_of_address(i);
      i = end ? drop(i, *end) : i + 1;
    }
  }

  void drop_quotations() {
    for (std::size_t i = 0; i < text_.size();) {
      std::optional<std::size_t> end;
      for (const Pair& pair : kQuotation)
        if (!neutral_[i] && (end = end_of(pair, i))) break;
      i = end ? drop(i, *end) : i + 1;
    }
  }

  std::vector<ProseChar> result() const {
    std::vector<ProseChar> chars(text_.size());
    for (std::size_t i = 0; i < text_.size(); ++i)
      chars[i] = {neutral_[i] ? U' ' : text_[i], begins_[i]};
    return chars;
  }

 private:
  bool is_at(std::size_t i, std::u32string_view what) const {
    return std::u32string_view(text_).substr(i, what.size()) == what;
  }

  std::size_t drop(std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) neutral_[i] = true;
    return end;
  }

  std::optional<std::size_t> end_of(const Pair& pair, std::size_t i) const {
    if (!is_at(i, pair.open)) return std::nullopt;
    const std::size_t inside = i + pair.open.size();
    const std::size_t close = text_.find(pair.close, inside);
    if (pair.many_lines)
      return close == std::u32string::npos ? text_.size() : close + pair.close.size();
    if (close == std::u32string::npos || close - inside > kMaxSpan) return std::nullopt;
    const auto span = std::u32string_view(text_).substr(inside, close - inside);
    if (span.find(U'\n') != std::u32string_view::npos) return std::nullopt;
    // "$5 and then $6" is no formula: as in Pandoc, no blank stands inside next to a dollar.
    if (pair.open == U"$" && (span.empty() || span.front() == U' ' || span.back() == U' '))
      return std::nullopt;
    return close + pair.close.size();
  }

  // \boxed{…} with its braces, whose content is an answer; any other \name alone.
  std::optional<std::size_t> end_of_command(std::size_t i) const {
    if (text_[i] != U'\\') return std::nullopt;
    std::size_t end = i + 1;
    while (end < text_.size() && ((text_[end] | 0x20) >= U'a' && (text_[end] | 0x20) <= U'z'))
      ++end;
    if (end == i + 1) return std::nullopt;
    if (!is_at(i, U"\\boxed{")) return end;
    int depth = 0;
    for (; end < text_.size(); ++end) {
      if (text_[end] == U'{') ++depth;
      if (text_[end] == U'}' && --depth == 0) return end + 1;
    }
    return end;
  }

  std::optional<std::size_t> end_of_address(std::size_t i) const {
    if (!is_at(i, U"http://") && !is_at(i, U"https://")) return std::nullopt;
    while (i < text_.size() && text_[i] > U' ' && text_[i] < 0x7F) ++i;
    return i;
  }

  std::u32string text_;
  std::vector<std::size_t> begins_;
  std::vector<bool> neutral_;
};

}  // namespace

std::vector<ProseChar> prose_of(std::string_view utf8, Quotations quotations) {
  Reader reader(utf8);
  reader.drop_neutral();
  if (quotations == Quotations::kDrop) reader.drop_quotations();
  return reader.result();
}

}  // namespace assay::harness
