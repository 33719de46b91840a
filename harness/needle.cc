#include "harness/needle.h"

#include <unicode/brkiter.h>
#include <unicode/locid.h>
#include <unicode/utext.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include "engine/text/unicode.h"
#include "harness/needle_draw.h"

namespace assay::harness {
namespace {

// Asked needles go from the depth evenly to the end; distractors lie evenly over the whole text,
// begun at the depth and turned over its end.
std::vector<double> depths_of(double depth, std::size_t n_asked, std::size_t n_distractors) {
  std::vector<double> out;
  for (std::size_t i = 0; i < n_asked; ++i)
    out.push_back(depth + (1 - depth) * static_cast<double>(i) / static_cast<double>(n_asked));
  const std::size_t own = n_asked > 0 ? 1 : 0;  // the first asked one takes the depth itself
  for (std::size_t i = 0; i < n_distractors; ++i) {
    const double at =
        depth + static_cast<double>(i + own) / static_cast<double>(n_distractors + own);
    out.push_back(at > 1 ? at - 1 : at);
  }
  return out;
}

OrderedJson one_message(const std::string& content) {
  return OrderedJson::array({{{"role", "user"}, {"content", content}}});
}

std::string joined(const std::vector<NeedleSentence>& sentences) {
  std::string out;
  for (const NeedleSentence& sentence : sentences) out += sentence.text + sentence.gap;
  return out;
}

}  // namespace

Result<std::vector<NeedleSentence>> split_sentences(std::string_view utf8,
                                                    std::string_view language,
                                                    std::string_view source) {
  if (const auto bad = text::first_invalid_utf8(utf8))
    return fail("{}: not valid UTF-8 at byte {}", source, *bad);
  UErrorCode status = U_ZERO_ERROR;
  const std::unique_ptr<icu::BreakIterator> breaks(icu::BreakIterator::createSentenceInstance(
      icu::Locale(std::string(language).c_str()), status));
  const std::unique_ptr<UText, decltype(&utext_close)> bytes(
      utext_openUTF8(nullptr, utf8.data(), static_cast<std::int64_t>(utf8.size()), &status),
      utext_close);
  if (U_SUCCESS(status)) breaks->setText(bytes.get(), status);
  if (U_FAILURE(status))
    return fail("{}: ICU cannot find sentences: {}", source, u_errorName(status));

  std::vector<NeedleSentence> out;
  constexpr std::string_view kSpace = " \t\r\n";
  const auto push = [&](std::string_view piece) {
    const std::size_t end = piece.find_last_not_of(kSpace) + 1;
    if (end > 0) {
      out.push_back({std::string(piece.substr(0, end)), std::string(piece.substr(end))});
    } else if (!out.empty()) {
      out.back().gap += piece;  // white space alone belongs to what stands before it
    }
  };
  for (std::int32_t begin = breaks->first(), end = breaks->next(); end != icu::BreakIterator::DONE;
       begin = end, end = breaks->next()) {
    // ICU does not end a sentence at a line end within a paragraph, but headings and verses do.
    std::string_view piece =
        utf8.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    while (!piece.empty()) {
      const std::size_t line = std::min(piece.find('\n'), piece.size() - 1) + 1;
      push(piece.substr(0, line));
      piece.remove_prefix(line);
    }
  }
  if (out.empty()) return fail("{}: there is no sentence in it", source);
  return out;
}

Result<NeedlePrompt> build_needle(const NeedleRecipe& recipe, const NeedleTables& tables,
                                  const CountTokens& count_tokens,
                                  const std::vector<NeedleSentence>* own_text) {
  ASSAY_TRY(const auto* language, tables.of(recipe.haystack_language));
  ASSAY_TRY(DrawnNeedles needles,
            draw_needles(recipe, tables, own_text == nullptr ? "" : joined(*own_text)));

  HaystackParts parts;
  parts.before = needles.intro + "\n\n";
  parts.after = "\n\n" + needles.label + needles.question;
  parts.needles = needles.asked;
  parts.needles.insert(parts.needles.end(), needles.distractors.begin(), needles.distractors.end());
  parts.depths = depths_of(recipe.depth, needles.asked.size(), needles.distractors.size());
  parts.join = language->join;
  Draw layout = layout_draw(recipe.seed);
  if (own_text == nullptr) {
    const auto paragraph = static_cast<std::size_t>(layout.of(tables.paragraphs));
    const std::string& gap = layout.of(tables.gaps);
    parts.sentence = [&recipe, language, paragraph, gap](std::size_t i) {
      Draw draw = sentence_draw(recipe.seed, i);
      return std::optional(NeedleSentence{generate(language->haystack, draw),
                                          (i + 1) % paragraph == 0 ? gap : language->join});
    };
  } else {
    const std::size_t first = layout.below(own_text->size());
    parts.sentence = [own_text, first](std::size_t i) -> std::optional<NeedleSentence> {
      if (i >= own_text->size()) return std::nullopt;
      NeedleSentence sentence = (*own_text)[(first + i) % own_text->size()];
      // The text's last sentence may have no end of line; another one follows it here.
      if (sentence.gap.empty() && first + i + 1 == own_text->size()) sentence.gap = "\n";
      return sentence;
    };
  }
  const CountContent count = [&](const std::string& content) {
    return count_tokens(one_message(content));
  };
  ASSAY_TRY(FittedHaystack haystack, fit_haystack(parts, recipe.n_tokens, count));

  NeedlePrompt prompt;
  const std::string shared = parts.before + haystack.text + "\n\n" + needles.label;
  prompt.messages = one_message(shared + needles.question);
  prompt.reask = one_message(shared + needles.reask);
  prompt.shared_bytes = shared.size();
  prompt.question = std::move(needles.question);
  prompt.reask_question = std::move(needles.reask);
  prompt.truth = std::move(needles.truth);
  prompt.shares = std::move(haystack.shares);
  return prompt;
}

}  // namespace assay::harness
