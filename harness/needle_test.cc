#include "harness/needle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "base/file.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace assay::harness {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const fs::path kSource = ASSAY_SOURCE_DIR;
constexpr NeedleKind kKinds[] = {NeedleKind::kSingle,     NeedleKind::kMultiKey,
                                 NeedleKind::kMultiValue, NeedleKind::kMultiQuery,
                                 NeedleKind::kVariable,   NeedleKind::kAbsent};

const NeedleTables& tables() {
  static const NeedleTables loaded = [] {
    const fs::path path = kSource / "suites/needle/tables.json";
    auto parsed = parse_needle_tables(*read_file(path), "tables.json");
    if (!parsed) throw std::runtime_error(parsed.error().message);
    return *std::move(parsed);
  }();
  return loaded;
}

// The bundled model's tokenizer and chat template, counting what they are asked.
struct Counter {
  text::Tokenizer tokenizer =
      *text::Tokenizer::load(kSource / "golden/micro-glm/model/tokenizer.json");
  text::ChatTemplate chat = *text::ChatTemplate::load(kSource / "golden/micro-glm/model");
  std::size_t n_calls = 0, n_bytes = 0;

  std::vector<int> ids(const OrderedJson& messages) {
    text::ChatOptions options;
    options.enable_thinking = true;
    const std::string prompt = *chat.render(messages, options);
    ++n_calls;
    n_bytes += prompt.size();
    return *tokenizer.encode(prompt);
  }
  CountTokens count() {
    return [this](const OrderedJson& messages) -> Result<int> {
      return static_cast<int>(ids(messages).size());
    };
  }
  int tokens(std::string_view text) { return static_cast<int>(tokenizer.encode(text)->size()); }
};

Counter& counter() {
  static Counter only;
  return only;
}

NeedleRecipe recipe_of(NeedleKind kind, const std::string& language, int n_tokens, double depth,
                       std::uint64_t seed = 1) {
  return {kind, language, language, language, n_tokens, depth, seed};
}

std::string content(const OrderedJson& messages) { return messages[0]["content"]; }

std::string built(const NeedleRecipe& recipe) {
  const auto prompt = build_needle(recipe, tables(), counter().count());
  return prompt ? content(prompt->messages) : prompt.error().message;
}

std::size_t occurrences(std::string_view text, std::string_view part) {
  std::size_t n = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string_view::npos; ++at) ++n;
  return n;
}

TEST(Needle, EveryKindLanguageAndLengthHasExactlyItsTokens) {
  for (const NeedleKind kind : kKinds)
    for (const char* language : {"ja", "en", "zh"})
      for (const int n_tokens : {512, 1024, 4096, 16384}) {
        const NeedleRecipe recipe = recipe_of(kind, language, n_tokens, 0.5, 7);
        const auto prompt = build_needle(recipe, tables(), counter().count());
        ASSERT_TRUE(prompt) << prompt.error().message << recipe.to_json();
        EXPECT_EQ(counter().ids(prompt->messages).size(), n_tokens) << recipe.to_json();
      }
}

TEST(Needle, AnExactFitReadsTheLongTextFewTimes) {
  for (const char* language : {"ja", "en", "zh"}) {
    counter().n_bytes = counter().n_calls = 0;
    const std::string text = built(recipe_of(NeedleKind::kMultiKey, language, 16384, 0.3));
    EXPECT_LT(counter().n_bytes, 12 * text.size()) << language << " " << counter().n_calls;
  }
}

TEST(Needle, TheSameRecipeMakesTheSamePromptAndAnotherSeedAnother) {
  const NeedleRecipe recipe = recipe_of(NeedleKind::kSingle, "ja", 1024, 0.5);
  EXPECT_EQ(built(recipe), built(recipe));
  EXPECT_NE(built(recipe), built(recipe_of(NeedleKind::kSingle, "ja", 1024, 0.5, 2)));
}

