// Texts to read rather than to answer: calibration and divergence sets, one JSON object a line.
// Format: docs/formats/corpus.md.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace assay::text {

// One line: a chat with the reply that was given, or a plain text.
struct CorpusLine {
  std::string id, lang, kind;
  OrderedJson messages;  // null for a plain text
  bool thinking = true;
  std::string reply;  // what followed the generation prompt: "reasoning</think>answer"
  std::string text;   // plain text
};

Result<CorpusLine> parse_corpus_line(std::string_view json, std::string_view source);
// Blank lines are skipped; a broken one is an error with its number, as is a file without any.
Result<std::vector<CorpusLine>> read_corpus(const std::filesystem::path& path);
std::string to_jsonl(const CorpusLine& line);

// The same as token ids: [0, reply) prompt, [reply, answer) reasoning with its </think>,
// [answer, end) answer. A plain text is all answer but its first token, which nothing predicts.
struct CorpusText {
  std::string id, lang;
  std::vector<int> ids;
  int reply = 0, answer = 0;
};
Result<CorpusText> tokenize(const CorpusLine& line, const Tokenizer& tokenizer,
                            const ChatTemplate& chat_template);
// The generation prompt alone.
Result<std::vector<int>> prompt_ids(const CorpusLine& line, const Tokenizer& tokenizer,
                                    const ChatTemplate& chat_template);

}  // namespace assay::text
