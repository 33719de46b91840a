#include "harness/sample.h"

#include "base/hash.h"

namespace assay::harness {

Json to_json(const Sample& s) {
  Json json = {{"suite", s.suite},
               {"arm", s.arm},
               {"id", s.id},
               {"cluster", s.cluster},
               {"language", s.language},
               {"kind", s.kind},
               {"repeat", s.repeat},
               {"gated", s.gated},
               {"scoring", name_of(s.scoring)},
               {"recipe", s.recipe},
               {"question", s.question},
               {"prompt", s.prompt},
               {"prompt_ids", s.prompt_ids},
               {"n_prompt_tokens", s.n_prompt_tokens},
               {"prompt_hash", s.prompt_hash},
               {"expected", s.expected},
               {"ids", s.ids},
               {"finish", s.finish},
               {"thinking", s.thinking},
               {"answer", s.answer},
               {"n_thinking_tokens", s.n_thinking_tokens},
               {"n_stray_tags", s.n_stray_tags},
               {"forced_close", s.forced_close},
               {"language_check",
                {{"thinking", s.thinking_language},
                 {"answer", s.answer_language},
                 {"reasoning_asked", s.reasoning_language},
                 {"right", s.language_right ? Json(*s.language_right) : Json()}}},
               {"reached", s.reached},
               {"n_hesitations", s.n_hesitations},
               {"reask", nullptr},
               {"extraction", nullptr},
               {"outcome",
                {{"class", class_of(s.outcome)},
                 {"termination", name_of(s.outcome.termination)},
                 {"degeneration", name_of(s.outcome.degeneration)},
                 {"correctness", name_of(s.outcome.correctness)},
                 {"loop_start", s.outcome.loop_start},
                 {"loop_period", s.outcome.loop_period}}},
               {"error", s.error},
               {"timings", {{"prefill_s", s.prefill_s}, {"decode_s", s.decode_s}}}};
  if (s.extraction) {
    json["extraction"] = {{"value", s.extraction->value},
                          {"rule", s.extraction->rule},
                          {"begin", s.extraction->begin},
                          {"end", s.extraction->end}};
    // Absent otherwise, so that records from before it was known keep their hash.
    if (s.extraction->per != 1) json["extraction"]["per"] = s.extraction->per;
  }
  if (s.draws)  // absent otherwise, likewise
    json["draws"] = {{"n", s.draws->n_drawn},
                     {"n_impossible", s.draws->n_impossible},
                     {"log_ratio", s.draws->log_ratio}};
  if (s.reask)
    json["reask"] = {{"ids", s.reask->ids},
                     {"answer", s.reask->answer},
                     {"correctness", name_of(s.reask->correctness)}};
  return json;
}

Result<Sample> parse_sample(const Json& json, std::string_view where) {
  Sample s;
  try {
    json.at("suite").get_to(s.suite);
    json.at("arm").get_to(s.arm);
    json.at("id").get_to(s.id);
    json.at("cluster").get_to(s.cluster);
    json.at("language").get_to(s.language);
    json.at("kind").get_to(s.kind);
    json.at("gated").get_to(s.gated);
    // Format 1 had none of the following.
    s.repeat = json.value("repeat", 0);
    const auto scoring = parse_scoring(json.value("scoring", "number"));
    if (!scoring) return fail("{}: unknown scoring {}", where, json.at("scoring").dump());
    s.scoring = *scoring;
    s.recipe = json.value("recipe", Json());
    s.prompt_hash = json.value("prompt_hash", "");
    s.forced_close = json.value("forced_close", false);
    s.reached = json.value("reached", false);
    s.n_hesitations = json.value("n_hesitations", 0);
    if (json.contains("language_check")) {
      const Json& check = json.at("language_check");
      check.at("thinking").get_to(s.thinking_language);
      check.at("answer").get_to(s.answer_language);
      check.at("reasoning_asked").get_to(s.reasoning_language);
      if (!check.at("right").is_null()) s.language_right = check.at("right").get<bool>();
    }
    if (json.contains("draws")) {
      const Json& draws = json.at("draws");
      s.draws = DrawFigures{draws.at("n").get<int>(), draws.at("n_impossible").get<int>(),
                            draws.at("log_ratio").get<std::map<std::string, double>>()};
    }
    if (json.contains("reask") && !json.at("reask").is_null()) {
      const Json& again = json.at("reask");
      const auto judged = parse_correctness(again.at("correctness").get_ref<const std::string&>());
      if (!judged) return fail("{}: unknown correctness of a re-ask", where);
      s.reask = Reask{again.at("ids").get<std::vector<int>>(),
                      again.at("answer").get<std::string>(), *judged};
    }
    json.at("question").get_to(s.question);
    json.at("prompt").get_to(s.prompt);
    json.at("prompt_ids").get_to(s.prompt_ids);
    s.n_prompt_tokens = json.value("n_prompt_tokens", static_cast<int>(s.prompt_ids.size()));
    json.at("expected").get_to(s.expected);
    json.at("ids").get_to(s.ids);
    json.at("finish").get_to(s.finish);
    json.at("thinking").get_to(s.thinking);
    json.at("answer").get_to(s.answer);
    json.at("n_thinking_tokens").get_to(s.n_thinking_tokens);
    json.at("n_stray_tags").get_to(s.n_stray_tags);
    json.at("error").get_to(s.error);
    if (const Json& e = json.at("extraction"); !e.is_null()) {
      s.extraction = Extraction{e.at("value").get<std::string>(), e.at("rule").get<std::string>(),
                                e.at("begin").get<std::size_t>(), e.at("end").get<std::size_t>(),
                                e.value("per", 1)};
      if (s.extraction->begin > s.extraction->end || s.extraction->end > s.answer.size())
        return fail("{}: the extraction's span lies outside the answer", where);
    }
    const Json& o = json.at("outcome");
    const auto termination = parse_termination(o.at("termination").get_ref<const std::string&>());
    const auto degeneration =
        parse_degeneration(o.at("degeneration").get_ref<const std::string&>());
    const auto correctness = parse_correctness(o.at("correctness").get_ref<const std::string&>());
    if (!termination || !degeneration || !correctness)
      return fail("{}: unknown outcome {}", where, o.dump());
    s.outcome = {*termination, *degeneration, *correctness, o.at("loop_start").get<int>(),
                 o.at("loop_period").get<int>()};
    json.at("timings").at("prefill_s").get_to(s.prefill_s);
    json.at("timings").at("decode_s").get_to(s.decode_s);
  } catch (const Json::exception& error) {
    return fail("{}: not a sample of this format: {}", where, error.what());
  }
  return s;
}

std::string hash_of(const std::vector<Sample>& samples) {
  Hasher hasher;
  for (const Sample& sample : samples) {
    Json json = to_json(sample);
    json.erase("timings");
    hasher.update(json.dump(-1, ' ', false, Json::error_handler_t::replace));
  }
  return hasher.hex();
}

}  // namespace assay::harness
