#include "harness/cli/calibration_texts.h"

#include "engine/text/chat_template.h"
#include "engine/text/corpus.h"
#include "engine/text/tokenizer.h"

namespace assay::cli {

std::string default_calibration(const std::string& recipe) {
  return std::string(ASSAY_GOLDEN_DIR) + "/micro-glm/calibration/" +
         (recipe == "arith-1.86" ? "arith" : "ja") + ".jsonl.gz";
}

Result<std::vector<engine::CalibrationText>> read_calibration(const std::string& file,
                                                              const fs::path& model, int limit) {
  ASSAY_TRY(const std::vector<text::CorpusLine> lines, text::read_corpus(file));
  ASSAY_TRY(const text::Tokenizer tokenizer, text::Tokenizer::load(model / "tokenizer.json"));
  ASSAY_TRY(const text::ChatTemplate chat_template, text::ChatTemplate::load(model));
  std::vector<engine::CalibrationText> out;
  for (const text::CorpusLine& line : lines) {
    if (limit > 0 && static_cast<int>(out.size()) == limit) break;
    if (!line.messages.is_null() && line.reply.empty())
      return fail(
          "{}: text {}: messages without a reply, which make a prompt list: answer them with assay "
          "calibrate first",
          file, line.id);
    auto t = text::tokenize(line, tokenizer, chat_template);
    if (!t) return fail("{}: text {}: {}", file, line.id, t.error().message);
    out.push_back({line.lang.empty() ? "?" : line.lang, std::move(t->ids), t->reply});
  }
  return out;
}

}  // namespace assay::cli
