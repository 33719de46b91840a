// Reading an object that people wrote: a missing key, a wrong type or a key that nobody knows is an
// error that says where, and what was expected against what was found.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace assay::harness {

class JsonFields {
 public:
  // `where` is the file and path of the object: "suite.json: gates[0]".
  static Result<JsonFields> open(const Json& object, std::string where,
                                 std::initializer_list<std::string_view> known_keys);

  const std::string& where() const { return where_; }
  bool has(std::string_view key) const;
  Result<std::string> text(std::string_view key) const;  // required, not empty
  // A text of a-z, 0-9, '-' and '_': what becomes part of a folder's name and of keys.
  Result<std::string> name(std::string_view key) const;
  Result<std::string> text_or(std::string_view key, std::string_view absent) const;
  Result<bool> boolean(std::string_view key) const;
  Result<long> integer(std::string_view key, long min, long max) const;
  Result<double> number(std::string_view key, double min, double max) const;
  // A string or a list of strings; absent is an empty list.
  Result<std::vector<std::string>> texts(std::string_view key) const;
  // Required; a list of different whole numbers, which may be empty.
  Result<std::vector<int>> integers(std::string_view key, int min, int max) const;
  Result<const Json*> array(std::string_view key) const;  // required, not empty

 private:
  JsonFields(const Json& object, std::string where) : object_(&object), where_(std::move(where)) {}
  Result<const Json*> get(std::string_view key) const;

  const Json* object_;
  std::string where_;
};

}  // namespace assay::harness
