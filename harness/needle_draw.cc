#include "harness/needle_draw.h"

#include <algorithm>
#include <map>

#include "base/check.h"
#include "base/rng.h"

namespace assay::harness {
namespace {

// One stream for each thing, so that values are the same whatever the languages draw.
enum Stream : std::uint64_t { kValues = 1, kKeys, kAttribute, kSentences, kQuestion, kLayout };
constexpr std::uint64_t kFirstFiller = 1 << 20;
constexpr int kTries = 200;

constexpr int kMultiKeys = 4, kMultiValues = 3, kQueriedKeys = 2, kAbsentKeys = 2, kHops = 2;

bool overlap(std::string_view a, std::string_view b) {
  return a.find(b) != std::string_view::npos || b.find(a) != std::string_view::npos;
}

using Names = std::map<std::string, std::string, std::less<>>;

std::string fill(std::string_view text, const Names& names) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t open = std::min(text.find('{', at), text.size());
    out += text.substr(at, open - at);
    if (open == text.size()) break;
    const std::size_t close = text.find('}', open);
    const auto found = names.find(text.substr(open + 1, close - open - 1));
    CHECK(found != names.end()) << text;  // parse_needle_tables has looked at every placeholder
    out += found->second;
    at = close + 1;
  }
  return out;
}

// Draws until `taken` has nothing that holds it or is held by it, and `text` does not hold it.
template <class Make>
Result<std::string> fresh(std::vector<std::string>& taken, std::string_view text, const char* what,
                          Make make) {
  for (int i = 0; i < kTries; ++i) {
    std::string each = make();
    if (text.find(each) != std::string_view::npos) continue;
    if (std::any_of(taken.begin(), taken.end(),
                    [&](const std::string& other) { return overlap(each, other); }))
      continue;
    taken.push_back(each);
    return each;
  }
  return fail(
      "no {} could be drawn that the haystack does not hold already, in {} tries. Widen the tables "
      "or take another haystack.",
      what, kTries);
}

std::string digits(Draw& draw, const std::vector<int>& lengths) {
  std::string out;
  const int n = draw.of(lengths);
  for (int i = 0; i < n; ++i)
    out += static_cast<char>(i == 0 ? '1' + draw.below(9) : '0' + draw.below(10));
  return out;
}

// Everything that haystack sentences are made of: a key among it ("quiet valley") would stand in
// the text without being a needle.
std::string all_words(const NeedleGrammar& grammar) {
  std::string out;
  for (const std::string& text : grammar.templates) out += text + '\n';
  for (const auto& [name, words] : grammar.vocabulary)
    for (const std::string& word : words) out += word + '\n';
  return out;
}

class NeedleDrawer {
 public:
  NeedleDrawer(const NeedleRecipe& recipe, const NeedleTables& tables,
               const NeedleLanguage& haystack, const NeedleLanguage& needle,
               const NeedleLanguage& question, std::string_view own_text)
      : recipe_(recipe),
        tables_(tables),
        needle_(needle),
        question_(question),
        text_(own_text.empty() ? all_words(haystack.haystack) : std::string(own_text)),
        value_draw_(recipe.seed, kValues),
        key_draw_(recipe.seed, kKeys),
        sentence_draw_(recipe.seed, kSentences),
        question_draw_(recipe.seed, kQuestion) {
    attribute_ = Draw(recipe.seed, kAttribute).below(needle.attributes.size());
  }

  Result<DrawnNeedles> draw() {
    switch (recipe_.kind) {
      case NeedleKind::kSingle:
        ASSAY_TRY_VOID(draw_keys(1, 1, 1));
        break;
      case NeedleKind::kMultiKey:
        ASSAY_TRY_VOID(draw_keys(1, kMultiKeys, 1));
        break;
      case NeedleKind::kMultiValue:
        ASSAY_TRY_VOID(draw_keys(1, 1, kMultiValues));
        break;
      case NeedleKind::kMultiQuery:
        ASSAY_TRY_VOID(draw_keys(kQueriedKeys, kMultiKeys, 1));
        break;
      case NeedleKind::kAbsent:
        ASSAY_TRY_VOID(draw_keys(0, kAbsentKeys, 1));
        break;
      case NeedleKind::kVariable:
        ASSAY_TRY_VOID(draw_variables());
        break;
    }
    out_.intro = question_draw_.of(question_.intros);
    out_.label = question_draw_.of(question_.labels);
    return std::move(out_);
  }

 private:
  Result<std::string> draw_value(const std::vector<int>& lengths) {
    return fresh(values_, text_, "value", [&] { return digits(value_draw_, lengths); });
  }
  Result<std::string> draw_key() {
    return fresh(keys_, text_, "key", [&] { return generate(needle_.keys, key_draw_); });
  }

