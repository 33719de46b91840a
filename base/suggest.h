// "Did you mean …?": the nearest of a list of names, for every message about an unknown one.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace assay {

// Levenshtein distance over bytes: insertions, deletions and substitutions.
int edit_distance(std::string_view a, std::string_view b);

// The nearest candidate, the first of equals; empty where none is near enough to be meant (more
// than a third of the longer name differs, with at least two edits allowed).
std::string nearest(std::string_view written, std::span<const std::string> candidates);

// " Did you mean 'x'?" or, where nothing is near, " Known: a, b, c." (the first of many) ready to
// append to a message.
std::string suggestion(std::string_view written, std::span<const std::string> candidates);

}  // namespace assay
