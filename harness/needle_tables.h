// What needle prompts are made of, in every language: suites/needle/tables.json, checked.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace assay::harness {

// Templates with {placeholders}. A placeholder draws from the vocabulary of its name; a digit at
// its end is another draw from it, and a capital first letter writes the draw with a capital.
struct NeedleGrammar {
  std::vector<std::string> templates;
  std::map<std::string, std::vector<std::string>, std::less<>> vocabulary;
};

struct NeedleQuestions {
  std::vector<std::string> ask, reask;  // no wording stands in both
};

struct NeedleLanguage {
  std::string join;  // between sentences: " " or ""
  NeedleGrammar haystack, keys;
  std::vector<std::string> attributes;  // "secret code"; the same index in every language
  std::vector<std::string> needles;     // {attribute} {key} {value}
  std::vector<std::string> intros,
      labels;  // before the text; before the question ("Question: ", "")
  NeedleQuestions key, values, keys_asked, variable;  // {attribute} {key} {key2} {name}
  std::vector<std::string> absent_phrases;            // how an answer says that it is not there
};

struct NeedleTables {
  std::vector<int> value_digits;      // how many digits a value may have
  std::vector<int> variable_digits;   // and a variable's
  std::vector<int> paragraphs;        // sentences in one
  std::vector<std::string> gaps;      // between paragraphs: "\n", "\n\n"
  std::string define, copy, letters;  // "VAR {name} = {value}.", "VAR {name} = VAR {from}."
  int n_letters = 0;                  // of a variable's name
  std::map<std::string, NeedleLanguage, std::less<>> languages;

  Result<const NeedleLanguage*> of(std::string_view language) const;
};

// Every message names the source, the key, what was expected and what was found.
Result<NeedleTables> parse_needle_tables(std::string_view text, std::string_view source);

// Names in {} in the order they stand; an error for a brace that does not match.
Result<std::vector<std::string>> placeholders(std::string_view text, std::string_view where);
// The vocabulary that a placeholder draws from: "Person2" → "person".
std::string vocabulary_name(std::string_view placeholder);

}  // namespace assay::harness
