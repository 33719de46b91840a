#include "harness/cli/calibration_overlap.h"

#include <algorithm>
#include <set>

#include "base/plural.h"
#include "engine/quantize/quantize.h"
#include "harness/cli/say.h"
#include "harness/divergence_table.h"

namespace assay::cli {
namespace {

using engine::CalibrationText;
using harness::DivergenceBase;

std::vector<CalibrationText> texts_of(const std::vector<DivergenceBase::Text>& judged) {
  std::vector<CalibrationText> out;
  for (const DivergenceBase::Text& t : judged) out.push_back({t.lang, t.ids, t.reply});
  return out;
}

// Without those that cannot be tokenised, which are none of a calibration set.
std::vector<CalibrationText> texts_of(const std::vector<text::CorpusLine>& file,
                                      const engine::Engine& e) {
  std::vector<CalibrationText> out;
  for (const text::CorpusLine& line : file)
    if (auto t = text::tokenize(line, e.tokenizer(), e.chat_template()))
      out.push_back({t->lang.empty() ? "?" : t->lang, std::move(t->ids), t->reply});
  return out;
}

std::size_t n_in_common(const engine::CalibrationRecord& record,
                        const std::vector<CalibrationText>& judged,
                        const std::vector<CalibrationText>& file) {
  if (record.fingerprints.empty()) {
    const bool is_the_set = std::cmp_equal(file.size(), record.n_texts) &&
                            engine::tokens_by_language(file) == record.tokens_by_language;
    return is_the_set ? judged.size() : 0;
  }
  const std::set<std::string> known(record.fingerprints.begin(), record.fingerprints.end());
  return static_cast<std::size_t>(std::ranges::count_if(
      judged, [&](const CalibrationText& t) { return known.contains(engine::fingerprint_of(t)); }));
}

}  // namespace

Json calibration_overlap(const engine::Engine& candidate,
                         const std::vector<DivergenceBase::Text>& judged,
                         const std::vector<text::CorpusLine>& file) {
  const auto record = engine::read_calibration_record(candidate.info().model_dir);
  if (!record) {
    say("warning: {}. Whether the candidate was calibrated with these texts is not known.\n",
        record.error().message);
    return {};
  }
  if (!*record) return {};
  const std::vector<CalibrationText> texts = texts_of(judged);
  const std::size_t n =
      n_in_common(**record, texts, file.empty() ? texts : texts_of(file, candidate));
  if (n == 0) return {};
  Json out = {{"set", (*record)->set}, {"n_calibrated", n}, {"n_judged", judged.size()}};
  say("warning: {}\n", harness::calibration_warning(out));
  return out;
}

}  // namespace assay::cli