TEST(Needle, AReAskSharesEveryByteUpToTheQuestionAndUsesOtherWords) {
  for (const NeedleKind kind : kKinds)
    for (const char* language : {"ja", "en", "zh"}) {
      const auto prompt =
          build_needle(recipe_of(kind, language, 512, 0.5), tables(), counter().count());
      ASSERT_TRUE(prompt) << prompt.error().message;
      const std::string first = content(prompt->messages), second = content(prompt->reask);
      EXPECT_EQ(first.substr(0, prompt->shared_bytes), second.substr(0, prompt->shared_bytes));
      EXPECT_EQ(first.substr(prompt->shared_bytes), prompt->question);
      EXPECT_EQ(second.substr(prompt->shared_bytes), prompt->reask_question);
      EXPECT_NE(prompt->question, prompt->reask_question);
    }
}

TEST(Needle, TheAskedNeedleBeginsAtItsDepthWithinASentence) {
  for (const char* language : {"ja", "en", "zh"})
    for (const double depth : {0.0, 0.1, 0.25, 0.5, 0.9, 1.0}) {
      const auto prompt = build_needle(recipe_of(NeedleKind::kSingle, language, 2048, depth),
                                       tables(), counter().count());
      ASSERT_TRUE(prompt) << prompt.error().message;
      const std::string text = content(prompt->messages);
      // From the introduction's blank line to the question's.
      const std::size_t begin = text.find("\n\n") + 2;
      const std::size_t end = text.rfind("\n\n");
      const std::size_t value = text.find(prompt->truth.expected[0]);
      const double share =
          static_cast<double>(counter().tokens(text.substr(begin, value - begin))) /
          counter().tokens(text.substr(begin, end - begin));
      constexpr double kSentence = 50.0 / 2048;  // the longest one, about
      EXPECT_NEAR(share, depth, kSentence) << language;
      EXPECT_NEAR(prompt->shares[0], share, kSentence) << language;
    }
}

TEST(Needle, ValuesAndAskedKeysStandInTheTextOnceAndAbsentKeysNever) {
  for (std::uint64_t seed = 1; seed <= 6; ++seed)
    for (const NeedleKind kind : kKinds)
      for (const char* language : {"ja", "en", "zh"}) {
        const auto prompt =
            build_needle(recipe_of(kind, language, 512, 0.5, seed), tables(), counter().count());
        ASSERT_TRUE(prompt) << prompt.error().message;
        const std::string text = content(prompt->messages).substr(0, prompt->shared_bytes);
        const NeedleTruth& truth = prompt->truth;
        for (const auto* list : {&truth.expected, &truth.forbidden})
          for (const std::string& value : *list) EXPECT_EQ(occurrences(text, value), 1U) << text;
        EXPECT_EQ(truth.expected.empty(), kind == NeedleKind::kAbsent);
        EXPECT_EQ(prompt->shares.size(), kind == NeedleKind::kVariable
                                             ? 4U
                                             : truth.expected.size() + truth.forbidden.size());
      }
}

TEST(Needle, AVariableIsDefinedBeforeItIsCopied) {
  const auto prompt =
      build_needle(recipe_of(NeedleKind::kVariable, "en", 1024, 0.2), tables(), counter().count());
  ASSERT_TRUE(prompt);
  EXPECT_LT(prompt->shares[0], prompt->shares[1]);
  EXPECT_LT(prompt->shares[1], prompt->shares[2]);
  EXPECT_EQ(occurrences(content(prompt->messages), "= VAR "), 2U);
}

TEST(Needle, LanguagesOfAClusterShareTheirValuesAndCross) {
  NeedleRecipe recipe = recipe_of(NeedleKind::kMultiValue, "en", 600, 0.5);
  const auto english = build_needle(recipe, tables(), counter().count());
  recipe.haystack_language = "zh";
  recipe.needle_language = recipe.question_language = "ja";
  const auto crossed = build_needle(recipe, tables(), counter().count());
  ASSERT_TRUE(english && crossed);
  EXPECT_EQ(english->truth.expected, crossed->truth.expected);
  EXPECT_THAT(crossed->question, HasSubstr("すべて答えてください"));
  EXPECT_THAT(content(crossed->messages), HasSubstr("人们"));
}

TEST(Needle, ALengthThatCannotHoldTheQuestionIsAnError) {
  EXPECT_THAT(built(recipe_of(NeedleKind::kMultiKey, "en", 60, 0.5)),
              HasSubstr("introduction, needles and question alone take"));
}

