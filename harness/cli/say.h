// Words for people, on standard error. Nothing fails for want of a listener: where standard error
// cannot be written (its file is on the disk that is full) the words are lost, and the exit code
// still says how it ended. fmt::print would throw there.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <utility>

namespace assay::cli {

template <class... Args>
void say(fmt::format_string<Args...> text, Args&&... args) {
  const std::string words = fmt::format(text, std::forward<Args>(args)...);
  std::fwrite(words.data(), 1, words.size(), stderr);
}

}  // namespace assay::cli
