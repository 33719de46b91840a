#include "harness/divergence_result.h"

#include <algorithm>

#include "harness/spread.h"

namespace assay::harness {
namespace {

Json identity(const engine::Engine& e) {
  const engine::EngineInfo& i = e.info();
  return {{"dir", i.model_dir},
          {"fingerprint", i.fingerprint},
          {"tokenizer", e.tokenizer().fingerprint()},
          {"backend", i.backend},
          {"kernel", i.kernel},
          {"attention", i.attention},
          {"active_bytes", i.active_bytes},
          {"routed_bytes", i.routed_bytes}};
}

constexpr std::size_t kWorst = 20;
constexpr std::size_t kContextTokens = 12;

Result<Json> worst_positions(const DivergenceBase& base, const text::Tokenizer& tokenizer,
                             const std::vector<ScoredPosition>& positions) {
  std::vector<const ScoredPosition*> worst;
  for (const ScoredPosition& p : positions) worst.push_back(&p);
  const auto n = std::min(kWorst, worst.size());
  std::partial_sort(worst.begin(), worst.begin() + static_cast<std::ptrdiff_t>(n), worst.end(),
                    [](const auto* a, const auto* b) {
                      return std::pair(-a->d.kld, std::pair(a->text, a->token)) <
                             std::pair(-b->d.kld, std::pair(b->text, b->token));
                    });
  Json out = Json::array();
  for (std::size_t i = 0; i < n; ++i) {
    const ScoredPosition& p = *worst[i];
    const DivergenceBase::Text& text = base.texts[static_cast<std::size_t>(p.text)];
    const std::span<const int> ids = text.ids;
    const auto at = static_cast<std::size_t>(p.token);
    const std::size_t n_before = std::min(at, kContextTokens);
    ASSAY_TRY(std::string before, tokenizer.decode(ids.subspan(at - n_before, n_before)));
    ASSAY_TRY(std::string next, tokenizer.decode(ids.subspan(at, 1)));
    out.push_back({{"text", text.id},
                   {"lang", p.lang},
                   {"part", p.part == TextPart::kThinking ? "thinking" : "answer"},
                   {"token", p.token},
                   {"kld", p.d.kld},
                   {"nll_base", p.d.nll_base},
                   {"nll_candidate", p.d.nll_candidate},
                   {"before", std::move(before)},
                   {"next", std::move(next)}});
  }
  return out;
}

// Mean KLD of every text.
Json texts_json(const DivergenceBase& base, const std::vector<ScoredPosition>& positions) {
  std::vector<double> sum(base.texts.size());
  std::vector<int> n(base.texts.size());
  for (const ScoredPosition& p : positions) {
    sum[static_cast<std::size_t>(p.text)] += p.d.kld;
    ++n[static_cast<std::size_t>(p.text)];
  }
  Json out = Json::array();
  for (std::size_t i = 0; i < base.texts.size(); ++i)
    if (n[i] > 0)
      out.push_back({{"id", base.texts[i].id},
                     {"lang", base.texts[i].lang},
                     {"n_positions", n[i]},
                     {"kld", sum[i] / n[i]}});
  return out;
}

Json groups_json(const std::vector<DivergenceSummary>& summaries) {
  Json out = Json::array();
  for (const DivergenceSummary& s : summaries) out.push_back(to_json(s));
  return out;
}

// Of all positions, and every group's.
Json figures_of(const std::vector<ScoredPosition>& positions) {
  const std::vector<DivergenceSummary> summaries = summarise(positions);
  Json out = to_json(summaries.front());  // all × all
  out["groups"] = groups_json(summaries);
  return out;
}

}  // namespace

std::vector<text::CorpusLine> spread(const std::vector<text::CorpusLine>& lines, int limit) {
  return limit == 0 ? lines : spread_over(lines, static_cast<std::size_t>(limit));
}

std::vector<text::CorpusLine> spread_by_language(const std::vector<text::CorpusLine>& lines,
                                                 int limit) {
  const auto n_wanted = static_cast<std::size_t>(limit);
  if (limit == 0 || n_wanted >= lines.size()) return lines;
  struct Language {
    std::string name;
    std::vector<std::size_t> at;
    std::size_t n = 0;  // to take
  };
  std::vector<Language> languages;  // as they first come
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const auto same = [&](const Language& l) { return l.name == lines[i].lang; };
    auto found = std::find_if(languages.begin(), languages.end(), same);
    if (found == languages.end()) found = languages.insert(found, {lines[i].lang, {}, 0});
    found->at.push_back(i);
  }
  for (std::size_t n = 0; n < n_wanted;)
    for (Language& l : languages)
      if (n < n_wanted && l.n < l.at.size()) ++l.n, ++n;
  std::vector<std::size_t> chosen;
  for (const Language& l : languages) {
    const std::vector<std::size_t> of = spread_over(l.at, l.n);
    chosen.insert(chosen.end(), of.begin(), of.end());
  }
  std::sort(chosen.begin(), chosen.end());
  std::vector<text::CorpusLine> out;
  for (const std::size_t i : chosen) out.push_back(lines[i]);
  return out;
}