// ------------------------------------------------------------------------------ own text ---------

std::string story(int n) {
  std::string out;
  for (int i = 0; i < n; ++i)
    out += fmt::format("Chapter {} of the {} begins{}. ", i, i % 7 == 0 ? "old story" : "book",
                       std::string(static_cast<std::size_t>(i % 5), '!')) +
           (i % 4 == 3 ? "\n\n" : "");
  return out;
}

TEST(NeedleOwnText, IsCutAtSentencesAndLineEnds) {
  const auto english = split_sentences("One. Two is 3.5 long!\nA heading\n\nEnd", "en", "x.txt");
  ASSERT_TRUE(english) << english.error().message;
  std::vector<std::string> texts, gaps;
  for (const NeedleSentence& each : *english) {
    texts.push_back(each.text);
    gaps.push_back(each.gap);
  }
  EXPECT_THAT(texts, ElementsAre("One.", "Two is 3.5 long!", "A heading", "End"));
  EXPECT_THAT(gaps, ElementsAre(" ", "\n", "\n\n", ""));
  EXPECT_EQ(split_sentences("雨が降る。「本当か？」と言った。\n終わり。", "ja", "x.txt")->size(),
            4U);
  EXPECT_THAT(split_sentences(" \n ", "ja", "x.txt").error().message, HasSubstr("x.txt"));
  EXPECT_THAT(split_sentences("a\xff", "ja", "x.txt").error().message, HasSubstr("byte 1"));
}

TEST(NeedleOwnText, IsFittedExactlyAndNoSentenceComesTwice) {
  const auto text = split_sentences(story(200), "en", "x.txt");
  ASSERT_TRUE(text);
  for (const std::uint64_t seed : {1, 2, 3}) {
    const auto prompt = build_needle(recipe_of(NeedleKind::kSingle, "en", 1500, 0.5, seed),
                                     tables(), counter().count(), &*text);
    ASSERT_TRUE(prompt) << prompt.error().message;
    EXPECT_EQ(counter().ids(prompt->messages).size(), 1500U);
    const std::string built_text = content(prompt->messages);
    for (int i = 0; i < 200; ++i)
      EXPECT_LE(occurrences(built_text, fmt::format("Chapter {} of", i)), 1U);
  }
}

TEST(NeedleOwnText, ThatIsTooShortSaysWhatItHasAndWhatItNeeds) {
  const auto text = split_sentences(story(20), "en", "x.txt");
  const auto prompt = build_needle(recipe_of(NeedleKind::kSingle, "en", 4096, 0.5), tables(),
                                   counter().count(), &*text);
  ASSERT_FALSE(prompt);
  EXPECT_THAT(prompt.error().message, HasSubstr("too short: it has"));
  EXPECT_THAT(prompt.error().message, HasSubstr("4096"));
}

TEST(NeedleOwnText, DoesNotHoldADrawnValueByChance) {
  const NeedleRecipe recipe = recipe_of(NeedleKind::kSingle, "en", 1500, 0.5);
  const auto built_on = [&](const std::string& text) {
    const auto sentences = split_sentences(text, "en", "x.txt");
    return build_needle(recipe, tables(), counter().count(), &*sentences);
  };
  const auto first = built_on(story(200));
  ASSERT_TRUE(first);
  const auto second = built_on(story(200) + "It cost " + first->truth.expected[0] + " coins.");
  ASSERT_TRUE(second);
  EXPECT_NE(first->truth.expected, second->truth.expected);
}

// ------------------------------------------------------------------------------ scorer -----------

std::string judged(std::string_view answer, const NeedleTruth& truth) {
  return std::string(name_of(judge_needle(answer, truth, tables()).correctness));
}

