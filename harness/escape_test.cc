#include "harness/escape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/xml_check.h"

namespace assay::harness {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string through_xml(std::string_view text) {
  const XmlNode node = XmlReader::read("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a b=\"" +
                                       xml_attribute(text) + "\">" + xml_text(text) + "</a>\n");
  EXPECT_EQ(node.text, node.attributes.at("b"));
  return node.text;
}

TEST(XmlText, WhatXmlAllowsComesBackAsItWas) {
  for (const char* text : {"", "1 < 2 && 3 > 2", "\"quoted\" 'too'", "]]>", "<![CDATA[x]]>",
                           "&amp; &#0; &nope;", "a\nb\r\nc\td\r", "答えは１８です 👍 \xE2\x80\xA8",
                           "</system-out>", "<!-- -->", "\x7F\xC2\x85"})
    EXPECT_EQ(through_xml(text), text);
}

TEST(XmlText, WhatXmlForbidsBecomesAReplacementCharacter) {
  using namespace std::string_view_literals;
  constexpr const char* kR = "\xEF\xBF\xBD";
  EXPECT_EQ(through_xml("a\0b"sv), std::string("a") + kR + "b");
  for (char c = 1; c < 0x20; ++c) {
    if (c == '\t' || c == '\n' || c == '\r') continue;
    EXPECT_EQ(through_xml(std::string(1, c)), kR) << int{c};
  }
  EXPECT_EQ(through_xml("\xEF\xBF\xBE\xEF\xBF\xBF"), std::string(kR) + kR) << "U+FFFE, U+FFFF";
  EXPECT_EQ(through_xml("\xFF"), kR);
  EXPECT_THAT(through_xml("a\xED\xA0\x80z"), testing::AllOf(HasSubstr(kR), HasSubstr("z")))
      << "half of a surrogate pair";
  EXPECT_EQ(through_xml("\xE7\xAD"), kR) << "a character that was cut in the middle";
}

TEST(MarkdownText, NothingInItIsMarkup) {
  EXPECT_EQ(markdown_text("a|b"), "a\\|b");
  EXPECT_EQ(markdown_text("a\nb\r\nc"), "a b  c");
  EXPECT_EQ(markdown_text("`x` *y* _z_ [l](u)"), "\\`x\\` \\*y\\* \\_z\\_ \\[l\\](u)");
  EXPECT_EQ(markdown_text("<img src=x onerror=alert(1)>"), "&lt;img src=x onerror=alert(1)&gt;");
  EXPECT_EQ(markdown_text("&lt;"), "&amp;lt;") << "what was written is shown, not what it means";
  EXPECT_EQ(markdown_text("\\|"), "\\\\\\|") << "a backslash of the text does not take ours away";
  EXPECT_EQ(markdown_text("https://x.y www.x.y me@x.y"), "https:\\//x.y www\\.x.y me\\@x.y");
  EXPECT_EQ(markdown_text("a\x1b[31m\xff\xE2\x80\xAE"),
            "a\xEF\xBF\xBD\\[31m\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(markdown_text("１８ % 答え"), "１８ % 答え");
}

TEST(MarkdownBlock, ItsFenceIsLongerThanAnyInTheText) {
  EXPECT_EQ(markdown_block("ls"), "```\nls\n```\n");
  EXPECT_EQ(markdown_block("a ```` b\n"), "`````\na ```` b\n`````\n");
}

TEST(Shortened, CountsCharactersNotBytes) {
  EXPECT_EQ(shortened("答えは", 3), "答えは");
  EXPECT_EQ(shortened("答えは１", 3), "答えは…");
  EXPECT_EQ(shortened("a\xff", 5), "a\xEF\xBF\xBD");
}

// The tests above are worth what their reader is.
TEST(XmlReader, RefusesWhatIsNotWellFormed) {
  const auto read = [](const std::string& body) {
    return XmlReader::read("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n" + body + "\n");
  };
  EXPECT_EQ(read("<a b=\"1\"><c/>x</a>").children.size(), 1u);
  for (const char* bad :
       {"<a>", "<a></b>", "<a b=1/>", "<a b=\"<\"/>", "<a>&</a>", "<a>]]></a>", "<a>\x01</a>",
        "<a>\xff</a>", "<a/><a/>", "<a b=\"\" b=\"\"/>", "<a b=\"\n\"/>", "<a>\r</a>"})
    EXPECT_THROW(read(bad), std::runtime_error) << bad;
}

}  // namespace
}  // namespace assay::harness
