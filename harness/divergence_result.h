// From engines and texts to what `assay diverge` prints and a divergence suite records: who is
// compared, on which texts, and the figures.
#pragma once

#include <stop_token>
#include <vector>

#include "base/json.h"
#include "harness/divergence_run.h"

namespace assay::harness {

// The first line of each of `limit` equal parts: spread over the file, whatever their languages. 0
// or more than there are: all.
std::vector<text::CorpusLine> spread(const std::vector<text::CorpusLine>& lines, int limit);

// `limit` of them, taken from their languages in turn, each language's spread over the file, so
// that none is left out while there is room; in the file's order. 0 or more than there are: all.
std::vector<text::CorpusLine> spread_by_language(const std::vector<text::CorpusLine>& lines,
                                                 int limit);

// `lines` as the base reads them, with who it is; neither captured nor with a noise floor yet.
Result<DivergenceBase> new_base(const std::vector<text::CorpusLine>& lines,
                                const engine::Engine& base);

// A candidate with another tokenizer would be judged on other texts. Asked before the work begins.
Result<void> check_comparable(const DivergenceBase& base, const engine::Engine& candidate);

// The base against itself in another arithmetic, on `n_texts` of the texts: what is below this is
// no news. The figures of all positions, and every group's in "groups". Null if stopped.
Result<Json> noise_floor(const engine::Engine& base, const engine::Engine& again,
                         const std::vector<DivergenceBase::Text>& texts, int n_texts, int n_threads,
                         const TextHook& on_text = {}, const std::stop_token& stop = {});

// Whether what is measured here, in chunks, is what the engine decodes: {"same_bits": whether it
// promises that, "figures": else measured on `n_texts` of the texts (diverge_decode), in the form
// of a noise floor; null if there is nothing to measure or `n_texts` is 0}. Null if stopped.
Result<Json> decode_against_prefill(const engine::Engine& engine,
                                    const std::vector<DivergenceBase::Text>& texts, int n_texts,
                                    int n_threads, const TextHook& on_text = {},
                                    const std::stop_token& stop = {});

// {"base", "candidate": who they are, "noise_floor": null if it was not measured,
// "decode_against_prefill": of the candidate, "groups": every DivergenceSummary, all × all first,
// "texts": mean KLD of each, "worst": the positions furthest apart, and what was being said there};
// and "calibration", where one is given: which of the texts the candidate was calibrated with
// (harness/cli/calibration_overlap.h).
Result<Json> divergence_result(const DivergenceBase& base, const engine::Engine& candidate,
                               const std::vector<ScoredPosition>& positions, Json decode);

}  // namespace assay::harness