TEST(NeedleScore, AValueMustStandAsANumberOfItsOwn) {
  const NeedleTruth truth = {{"38216"}, {"55012"}};
  for (const char* right :
       {"38216", "The secret code for Montford is 38216.", "青葉町の秘密のコードは「38216」です。",
        "青溪镇的秘密代码是“38216”。", "３８２１６です", "**38,216**", "38，216です",
        "\\boxed{38216}", "It is 38216 (found in paragraph 12, line 3).", "密码：38216！",
        "- 38216", "code=38216", "38216\n", "In 2024 it was 38216.", "`38216`", "$38216$",
        "38216、38216", "No.38216.Done"})
    EXPECT_EQ(judged(right, truth), "correct") << right;
  for (const char* wrong :
       {"38216, 738216", "738216", "382160", "3 38216 55012", "55012", "55012ではなく38216です",
        "38216.5", "x38216", "AB-38216", "38216-7", "1382161", "3821", "38216または98765",
        "38216 或 7382169", "３８２１６７", "138,216", "文章に書かれていません。", "738，216",
        "0.38216"})
    EXPECT_EQ(judged(wrong, truth), "wrong") << wrong;
  for (const char* none : {"", "I am not sure.", "三万八千二百十六", "……"})
    EXPECT_EQ(judged(none, truth), "unextractable") << none;
}

TEST(NeedleScore, EveryValueCountsInAnyOrder) {
  const NeedleTruth truth = {{"38216", "7161903"}, {}};
  EXPECT_EQ(judged("7161903、38216", truth), "correct");
  EXPECT_EQ(judged("38,216 and 7,161,903", truth), "correct");
  EXPECT_EQ(judged("38216,7161903", truth), "correct");
  EXPECT_EQ(judged("38216", truth), "wrong");
  EXPECT_EQ(judge_needle("38216", truth, tables()).reason, "7161903 is missing");
}

TEST(NeedleScore, SaysWhichBytesDecided) {
  const std::string answer = "コードは３８２１６です";
  const auto right = judge_needle(answer, {{"38216"}, {}}, tables());
  ASSERT_EQ(right.spans.size(), 1U);
  EXPECT_EQ(answer.substr(right.spans[0].begin, right.spans[0].end - right.spans[0].begin),
            "３８２１６");
  const auto wrong = judge_needle("38216, 738216", {{"38216"}, {}}, tables());
  ASSERT_EQ(wrong.spans.size(), 1U);
  EXPECT_EQ(wrong.spans[0].begin, 7U);
  EXPECT_EQ(wrong.reason, "738216 was not asked for");
}

TEST(NeedleScore, AnAbsentValueMustBeDeniedInAnyLanguageAndNotInvented) {
  const NeedleTruth truth = {{}, {"55012"}};
  for (const char* right :
       {"The secret code for Ashden is not in the text.", "The text doesn’t mention it.",
        "青葉町の秘密のコードは文章に書かれていません。", "該当する記載は見当たりません。",
        "文中没有青溪镇的秘密代码。", "未提及", "There is no such code among the 12 paragraphs."})
    EXPECT_EQ(judged(right, truth), "correct") << right;
  for (const char* wrong : {"55012", "It is not in the text, but maybe 55012.", "98765です"})
    EXPECT_EQ(judged(wrong, truth), "wrong") << wrong;
  EXPECT_EQ(judged("Good question!", truth), "unextractable");
}

// ------------------------------------------------------------------------------ tables -----------

TEST(NeedleTables, EveryBundledListIsThereInThreeLanguages) {
  EXPECT_EQ(tables().languages.size(), 3U);
  for (const auto& [name, language] : tables().languages) {
    EXPECT_EQ(language.haystack.templates.size(), 20U) << name;
    EXPECT_EQ(language.attributes.size(), 10U) << name;
  }
}

