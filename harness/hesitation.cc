#include "harness/hesitation.h"

#include <array>
#include <cstddef>
#include <string>

namespace assay::harness {
namespace {

enum class Where { kAnywhere, kWord, kClauseStart };

struct Marker {
  std::string_view text;  // English in lower case
  Where where;
  int HesitationCount::*counter;  // null: only looks like a marker
};

constexpr auto kJa = &HesitationCount::ja;
constexpr auto kEn = &HesitationCount::en;
constexpr auto kZh = &HesitationCount::zh;
constexpr int HesitationCount::*kNone = nullptr;

// The longest that matches at a place counts, once, and the search goes on behind it. What is also
// a part of other words (でも in それでも, 等等 for "and so on") counts where a clause starts.
constexpr std::array<Marker, 39> kMarkers = {{
    {"wait", Where::kWord, kEn},
    {"but", Where::kWord, kEn},
    {"but wait", Where::kWord, kEn},
    {"nothing but", Where::kWord, kNone},
    {"alternatively", Where::kWord, kEn},
    {"however", Where::kWord, kEn},
    {"hmm", Where::kWord, kEn},
    {"hm", Where::kWord, kEn},
    {"actually", Where::kWord, kEn},
    {"let me check", Where::kWord, kEn},
    {"let me recheck", Where::kWord, kEn},
    {"let me re-check", Where::kWord, kEn},
    {"let me double check", Where::kWord, kEn},
    {"let me double-check", Where::kWord, kEn},
    {"let me verify", Where::kWord, kEn},
    {"let me reconsider", Where::kWord, kEn},
    {"待って", Where::kClauseStart, kJa},
    {"ちょっと待って", Where::kClauseStart, kJa},
    {"しかし", Where::kClauseStart, kJa},
    {"いや", Where::kClauseStart, kJa},
    {"いやいや", Where::kClauseStart, kJa},
    {"いや、待って", Where::kClauseStart, kJa},
    {"でも", Where::kClauseStart, kJa},
    {"もう一度", Where::kAnywhere, kJa},
    {"ではなく", Where::kAnywhere, kJa},
    {"だけではなく", Where::kAnywhere, kNone},  // "not only"
    {"等等", Where::kClauseStart, kZh},
    {"等一下", Where::kClauseStart, kZh},
    {"等等，不对", Where::kClauseStart, kZh},
    {"不过", Where::kClauseStart, kZh},
    {"不过是", Where::kClauseStart, kNone},  // "is only"
    {"但是", Where::kAnywhere, kZh},
    {"不但是", Where::kAnywhere, kNone},  // "not only"
    {"然而", Where::kAnywhere, kZh},
    {"不对", Where::kAnywhere, kZh},
    {"不对称", Where::kAnywhere, kNone},  // asymmetric
    {"不对应", Where::kAnywhere, kNone},  // does not correspond
    {"不对等", Where::kAnywhere, kNone},  // unequal
    {"重新", Where::kAnywhere, kZh},
}};

bool is_word_byte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';  // of lower-case text
}

bool starts_clause(std::string_view before) {
  while (before.ends_with(' ')) before.remove_suffix(1);
  if (before.empty()) return true;
  const char last = before.back();
  if (static_cast<unsigned char>(last) < 0x80) return !is_word_byte(last);
  if (before.size() < 3) return false;
  constexpr std::string_view kMarks = "。、，！？；：…—「『（“　";  // three bytes each
  const auto at = kMarks.find(before.substr(before.size() - 3));
  return at != std::string_view::npos && at % 3 == 0;
}

bool stands_at(const Marker& marker, std::string_view text, std::size_t at) {
  if (text.substr(at, marker.text.size()) != marker.text) return false;
  const std::size_t end = at + marker.text.size();
  switch (marker.where) {
    case Where::kAnywhere:
      return true;
    case Where::kWord:
      return (at == 0 || !is_word_byte(text[at - 1])) &&
             (end == text.size() || !is_word_byte(text[end]));
    case Where::kClauseStart:
      return starts_clause(text.substr(0, at));
  }
  return false;
}

}  // namespace

HesitationCount count_hesitations(std::string_view utf8) {
  std::string text(utf8);
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  HesitationCount count;
  for (std::size_t i = 0; i < text.size();) {
    const Marker* longest = nullptr;
    for (const Marker& marker : kMarkers)
      if ((longest == nullptr || marker.text.size() > longest->text.size()) &&
          stands_at(marker, text, i))
        longest = &marker;
    if (longest == nullptr) {
      ++i;
      continue;
    }
    if (longest->counter != nullptr) ++(count.*longest->counter);
    i += longest->text.size();
  }
  return count;
}

std::optional<double> hesitations_per_1k(const HesitationCount& count, int n_tokens) {
  if (n_tokens <= 0) return std::nullopt;
  return 1000.0 * count.total() / n_tokens;
}

}  // namespace assay::harness
