// A reply's text, folded so that the extractor's rules see one spelling of everything, with the way
// back to the original bytes. For the extractor and the needles' scorer.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace assay::harness {

struct Span {
  std::size_t begin = 0, end = 0;
};

// chars[i] came from bytes origin[i].begin .. origin[i].end of the text.
struct FoldedText {
  std::u32string chars;
  std::vector<Span> origin;
  std::vector<Span> bold;  // in chars: what stood between **
};

// Group separator inside a number: thin and no-break spaces, LaTeX's "\,".
inline constexpr char32_t kThinSpace = 0x2009;

// Digits of every script, full-width forms and every minus become ASCII, A-Z becomes a-z; currency
// signs, backticks and LaTeX's markup become spaces or vanish; \times, \cdot and \div become × and
// ÷; \boxed and \frac stay. Superscripts, ① and ½ stay themselves: NFKC would make 10² into 102.
FoldedText fold_reply(std::string_view utf8);

inline bool is_digit(char32_t c) { return c >= U'0' && c <= U'9'; }
inline bool is_letter(char32_t c) { return c >= U'a' && c <= U'z'; }  // after folding
inline bool is_space(char32_t c) {
  return c == U' ' || c == U'\n' || c == U'\t' || c == U'\r' || c == kThinSpace;
}

}  // namespace assay::harness