  // `n_asked` of `n_keys` keys are asked, each with `n_values` values.
  Result<void> draw_keys(int n_asked, int n_keys, int n_values) {
    for (int i = 0; i < n_keys; ++i) {
      const bool asked = i < n_asked;
      ASSAY_TRY(const std::string key, draw_key());
      for (int j = 0; j < n_values; ++j) {
        ASSAY_TRY(const std::string value, draw_value(tables_.value_digits));
        const Names names = {
            {"attribute", needle_.attributes[attribute_]}, {"key", key}, {"value", value}};
        (asked ? out_.asked : out_.distractors)
            .push_back(fill(sentence_draw_.of(needle_.needles), names));
        (asked ? out_.truth.expected : out_.truth.forbidden).push_back(value);
      }
    }
    if (n_asked == 0) {  // the question is about a key that stands nowhere
      ASSAY_TRY_VOID(draw_key());
      std::swap(keys_.front(), keys_.back());
    }
    ask(n_asked == 2    ? question_.keys_asked
        : n_values == 1 ? question_.key
                        : question_.values,
        {{"attribute", question_.attributes[attribute_]},
         {"key", keys_.front()},
         {"key2", n_asked == 2 ? keys_[1] : ""}});
    return {};
  }

  Result<void> draw_variables() {
    std::vector<std::string> names;
    const auto draw_name = [&] {
      std::string name;
      for (int i = 0; i < tables_.n_letters; ++i)
        name += tables_.letters[key_draw_.below(tables_.letters.size())];
      return name;
    };
    for (int i = 0; i < kHops + 2; ++i) ASSAY_TRY_VOID(fresh(names, text_, "variable", draw_name));
    ASSAY_TRY(const std::string value, draw_value(tables_.variable_digits));
    ASSAY_TRY(const std::string other, draw_value(tables_.variable_digits));
    out_.asked.push_back(fill(tables_.define, {{"name", names[0]}, {"value", value}}));
    for (std::size_t i = 1; i <= kHops; ++i)
      out_.asked.push_back(fill(tables_.copy, {{"name", names[i]}, {"from", names[i - 1]}}));
    out_.distractors.push_back(fill(tables_.define, {{"name", names.back()}, {"value", other}}));
    out_.truth = {{value}, {other}};
    ask(question_.variable, {{"name", names[kHops]}});
    return {};
  }

  void ask(const NeedleQuestions& questions, const Names& names) {
    out_.question = fill(question_draw_.of(questions.ask), names);
    out_.reask = fill(question_draw_.of(questions.reask), names);
  }

  const NeedleRecipe& recipe_;
  const NeedleTables& tables_;
  const NeedleLanguage &needle_, &question_;
  std::string text_;
  Draw value_draw_, key_draw_, sentence_draw_, question_draw_;
  std::size_t attribute_ = 0;
  std::vector<std::string> keys_, values_;
  DrawnNeedles out_;
};

}  // namespace

std::size_t Draw::below(std::size_t n) {
  return static_cast<std::size_t>(uniform_at(seed_, stream_, position_++) * static_cast<double>(n));
}

std::string generate(const NeedleGrammar& grammar, Draw& draw) {
  const std::string& text = draw.of(grammar.templates);
  Names names;
  const auto written = placeholders(text, "");
  CHECK(written) << text;
  for (const std::string& name : *written) {
    // {Person} and {person} are one draw, {person2} is another.
    std::string lower = name;
    if (lower[0] >= 'A' && lower[0] <= 'Z') lower[0] += 'a' - 'A';
    if (!names.contains(lower))
      names[lower] = draw.of(grammar.vocabulary.find(vocabulary_name(name))->second);
    if (lower == name) continue;
    std::string capital = names[lower];
    if (capital[0] >= 'a' && capital[0] <= 'z') capital[0] += 'A' - 'a';
    names[name] = capital;
  }
  return fill(text, names);
}

Result<DrawnNeedles> draw_needles(const NeedleRecipe& recipe, const NeedleTables& tables,
                                  std::string_view own_text) {
  ASSAY_TRY(const auto* haystack, tables.of(recipe.haystack_language));
  ASSAY_TRY(const auto* needle, tables.of(recipe.needle_language));
  ASSAY_TRY(const auto* question, tables.of(recipe.question_language));
  return NeedleDrawer(recipe, tables, *haystack, *needle, *question, own_text).draw();
}

Draw sentence_draw(std::uint64_t seed, std::size_t i) { return {seed, kFirstFiller + i}; }
Draw layout_draw(std::uint64_t seed) { return {seed, kLayout}; }

}  // namespace assay::harness
