// Bad input is a value, not an exception: functions that read what people wrote return Result<T>,
// whose message says what went wrong, where, expected against got, and the next step.
#pragma once

#include <fmt/format.h>

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace assay {

struct Error {
  std::string message;
};

template <class T>
using Result = tl::expected<T, Error>;

template <class... Args>
tl::unexpected<Error> fail(fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected<Error>(Error{fmt::format(format, std::forward<Args>(args)...)});
}

}  // namespace assay

#define ASSAY_CONCAT_INNER(a, b) a##b
#define ASSAY_CONCAT(a, b) ASSAY_CONCAT_INNER(a, b)

// ASSAY_TRY(const auto file, read_file(path)); binds the value or returns the error.
#define ASSAY_TRY(declaration, expression) \
  ASSAY_TRY_INNER(ASSAY_CONCAT(assay_result_, __LINE__), declaration, expression)
#define ASSAY_TRY_INNER(result, declaration, expression)                           \
  auto result = (expression);                                                      \
  if (!result) return ::tl::unexpected<::assay::Error>(std::move(result).error()); \
  declaration = *std::move(result)

// ASSAY_TRY_VOID(write_file(path, text)); returns the error, if there is one.
#define ASSAY_TRY_VOID(expression)                                            \
  do {                                                                        \
    if (auto assay_void = (expression); !assay_void)                          \
      return ::tl::unexpected<::assay::Error>(std::move(assay_void).error()); \
  } while (false)
