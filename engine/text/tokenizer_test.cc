#include "engine/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "base/check.h"
#include "base/json.h"
#include "engine/text/chat_template.h"
#include "engine/text/unicode.h"

namespace assay::text {
namespace {

using ::testing::HasSubstr;

const std::string kGolden = std::string(ASSAY_SOURCE_DIR) + "/golden/micro-glm/";

const Tokenizer& micro_glm() {
  static const Tokenizer tokenizer = *Tokenizer::load(kGolden + "model/tokenizer.json");
  return tokenizer;
}

std::vector<int> encode(const std::string& text) {
  const auto ids = micro_glm().encode(text);
  CHECK(ids.has_value()) << ids.error().message;
  return *ids;
}

TEST(Tokenizer, EqualsTheOracleOnEveryString) {
  const Json records = *read_json(kGolden + "oracle/tokenizer.json.gz");
  ASSERT_EQ(records.size(), 240u);
  for (const Json& r : records) {
    EXPECT_EQ(encode(r["text"]), r["ids"].get<std::vector<int>>()) << r["text"].dump();
    EXPECT_EQ(*micro_glm().decode(r["ids"].get<std::vector<int>>()), r["text"].get<std::string>());
  }
}

TEST(Tokenizer, EqualsTheOracleOnEveryPromptAndReply) {
  const Json records = *read_json(kGolden + "oracle/continuations.json.gz");
  for (const Json& r : records) {
    EXPECT_EQ(encode(r["prompt"]), r["prompt_ids"].get<std::vector<int>>()) << r["group"];
    EXPECT_EQ(*micro_glm().decode(r["ids"].get<std::vector<int>>()), r["text"].get<std::string>());
  }
}

// Random text over planes that matter: ASCII, controls, combining marks, kana, han, emoji, private
// use.
std::string random_text(std::mt19937& rng) {
  constexpr std::pair<int, int> kRanges[] = {
      {0, 0x7F},        {0x80, 0x24F},      {0x300, 0x36F},     {0x2000, 0x206F},
      {0x3000, 0x30FF}, {0x4E00, 0x9FFF},   {0xAC00, 0xD7A3},   {0xE000, 0xF8FF},
      {0xFF00, 0xFFEF}, {0x1F300, 0x1FAFF}, {0x20000, 0x2A6DF}, {0x10FFF0, 0x10FFFF}};
  std::string out;
  const int n = static_cast<int>(rng() % 40);
  for (int i = 0; i < n; ++i) {
    const auto& [lo, hi] = kRanges[rng() % std::size(kRanges)];
    const unsigned c = static_cast<unsigned>(lo) + rng() % static_cast<unsigned>(hi - lo + 1);
    if (c < 0x80) {
      out += static_cast<char>(c);
    } else if (c < 0x800) {
      out += {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
    } else if (c < 0x10000) {
      out += {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 0x3F)),
              static_cast<char>(0x80 | (c & 0x3F))};
    } else {
      out += {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 0x3F)),
              static_cast<char>(0x80 | (c >> 6 & 0x3F)), static_cast<char>(0x80 | (c & 0x3F))};
    }
  }
  return out;
}

TEST(Tokenizer, RoundTripsRandomUnicode) {
  std::mt19937 rng(1);
  for (int i = 0; i < 3000; ++i) {
    const std::string text = random_text(rng);
    const auto ids = encode(text);
    ASSERT_EQ(*micro_glm().decode(ids), text) << "case " << i;
    StreamDecoder stream(micro_glm());
    std::string streamed;
    for (const int id : ids) {
      const std::string piece = stream.push(id);
      ASSERT_FALSE(first_invalid_utf8(piece).has_value()) << "half a character in case " << i;
      streamed += piece;
    }
    streamed += stream.finish();
    ASSERT_EQ(streamed, text) << "case " << i;
  }
}

TEST(Tokenizer, StreamedRubbishEqualsDecodedRubbish) {
  std::mt19937 rng(2);
  for (int i = 0; i < 2000; ++i) {
    std::vector<int> ids;
    for (int j = 0; j < 12; ++j)
      ids.push_back(static_cast<int>(rng() % 300));  // mostly single bytes: broken UTF-8
    StreamDecoder stream(micro_glm());
    std::string streamed;
    for (const int id : ids) {
      const std::string piece = stream.push(id);
      ASSERT_FALSE(first_invalid_utf8(piece).has_value());
      streamed += piece;
    }
    ASSERT_EQ(streamed + stream.finish(), *micro_glm().decode(ids));
  }
}

TEST(Tokenizer, SpecialTokensAreRecognisedUnlessAskedNot) {
  EXPECT_EQ(encode("<|user|>hi").front(), 3058);
  EXPECT_NE(micro_glm().encode("<|user|>hi", false)->front(), 3058);
  EXPECT_EQ(micro_glm().decode(encode("a<|user|>b"), true), "ab");
  EXPECT_EQ(micro_glm().id_of("</think>"), 3062);
  EXPECT_TRUE(micro_glm().is_special(3062));
}