Result<DivergenceBase> new_base(const std::vector<text::CorpusLine>& lines,
                                const engine::Engine& base) {
  DivergenceBase out;
  out.vocab = base.info().vocab;
  out.model = identity(base);
  ASSAY_TRY(out.texts, tokenize_texts(lines, base));
  return out;
}

Result<void> check_comparable(const DivergenceBase& base, const engine::Engine& candidate) {
  const std::string of_base = base.model.value("tokenizer", ""),
                    here = candidate.tokenizer().fingerprint();
  if (of_base != here)
    return fail(
        "the candidate's tokenizer ({}) is not the base's ({}): their tokens cannot be compared",
        here, of_base);
  return check_lengths(base.texts, candidate);
}

Result<Json> noise_floor(const engine::Engine& base, const engine::Engine& again,
                         const std::vector<DivergenceBase::Text>& texts, int n_texts, int n_threads,
                         const TextHook& on_text, const std::stop_token& stop) {
  ASSAY_TRY(const auto positions,
            diverge_texts(base, again, spread_over(texts, static_cast<std::size_t>(n_texts)),
                          n_threads, on_text, stop));
  if (stop.stop_requested()) return Json();
  Json out = figures_of(positions);
  const bool is_other_kernel = base.info().backend == again.info().backend;
  const auto name = [&](const engine::EngineInfo& i) {
    return is_other_kernel ? i.backend + " " + i.kernel : i.backend;
  };
  out["between"] = {name(base.info()), name(again.info())};
  return out;
}

Result<Json> decode_against_prefill(const engine::Engine& engine,
                                    const std::vector<DivergenceBase::Text>& texts, int n_texts,
                                    int n_threads, const TextHook& on_text,
                                    const std::stop_token& stop) {
  Json out = {{"same_bits", engine.info().prefill_equals_decode}, {"figures", nullptr}};
  if (engine.info().prefill_equals_decode || n_texts == 0) return out;
  ASSAY_TRY(const auto positions,
            diverge_decode(engine, spread_over(texts, static_cast<std::size_t>(n_texts)), n_threads,
                           on_text, stop));
  if (stop.stop_requested()) return Json();
  out["figures"] = figures_of(positions);
  return out;
}

Result<Json> divergence_result(const DivergenceBase& base, const engine::Engine& candidate,
                               const std::vector<ScoredPosition>& positions, Json decode) {
  Json out = {{"base", base.model},
              {"candidate", identity(candidate)},
              {"noise_floor", base.noise_floor},
              {"decode_against_prefill", std::move(decode)},
              {"groups", groups_json(summarise(positions))},
              {"texts", texts_json(base, positions)}};
  ASSAY_TRY(out["worst"], worst_positions(base, candidate.tokenizer(), positions));
  return out;
}

}  // namespace assay::harness
