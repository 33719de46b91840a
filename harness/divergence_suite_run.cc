#include "harness/divergence_suite_run.h"

#include <map>

#include "base/check.h"
#include "base/plural.h"
#include "harness/divergence_result.h"

namespace assay::harness {
namespace {

// Those of the captured texts that are `lines`: a base that was captured from more of the suite
// serves every profile, one that was captured from anything else is another measurement.
Result<DivergenceBase> captured_of(const DivergenceBase& captured,
                                   const std::vector<text::CorpusLine>& lines,
                                   const engine::Engine& candidate) {
  DivergenceBase out{.vocab = captured.vocab,
                     .model = captured.model,
                     .noise_floor = captured.noise_floor,
                     .texts = {}};
  ASSAY_TRY_VOID(check_comparable(out, candidate));  // its tokenizer; there are no texts yet
  ASSAY_TRY(const auto wanted, tokenize_texts(lines, candidate));
  std::map<std::string, const DivergenceBase::Text*> by_id;
  for (const DivergenceBase::Text& t : captured.texts) by_id[t.id] = &t;
  for (const DivergenceBase::Text& t : wanted) {
    const auto found = by_id.find(t.id);
    if (found == by_id.end())
      return fail(
          "the captured base has {}, and '{}' of the suite is not among them: capture it "
          "again with assay diverge BASE --save-base FILE",
          counted(captured.texts.size(), "text"), t.id);
    if (found->second->ids != t.ids || found->second->reply != t.reply)
      return fail(
          "text '{}' of the captured base is not the suite's text of that name: capture it again "
          "with assay diverge BASE --save-base FILE",
          t.id);
    out.texts.push_back(*found->second);
  }
  return out;
}

}  // namespace

Result<std::optional<Json>> run_divergence(const DivergenceSuite& suite,
                                           const DivergenceSettings& settings,
                                           const DivergenceAgainst& against,
                                           const engine::Engine& candidate, int n_threads,
                                           const TextHook& on_text, const std::stop_token& stop) {
  CHECK((against.loaded == nullptr) != (against.captured == nullptr)) << "one base";
  const std::vector<text::CorpusLine> lines = spread(suite.lines, settings.limit);
  const auto decode_of = [&](const DivergenceBase& base) {
    return decode_against_prefill(candidate, base.texts, settings.n_noise_texts, n_threads, on_text,
                                  stop);
  };
  if (against.captured != nullptr) {
    ASSAY_TRY(const DivergenceBase base, captured_of(*against.captured, lines, candidate));
    ASSAY_TRY(Json decode, decode_of(base));
    ASSAY_TRY(const auto positions, diverge_texts(base, candidate, n_threads, on_text, stop));
    if (stop.stop_requested()) return std::nullopt;
    return divergence_result(base, candidate, positions, std::move(decode));
  }
  ASSAY_TRY(DivergenceBase base, new_base(lines, *against.loaded));
  ASSAY_TRY_VOID(check_comparable(base, candidate));
  if (against.loaded_again != nullptr && settings.n_noise_texts > 0) {
    ASSAY_TRY(base.noise_floor, noise_floor(*against.loaded, *against.loaded_again, base.texts,
                                            settings.n_noise_texts, n_threads, on_text, stop));
    if (stop.stop_requested()) return std::nullopt;
  }
  ASSAY_TRY(Json decode, decode_of(base));
  ASSAY_TRY(const auto positions,
            diverge_texts(*against.loaded, candidate, base.texts, n_threads, on_text, stop));
  if (stop.stop_requested()) return std::nullopt;
  return divergence_result(base, candidate, positions, std::move(decode));
}

}  // namespace assay::harness
