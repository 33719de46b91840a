// A comparison as run.json and `assay compare --json` hold it (docs/formats/run-record.md).
#include "harness/compare.h"

namespace assay::harness {
namespace {

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

Json row_json(const PairedRow& r) {
  return {{"suite", r.suite},
          {"arm", r.arm},
          {"language", r.language},
          {"metric", r.metric},
          {"family", r.family},
          {"n", r.n},
          {"n_clusters", r.n_clusters},
          {"n_base", r.n_base},
          {"n_candidate", r.n_candidate},
          {"n_regressed", r.n_regressed},
          {"n_fixed", r.n_fixed},
          {"difference", r.difference.estimate},
          {"lo", r.difference.lo},
          {"hi", r.difference.hi},
          {"p", r.p},
          {"p_holm", r.p_holm},
          {"floor", r.floor},
          {"detectable", r.detectable},
          {"detectable_points", or_null(r.detectable_points())},
          {"needs_confirmation", r.needs_confirmation},
          {"suspected", r.suspected},
          {"verdict", name_of(r.verdict)},
          {"regressed", r.verdict == RowVerdict::kRegression}};
}

Json length_json(const JudgedLength& r) {
  const auto end = [&](double Interval::*of) {
    return r.ratio95 ? Json((*r.ratio95).*of) : Json();
  };
  return {{"suite", r.suite},
          {"arm", r.arm},
          {"language", r.language},
          {"family", r.family},
          {"n", r.n},
          {"n_clusters", r.n_clusters},
          {"n_left_out", r.n_left_out},
          {"ratio", r.ratio},
          {"lo", end(&Interval::lo)},
          {"hi", end(&Interval::hi)},
          {"p", r.p},
          {"p_holm", r.p_holm},
          {"verdict", name_of(r.verdict)}};
}

Json token_json(const TokenAt& token, const TokenText& text) {
  if (token.id < 0) return nullptr;
  const auto text_of = [&](int id) { return text ? Json(text(id)) : Json(); };
  Json top = Json::array();
  for (const auto& [id, logprob] : token.top)
    top.push_back({{"id", id}, {"text", text_of(id)}, {"logprob", logprob}});
  return {{"id", token.id}, {"text", text_of(token.id)}, {"top", std::move(top)}};
}

}  // namespace

Json to_json(const Comparison& comparison, const TokenText& text) {
  Json rows = Json::array(), lengths = Json::array(), flips = Json::array();
  for (const PairedRow& r : comparison.rows) rows.push_back(row_json(r));
  for (const JudgedLength& r : comparison.lengths) lengths.push_back(length_json(r));
  for (const Flip& f : comparison.flips)
    flips.push_back({{"key", f.key},
                     {"language", f.language},
                     {"kind", f.kind},
                     {"question", f.question},
                     {"expected", f.expected},
                     {"base_class", f.base_class},
                     {"candidate_class", f.candidate_class},
                     {"base_answer", f.base_answer},
                     {"candidate_answer", f.candidate_answer},
                     {"first_difference", f.first_difference},
                     {"base_token", token_json(f.base_token, text)},
                     {"candidate_token", token_json(f.candidate_token, text)},
                     {"regressed", f.regressed}});
  return {{"n_pairs", comparison.n_pairs},
          {"n_same_tokens", comparison.n_same_tokens},
          {"n_both_wrong", comparison.n_both_wrong},
          {"n_not_run", comparison.n_not_run},
          {"n_non_finite", comparison.n_non_finite},
          {"alpha", kAlpha},
          {"floor", kFloor},
          {"rows", rows},
          {"lengths", lengths},
          {"flips", flips}};
}

}  // namespace assay::harness
