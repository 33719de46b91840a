#include "engine/text/corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/file.h"

namespace assay::text {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const std::string kModel = std::string(ASSAY_SOURCE_DIR) + "/golden/micro-glm/model";

TEST(Corpus, AChatBecomesPromptThinkingAndAnswer) {
  const auto tokenizer = Tokenizer::load(kModel + "/tokenizer.json");
  const auto chat_template = ChatTemplate::load(kModel);
  const auto line = parse_corpus_line(
      R"({"id":"a","lang":"ja","messages":[{"role":"user","content":"127×8は？"}],"reply":"127×8=1016</think>1016です。"})",
      "x");
  ASSERT_TRUE(line) << line.error().message;
  const auto t = tokenize(*line, *tokenizer, *chat_template);
  ASSERT_TRUE(t) << t.error().message;
  const auto text = [&](int from, int to) {
    return *tokenizer->decode(std::span(t->ids).subspan(static_cast<std::size_t>(from),
                                                        static_cast<std::size_t>(to - from)));
  };
  EXPECT_THAT(text(0, t->reply), AllOf(HasSubstr("127×8は？"), testing::EndsWith("<think>")));
  EXPECT_EQ(text(t->reply, t->answer), "127×8=1016</think>");
  EXPECT_EQ(text(t->answer, static_cast<int>(t->ids.size())), "1016です。");
  EXPECT_EQ(to_jsonl(*line).back(), '\n');
  EXPECT_EQ(parse_corpus_line(to_jsonl(*line), "y")->reply, line->reply);
}

TEST(Corpus, WithoutThinkingAllIsAnswerAndAPlainTextToo) {
  const auto tokenizer = Tokenizer::load(kModel + "/tokenizer.json");
  const auto chat_template = ChatTemplate::load(kModel);
  const auto direct = parse_corpus_line(
      R"({"messages":[{"role":"user","content":"1+1"}],"thinking":false,"reply":"2"})", "x");
  const auto t = tokenize(*direct, *tokenizer, *chat_template);
  EXPECT_EQ(t->answer, t->reply);
  EXPECT_THAT(*tokenizer->decode(std::span(t->ids).first(static_cast<std::size_t>(t->reply))),
              testing::EndsWith("</think>"));
  const auto plain = parse_corpus_line(R"({"text":"今日は晴れです。"})", "x");
  const auto p = tokenize(*plain, *tokenizer, *chat_template);
  EXPECT_EQ(p->reply, 1);
  EXPECT_EQ(p->answer, 1);
}

TEST(Corpus, BrokenLinesAreNamedByFileAndLine) {
  const fs::path path =
      fs::temp_directory_path() / fmt::format("assay-corpus-{}.jsonl", ::getpid());
  const auto error_of = [&](const std::string& text) {
    EXPECT_TRUE(write_file_atomic(path, text));
    const auto lines = read_corpus(path);
    return lines ? std::string() : lines.error().message;
  };
  EXPECT_THAT(error_of("{\"text\":\"a\"}\n\n{\"text\":"), HasSubstr(".jsonl:3"));
  EXPECT_THAT(error_of("{\"text\":\"a\"}\n[1]\n"), HasSubstr("jsonl:2: expected a JSON object"));
  EXPECT_THAT(error_of(" \n[\n{\"text\":\"a\"}]\n"),
              HasSubstr(".jsonl: one JSON array, expected one JSON object a line"));
  EXPECT_THAT(error_of("{\"lang\":\"ja\"}\n"),
              HasSubstr("either messages (with a reply) or a text that is not empty, got the keys "
                        "\"lang\""));
  EXPECT_THAT(error_of(R"({"messages":[{"role":"system","content":"a"},{"role":"user"}]})"),
              HasSubstr(".jsonl:1: message 1 has no content, expected a role and a content"));
  EXPECT_THAT(error_of("{\"text\":\"a\",\"messages\":[{}]}\n"), HasSubstr("either messages"));
  EXPECT_THAT(error_of("{\"messages\":\"hi\"}\n"), HasSubstr("not a list"));
  EXPECT_THAT(error_of("{\"text\":7}\n"), HasSubstr("text is not a string"));
  EXPECT_THAT(error_of("\n\n"), HasSubstr("no text in it"));
  EXPECT_EQ(error_of("{\"text\":\"a\"}\r\n"), "");
  fs::remove(path);
}

}  // namespace
}  // namespace assay::text
