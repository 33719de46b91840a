#include "base/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/json_line.h"

namespace assay {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::string error_of(std::string_view text) {
  const auto json = parse_json(text, "suite.json");
  return json ? "no error" : json.error().message;
}

TEST(Json, ErrorsNameLineAndColumn) {
  EXPECT_THAT(error_of("{\n  \"a\": 1,\n  oops\n}"), StartsWith("suite.json:3:3: not valid JSON"));
  EXPECT_THAT(error_of("[1,]"), StartsWith("suite.json:1:4: not valid JSON"));
  EXPECT_THAT(error_of("{\"a\": 1\n\n"), StartsWith("suite.json:3:1: not valid JSON"));
  EXPECT_THAT(error_of(""), StartsWith("suite.json:1:1: not valid JSON"));
  EXPECT_THAT(error_of("{\"a\": 1\n\n"),
              HasSubstr(". The file ends there, as one that was cut off"));
  EXPECT_THAT(error_of("[1,]"), Not(HasSubstr("cut off")));
}

TEST(Json, AKeyThatStandsThereTwiceHasAPath) {
  EXPECT_EQ(repeated_key(R"({"a": 1, "b": {"a": 2}, "c": [{"a": 1}, {"a": 1}]})"), "");
  EXPECT_EQ(repeated_key(R"({"a": 1, "b": 2, "a": 1})"), "a");
  EXPECT_EQ(repeated_key(R"({"x": {"a": 1, "\u0061": 2}})"), "x.a") << "however it is written";
  EXPECT_EQ(repeated_key("[1, \"a\", \"a\"]"), "");
  EXPECT_EQ(repeated_key("{\"a\": "), "") << "whoever parses it says so";
}

// "set.jsonl:3:1:4" would read as two lines.
TEST(Json, ErrorsOfALineNameItOnce) {
  const auto json = parse_json_line("[1,]", "set.jsonl:3");
  ASSERT_FALSE(json);
  EXPECT_THAT(json.error().message, StartsWith("set.jsonl:3:4: not valid JSON"));
  EXPECT_THAT(parse_ordered_json_line("", "set.jsonl:3").error().message,
              StartsWith("set.jsonl:3:1: not valid JSON"));
}

TEST(Json, NoInputEscapesAsAnException) {
  // Numbers beyond a double are reported by the library as another kind of exception.
  EXPECT_THAT(error_of("[1,\n 1e999]"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of("\"\xFF\""), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of("\"\\ud800\""), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of(std::string("{\"a\":\0 1}", 9)), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of(std::string(100'000, '[')), HasSubstr("not valid JSON"));
}

// Printing and copying a value recurse: what parses must be safe to do both with.
TEST(Json, DeepNestingIsRefused) {
  const auto nested = [](std::size_t n) { return std::string(n, '[') + std::string(n, ']'); };
  EXPECT_EQ(error_of(nested(200)), "no error");
  EXPECT_THAT(error_of(nested(1 << 20)),
              HasSubstr("suite.json: not valid JSON: nested deeper than 256"));
  std::string objects;
  for (int i = 0; i < 1000; ++i) objects += "{\"a\":";
  EXPECT_THAT(error_of(objects), HasSubstr("nested deeper"));
  EXPECT_EQ(error_of("\"" + std::string(1000, '[') + "\\\"" + std::string(1000, '{') + "\""),
            "no error")
      << "brackets in a string nest nothing";
}

TEST(Json, TrailingTextIsAnError) { EXPECT_THAT(error_of("{} {}"), StartsWith("suite.json:1:4")); }

TEST(Json, OrderedKeepsTheFilesOrderOfKeys) {
  const auto json = parse_ordered_json(R"({"z": 1, "a": 2})", "c");
  ASSERT_TRUE(json);
  EXPECT_EQ(json->dump(), R"({"z":1,"a":2})");
}

TEST(Json, AMissingFileIsNamed) {
  const auto json = read_json("/no/such/folder/config.json");
  ASSERT_FALSE(json);
  EXPECT_THAT(json.error().message, HasSubstr("/no/such/folder/config.json"));
}

}  // namespace
}  // namespace assay
