// From an answer's text to one exact number: which rule matched which span.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace assay::harness {

struct Extraction {
  std::string value;  // canonical exact number: "1016", "-5", "1/2"
  std::string rule;
  std::size_t begin = 0, end = 0;  // byte span in the text
  int per = 1;  // 100: written in percent, 10: in 割 or 成; `value` is already divided by it
};

// Which rules may speak, in order of trust. suites/extraction/README.md describes them.
enum class Pipeline {
  kFlexible,  // every rule; what runs are scored with
  kStrict,  // only places that say that they hold the answer: no comparison, equation, last number
};
std::string_view name_of(Pipeline pipeline);  // "flexible", "strict"
std::optional<Pipeline> parse_pipeline(std::string_view name);

std::optional<Extraction> extract_number(std::string_view text, std::string_view language,
                                         Pipeline pipeline = Pipeline::kFlexible);

// One form for every value: "1,016", "千十六" → "1016"; "0.5" → "1/2"; "-0" → "0". A number in
// percent or in tenths keeps its mark, "50 %" → "50%", "5割" → "5割": as an expected answer it says
// how the question wants it. None if `written` is not exactly one number.
std::optional<std::string> canonical_number(std::string_view written);

// Whether the extraction answers `expected`, a canonical number. Values are compared exactly: 50 %
// is 1/2 and not 50. Where `expected` is in percent ("50%": the question asks how many percent),
// the bare number of percents, 50, is right as well; likewise 5 for "5割".
bool answers(const Extraction& extraction, std::string_view expected);

// Whether a number that answers `expected` stands anywhere in the text: for looking into reasoning.
bool mentions_number(std::string_view text, std::string_view language, std::string_view expected);

}  // namespace assay::harness