TEST(NeedleTables, SayWhatIsWrongAndWhere) {
  const Json good = *parse_json(*read_file(kSource / "suites/needle/tables.json"), "t");
  const auto message = [&](const char* pointer, const Json& value) {
    Json bad = good;
    bad[Json::json_pointer(pointer)] = value;
    const auto parsed = parse_needle_tables(bad.dump(), "t.json");
    return parsed ? "" : parsed.error().message;
  };
  EXPECT_EQ(message("/format", 1), "");
  EXPECT_THAT(message("/format", 2), HasSubstr("t.json: 'format' must be"));
  EXPECT_THAT(message("/value_digits", {2}), HasSubstr("from 4 to 15, got 2"));
  EXPECT_THAT(message("/value_digits", Json::array()), HasSubstr("non-empty list"));
  EXPECT_THAT(message("/gaps/0", "x"), HasSubstr("white space"));
  EXPECT_THAT(message("/variable/letters", "ABC"), HasSubstr("at least 8 different capitals"));
  EXPECT_THAT(message("/variable/define", "VAR {name}"), HasSubstr("{name} {value}, got {name}"));
  EXPECT_THAT(message("/languages/en/needles/0", "The {attribute} is {value}."),
              HasSubstr("languages.en.needles"));
  EXPECT_THAT(message("/languages/en/haystack/templates/0", "{person} saw {unicorn}."),
              HasSubstr("'vocabulary' has no 'unicorn'"));
  EXPECT_THAT(message("/languages/en/haystack/templates/0", "{person saw."),
              HasSubstr("brace without its other half"));
  EXPECT_THAT(message("/languages/ja/questions/key/reask/0",
                      good["languages"]["ja"]["questions"]["key"]["ask"][0]),
              HasSubstr("a re-ask must use other words"));
  EXPECT_THAT(message("/languages/zh/attributes", {"密码"}), HasSubstr("in every language"));
  EXPECT_THAT(message("/languages/en/join", "-"), HasSubstr("'join' must be"));
  EXPECT_THAT(message("/languages/fr", Json::object()), HasSubstr("unknown language"));
  EXPECT_THAT(message("/colour", 1), HasSubstr("unknown key 'colour'"));
}

TEST(NeedleTables, ALanguageThatIsNotThereIsAnError) {
  NeedleTables part = tables();
  part.languages.erase("zh");
  const auto prompt =
      build_needle(recipe_of(NeedleKind::kSingle, "zh", 512, 0), part, counter().count());
  ASSERT_FALSE(prompt);
  EXPECT_THAT(prompt.error().message, HasSubstr("no language 'zh', only en, ja"));
}

// ------------------------------------------------------------------------------ cases ------------

Json params() {
  return *parse_json(R"({"name": "needle", "seed": 1, "tables": "tables.json", "grids": [
    {"profile": "ci", "kinds": ["single", "absent"], "languages": ["ja", "en.en.ja"],
     "lengths": [1024, 4096], "depths": [0, 50]},
    {"profile": "quick", "kinds": ["single"], "languages": ["ja"], "lengths": [1024],
     "depths": [50]},
    {"profile": "full", "kinds": ["single"], "languages": ["ja"], "lengths": [1024],
     "depths": [50], "repeats": 2, "gated": false}]})",
                     "p");
}

TEST(NeedleCases, AGridIsItsProductAndACaseBelongsToItsSmallestProfile) {
  const auto cases = expand_needle_cases(params(), "s");
  ASSERT_TRUE(cases) << cases.error().message;
  EXPECT_EQ(cases->size(), 2U * 2 * 2 * 2 + 1);
  std::set<std::string> ids;
  for (const NeedleCase& c : *cases) ids.insert(c.id);
  EXPECT_EQ(ids.size(), cases->size());
  EXPECT_EQ(cases->front().id, "single-ja-1024-d50-r1");
  EXPECT_EQ(cases->front().profile, Profile::kQuick);
  EXPECT_EQ(cases->back().id, "single-ja-1024-d50-r2");
  EXPECT_EQ(cases->back().profile, Profile::kFull);
  EXPECT_FALSE(cases->back().gated);
  EXPECT_TRUE(cases->front().gated);
}

TEST(NeedleCases, LanguagesOfOneProblemShareClusterAndSeed) {
  const auto cases = expand_needle_cases(params(), "s");
  ASSERT_TRUE(cases);
  const auto find = [&](std::string_view id) {
    return *std::find_if(cases->begin(), cases->end(),
                         [&](const NeedleCase& c) { return c.id == id; });
  };
  const NeedleCase straight = find("single-ja-4096-d0-r1"),
                   crossed = find("single-en.en.ja-4096-d0-r1");
  EXPECT_EQ(straight.cluster, "single-4096-d0-r1");
  EXPECT_EQ(straight.cluster, crossed.cluster);
  EXPECT_EQ(straight.recipe.seed, crossed.recipe.seed);
  EXPECT_EQ(crossed.language, "ja");
  EXPECT_EQ(crossed.recipe.haystack_language, "en");
  EXPECT_NE(straight.recipe.seed, find("single-ja-1024-d0-r1").recipe.seed);
}

