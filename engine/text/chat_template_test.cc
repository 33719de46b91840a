#include "engine/text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/check.h"
#include "base/file.h"

namespace assay::text {
namespace {

using ::testing::HasSubstr;

const std::string kGolden = std::string(ASSAY_SOURCE_DIR) + "/golden/micro-glm/";

const ChatTemplate& glm() {
  static const ChatTemplate chat = *ChatTemplate::load(kGolden + "model");
  return chat;
}

std::string render(const char* messages, const ChatOptions& options = {}) {
  const auto text = glm().render(OrderedJson::parse(messages), options);
  CHECK(text.has_value()) << text.error().message;
  return *text;
}

std::string error_of(const char* messages, const ChatOptions& options = {}) {
  const auto text = glm().render(OrderedJson::parse(messages), options);
  EXPECT_FALSE(text.has_value()) << *text;
  return text ? "" : text.error().message;
}

TEST(ChatTemplate, EqualsEveryRenderingOfTheOracle) {
  const auto text = read_file(kGolden + "oracle/chat_template.json");
  const OrderedJson records = OrderedJson::parse(*text);
  ASSERT_EQ(records.size(), 13u);
  for (const OrderedJson& r : records) {
    const OrderedJson& o = r["options"];
    ChatOptions options{.add_generation_prompt = o.value("add_generation_prompt", false),
                        .enable_thinking = {},
                        .reasoning_effort = {},
                        .clear_thinking = {},
                        .tools = {}};
    for (const auto& [key, value] : o.items()) {
      if (key == "enable_thinking")
        options.enable_thinking = value.get<bool>();
      else if (key == "reasoning_effort")
        options.reasoning_effort = value.get<std::string>();
      else if (key == "clear_thinking")
        options.clear_thinking = value.get<bool>();
      else if (key == "tools")
        options.tools = value;
      else
        ASSERT_EQ(key, "add_generation_prompt") << "an option that this test does not know";
    }
    const auto rendered = glm().render(r["messages"], options);
    ASSERT_TRUE(rendered.has_value()) << rendered.error().message;
    EXPECT_EQ(*rendered, r["text"].get<std::string>()) << o.dump();
  }
}

TEST(ChatTemplate, IsRecognisedByContentAndNothingElse) {
  const std::string jinja = *read_file(kGolden + "model/chat_template.jinja");
  EXPECT_EQ(ChatTemplate::recognise(jinja + "\n\n", "t")->family(), "glm-5.2");
  const auto changed = ChatTemplate::recognise(jinja + "{{ 'x' }}", "t.jinja");
  ASSERT_FALSE(changed.has_value());
  EXPECT_THAT(changed.error().message, HasSubstr("Supported: glm-5.2"));
  EXPECT_THAT(ChatTemplate::load("/nowhere").error().message, HasSubstr("/nowhere"));
}

TEST(ChatTemplate, ReasoningOfOldTurnsIsDroppedUnlessKept) {
  const char* history =
      R"([{"role":"user","content":"a"},{"role":"assistant","content":"<think>why</think>  b "},{"role":"user","content":"c"}])";
  EXPECT_EQ(render(history),
            "[gMASK]<sop><|system|>Reasoning Effort: "
            "Max<|user|>a<|assistant|><think></think>b<|user|>c<|assistant|><think>");
  EXPECT_EQ(
      render(history,
             {.enable_thinking = {}, .reasoning_effort = {}, .clear_thinking = false, .tools = {}}),
      "[gMASK]<sop><|system|>Reasoning Effort: "
      "Max<|user|>a<|assistant|><think>why</think>b<|user|>c<|assistant|><think>");
  EXPECT_EQ(
      render(
          R"([{"role":"user","content":"a"},{"role":"assistant","reasoning_content":"r","content":"b"}])",
          {.add_generation_prompt = false,
           .enable_thinking = {},
           .reasoning_effort = {},
           .clear_thinking = {},
           .tools = {}}),
      "[gMASK]<sop><|system|>Reasoning Effort: Max<|user|>a<|assistant|><think>r</think>b");
}

TEST(ChatTemplate, ToolsAndCallsAreWrittenAsPythonsJson) {
  ChatOptions options;
  options.enable_thinking = false;
  options.tools = OrderedJson::parse(
      R"([{"type":"function","function":{"name":"f","strict":true,"parameters":{"b":1.0,"a":"日本\n"}}},{"name":"hidden","defer_loading":true}])");
  const std::string text = render(
      R"([{"role":"user","content":"q"},{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"x":1e-7,"s":"raw \"text\"","l":[true,null]}}}]},{"role":"tool","content":"r1"},{"role":"tool","content":"r2"}])",
      options);
  EXPECT_THAT(text, HasSubstr("<tools>\n{\"name\": \"f\", \"parameters\": {\"b\": 1.0, \"a\": "
                              "\"日本\\n\"}}\n</tools>\n\nFor each"));
  EXPECT_THAT(
      text,
      HasSubstr(
          "<|assistant|><think></think><tool_call>f<arg_key>x</arg_key><arg_value>1e-07</"
          "arg_value><arg_key>s</arg_key>"
          "<arg_value>raw \"text\"</arg_value><arg_key>l</arg_key><arg_value>[true, "
          "null]</arg_value></tool_call>"
          "<|observation|><tool_response>r1</tool_response><tool_response>r2</tool_response>"));
  EXPECT_EQ(text.find("hidden"), std::string::npos);
}

TEST(ChatTemplate, PartsOfContentShowTextAndAReminderForMedia) {
  EXPECT_EQ(
      render(
          R"([{"role":"user","content":["a",{"type":"text","text":"b"},{"type":"image_url"},{"type":"other"}]}])",
          {.add_generation_prompt = false,
           .enable_thinking = false,
           .reasoning_effort = {},
           .clear_thinking = {},
           .tools = {}}),
      "[gMASK]<sop><|user|>ab<reminder>You are unable to process this image because you don't have "
      "multi-modal input ability. Try "
      "different methods.</reminder>");
}

TEST(ChatTemplate, WhatCannotBeRenderedNamesTheMessage) {
  EXPECT_THAT(error_of(R"([{"role":"user","content":"a"},{"role":"asistant","content":"b"}])"),
              HasSubstr("message 1: role is \"asistant\""));
  EXPECT_THAT(error_of(R"([{"content":"a"}])"), HasSubstr("message 0"));
  EXPECT_THAT(error_of(R"({"role":"user"})"), HasSubstr("expected a list"));
  EXPECT_THAT(error_of(R"([{"role":"user","content":{"a":1}}])"), HasSubstr("message 0"));
  EXPECT_THAT(
      error_of(
          R"([{"role":"assistant","content":"","tool_calls":[{"name":"f","arguments":"{}"}]}])"),
      HasSubstr("arguments"));
}

}  // namespace
}  // namespace assay::text
