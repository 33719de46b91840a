// A strict reader for the part of XML 1.0 that junit.xml uses, for tests: whatever a parser would
// refuse is reported, and so is what it would silently change.
#pragma once

#include <fmt/format.h>
#include <unicode/utf8.h>

#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace assay::harness {

struct XmlNode {
  std::string name, text;
  std::map<std::string, std::string> attributes;
  std::vector<XmlNode> children;

  std::vector<const XmlNode*> all(std::string_view wanted) const {
    std::vector<const XmlNode*> out;
    for (const XmlNode& child : children)
      if (child.name == wanted) out.push_back(&child);
    return out;
  }
};

class XmlReader {
 public:
  // Throws std::runtime_error with the byte at which the text is not well-formed.
  static XmlNode read(std::string_view text) {
    XmlReader reader(text);
    reader.check_characters();
    reader.expect("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    XmlNode root = reader.element();
    reader.expect("\n");
    if (reader.at_ != text.size()) reader.wrong("something follows the root");
    return root;
  }

 private:
  explicit XmlReader(std::string_view text) : text_(text) {}

  [[noreturn]] void wrong(const std::string& what) const {
    throw std::runtime_error(fmt::format("byte {}: {}", at_, what));
  }
  bool starts(std::string_view what) const { return text_.substr(at_).starts_with(what); }
  void expect(std::string_view what) {
    if (!starts(what)) wrong(fmt::format("expected {}", what));
    at_ += what.size();
  }
  void skip_blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }

  void check_characters() {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(text_.data());
    const auto n = static_cast<std::int32_t>(text_.size());
    for (std::int32_t i = 0; i < n;) {
      UChar32 c = 0;
      at_ = static_cast<std::size_t>(i);
      U8_NEXT(bytes, i, n, c);
      if (c < 0) wrong("not UTF-8");
      if ((c < 0x20 && c != '\t' && c != '\n') || c == 0xFFFE || c == 0xFFFF)
        wrong(fmt::format("character {:#x}", c));  // a bare carriage return would be changed
    }
    at_ = 0;
  }

  std::string name() {
    const std::size_t begin = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) != 0 ||
                                  text_[at_] == '-' || text_[at_] == '_'))
      ++at_;
    if (begin == at_ || std::isalpha(static_cast<unsigned char>(text_[begin])) == 0)
      wrong("expected a name");
    return std::string(text_.substr(begin, at_ - begin));
  }

  // One character of text or of an attribute's value.
  char character() {
    if (text_[at_] != '&') return text_[at_++];
    for (const auto& [written, meant] : {std::pair{"&lt;", '<'},
                                         {"&gt;", '>'},
                                         {"&amp;", '&'},
                                         {"&quot;", '"'},
                                         {"&#13;", '\r'},
                                         {"&#10;", '\n'},
                                         {"&#9;", '\t'}})
      if (starts(written)) {
        expect(written);
        return meant;
      }
    wrong("an unknown entity");
  }

  std::string value() {
    expect("\"");
    std::string out;
    while (!starts("\"")) {
      if (at_ == text_.size() || starts("<")) wrong("an attribute does not end");
      if (text_[at_] == '\n' || text_[at_] == '\t') wrong("a parser would make this a blank");
      out += character();
    }
    expect("\"");
    return out;
  }

  XmlNode element() {
    expect("<");
    XmlNode node{.name = name()};
    while (starts(" ")) {
      skip_blanks();
      const std::string key = name();
      expect("=");
      if (!node.attributes.emplace(key, value()).second) wrong(key + " is there twice");
    }
    if (starts("/>")) {
      expect("/>");
      return node;
    }
    expect(">");
    while (!starts("</")) {
      if (at_ == text_.size()) wrong(node.name + " does not end");
      if (starts("<")) {
        node.children.push_back(element());
      } else if (starts("]]>")) {
        wrong("]]> in text");
      } else {
        node.text += character();
      }
    }
    expect("</" + node.name + ">");
    return node;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace assay::harness