TEST(Tokenizer, InvalidUtf8NamesTheByte) {
  const auto result = micro_glm().encode("abc\xff");
  ASSERT_FALSE(result.has_value());
  EXPECT_THAT(result.error().message, HasSubstr("byte 3"));
  EXPECT_FALSE(micro_glm().decode(std::vector<int>{99999}).has_value());
}

TEST(Tokenizer, ALongRunOfOneLetterIsNotQuadratic) {
  EXPECT_GT(encode(std::string(200'000, 'a')).size(),
            10'000u);  // seconds if each merge rescanned the word
}

// A byte-level vocabulary with "ab", "abc" and one added token.
Json tiny() {
  Json vocab = Json::object();
  const Json full = *read_json(kGolden + "model/tokenizer.json");
  for (const auto& [written, id] : full["model"]["vocab"].items())
    if (id.get<int>() < 256) vocab[written] = id;
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  return {
      {"added_tokens", {{{"id", 300}, {"content", "<x>"}, {"special", true}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b", "ab c"}}}}};
}

Result<Tokenizer> parse(const Json& json) {
  return Tokenizer::parse(json.dump(), "tokenizer.json");
}

TEST(Tokenizer, BothSpellingsOfMergesGiveTheSameIds) {
  Json pairs = tiny();
  pairs["model"]["merges"] = Json::parse(R"([["a", "b"], ["ab", "c"]])");
  const auto a = parse(tiny()), b = parse(pairs);
  ASSERT_TRUE(a.has_value()) << a.error().message;
  ASSERT_TRUE(b.has_value()) << b.error().message;
  EXPECT_EQ(*a->encode("abcab<x>c"), (std::vector<int>{257, 256, 300, b->encode("c")->front()}));
  EXPECT_EQ(*a->encode("abcab<x>c"), *b->encode("abcab<x>c"));
  EXPECT_FALSE(a->has(280)) << "ids may have gaps";
}

TEST(Tokenizer, ABrokenFileIsAnErrorThatNamesThePart) {
  const auto message = [](const std::function<void(Json&)>& change) {
    Json json = tiny();
    change(json);
    const auto result = parse(json);
    EXPECT_FALSE(result.has_value()) << json.dump().substr(0, 200);
    return result ? std::string() : result.error().message;
  };
  EXPECT_THAT(message([](Json& j) { j["model"]["type"] = "Unigram"; }), HasSubstr("Unigram"));
  EXPECT_THAT(message([](Json& j) {
                j["normalizer"] = {{"type", "NFC"}};
              }),
              HasSubstr("normalizer"));
  EXPECT_THAT(message([](Json& j) { j["model"].erase("vocab"); }), HasSubstr("vocab"));
  EXPECT_THAT(message([](Json& j) { j["model"]["vocab"]["abc"] = -1; }), HasSubstr("abc"));
  EXPECT_THAT(message([](Json& j) { j["model"]["vocab"]["abc"] = 1LL << 40; }), HasSubstr("abc"));
  EXPECT_THAT(message([](Json& j) { j["model"]["vocab"]["abc"] = 256; }), HasSubstr("256"));
  EXPECT_THAT(message([](Json& j) { j["model"]["vocab"].erase("!"); }), HasSubstr("0x21"));
  EXPECT_THAT(message([](Json& j) { j["model"]["merges"].push_back("q z"); }),
              HasSubstr("merge 2"));
  EXPECT_THAT(message([](Json& j) { j["model"]["merges"].push_back("qz"); }), HasSubstr("merge 2"));
  EXPECT_THAT(message([](Json& j) { j["added_tokens"][0]["lstrip"] = true; }), HasSubstr("lstrip"));
  EXPECT_THAT(message([](Json& j) { j["added_tokens"].push_back(j["added_tokens"][0]); }),
              HasSubstr("twice"));
  EXPECT_THAT(message([](Json& j) { j["pre_tokenizer"]["type"] = "Metaspace"; }),
              HasSubstr("Metaspace"));
  EXPECT_THAT(
      message([](Json& j) {
        j["pre_tokenizer"] = Json::parse(
            R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"(["},"behavior":"Isolated"},{"type":"ByteLevel","use_regex":false}]})");
      }),
      HasSubstr("regex"));
  EXPECT_THAT(Tokenizer::parse("{\"model\": ", "t.json").error().message, HasSubstr("t.json:1:"));
  EXPECT_THAT(Tokenizer::load("/nowhere/tokenizer.json").error().message,
              HasSubstr("/nowhere/tokenizer.json"));
}

// As cp -r makes of golden/micro-glm/vq-1.71.
TEST(Tokenizer, ALinkToNothingIsNotCalledAMissingFile) {
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / "link_to_no_tokenizer";
  std::filesystem::create_directories(folder);
  for (const char* name : {"tokenizer.json", "chat_template.jinja"}) {
    std::filesystem::remove(folder / name);
    std::filesystem::create_symlink(std::string("../model/") + name, folder / name);
  }
  EXPECT_THAT(Tokenizer::load(folder / "tokenizer.json").error().message,
              HasSubstr("tokenizer.json is a link to ../model/tokenizer.json, which is not there"));
  EXPECT_THAT(ChatTemplate::load(folder).error().message,
              HasSubstr("chat_template.jinja is a link to ../model/chat_template.jinja"));
}

}  // namespace
}  // namespace assay::text
