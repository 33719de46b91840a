// Text that others wrote, a model above all, made fit for formats in which some characters mean
// something. What comes out is valid UTF-8; what is not in the input becomes U+FFFD, so that
// nothing vanishes unseen.
#pragma once

#include <string>
#include <string_view>

namespace assay::harness {

// The first `most` code points, and "…" if there were more.
std::string shortened(std::string_view text, int most);

// Between two tags of XML 1.0. A character that it forbids (most controls, U+FFFE and U+FFFF)
// becomes U+FFFD too.
std::string xml_text(std::string_view text);
// The same between the quotes of an attribute, where a parser would make line breaks blanks.
std::string xml_attribute(std::string_view text);

// Inside one line or table cell of GitHub's Markdown: nothing in it is markup, HTML, a table's
// border or a link. Line breaks become blanks; controls and characters that turn the direction of
// writing become U+FFFD.
std::string markdown_text(std::string_view text);

// `text` as a Markdown code block, whatever fences stand in it.
std::string markdown_block(std::string_view text);

}  // namespace assay::harness