TEST(NeedleCases, ARecipeComesBackFromItsJson) {
  const auto cases = expand_needle_cases(params(), "s");
  ASSERT_TRUE(cases);
  for (const NeedleCase& c : *cases) {
    const Json json = c.recipe.to_json();
    const auto back = NeedleRecipe::parse(*parse_json(json.dump(), "r"), "r");
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(back->to_json(), json);
  }
  Json bad = cases->front().recipe.to_json();
  bad["depth"] = 1.5;
  EXPECT_THAT(NeedleRecipe::parse(bad, "r").error().message, HasSubstr("'depth' must be a number"));
}

TEST(NeedleCases, SayWhichParameterIsWrong) {
  const auto message = [&](const char* pointer, const Json& value) {
    Json bad = params();
    bad[Json::json_pointer(pointer)] = value;
    const auto cases = expand_needle_cases(bad, "suite.json: generator");
    return cases ? "" : cases.error().message;
  };
  EXPECT_EQ(message("/seed", 5), "");
  EXPECT_THAT(message("/name", "haystack"), HasSubstr("must be \"needle\""));
  EXPECT_THAT(message("/seed", -1), HasSubstr("'seed'"));
  EXPECT_THAT(message("/grids", Json::array()), HasSubstr("'grids' must be a non-empty list"));
  EXPECT_THAT(message("/grids/0/kinds", {"singel"}), HasSubstr("Did you mean 'single'?"));
  EXPECT_THAT(message("/grids/0/profile", "daily"), HasSubstr("grids[0]: unknown profile"));
  EXPECT_THAT(message("/grids/1/languages", {"ja.en"}), HasSubstr("haystack.needle.question"));
  EXPECT_THAT(message("/grids/1/languages", {"fr"}), HasSubstr("unknown language 'fr'"));
  EXPECT_THAT(message("/grids/0/lengths", {16}), HasSubstr("'lengths' must be a whole number"));
  EXPECT_THAT(message("/grids/0/depths", {101}), HasSubstr("from 0 to 100, got 101"));
  EXPECT_THAT(message("/grids/0/depths", {0.5}), HasSubstr("got 0.5"));
  EXPECT_THAT(message("/grids/0/repeats", 0), HasSubstr("'repeats'"));
  EXPECT_THAT(message("/grids/0/depth", 0), HasSubstr("unknown key 'depth'"));
  EXPECT_THAT(message("/texts", {{"fr", "x.txt"}}), HasSubstr("unknown key 'fr'"));
}

// Every profile of the bundled suite can be built; its quick one is small.
TEST(NeedleCases, TheBundledSuiteExpands) {
  const Json suite = *read_json(kSource / "suites/needle/suite.json");
  const auto cases = expand_needle_cases(suite["generator"], "suite.json: generator");
  ASSERT_TRUE(cases) << cases.error().message;
  const auto n_of = [&](Profile profile) {
    return std::count_if(cases->begin(), cases->end(),
                         [&](const NeedleCase& c) { return c.profile == profile; });
  };
  EXPECT_EQ(n_of(Profile::kQuick), 30);
  for (const Profile profile : {Profile::kCi, Profile::kNightly, Profile::kFull})
    EXPECT_GT(n_of(profile), 30);
  for (const NeedleCase& c : *cases) {
    if (c.recipe.n_tokens > 1024) continue;
    const auto prompt = build_needle(c.recipe, tables(), counter().count());
    ASSERT_TRUE(prompt) << c.id << ": " << prompt.error().message;
  }
}

TEST(NeedleCases, NameTheFilesTheyNeed) {
  Json with_text = params();
  with_text["texts"] = {{"ja", "kokoro.txt"}};
  const auto files = needle_files(with_text, "s");
  ASSERT_TRUE(files);
  EXPECT_EQ(files->tables, "tables.json");
  EXPECT_EQ(files->texts.at("ja"), "kokoro.txt");
}

}  // namespace
}  // namespace assay::harness
