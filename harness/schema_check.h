// A checker for the part of JSON Schema that reports/run.schema.json uses; for tests. A keyword
// that it does not know is reported too, so that the schema cannot outgrow it unseen, and so is an
// object of which the schema does not say whether it may hold more than it names.
#pragma once

#include <fmt/format.h>

#include <set>
#include <string>
#include <vector>

#include "base/json.h"

namespace assay::harness {

class SchemaCheck {
 public:
  explicit SchemaCheck(const Json& schema) : root_(schema) {}

  std::vector<std::string> problems(const Json& value) {
    problems_.clear();
    check(value, root_, "$");
    return problems_;
  }

 private:
  static bool has_type(const Json& v, const std::string& type) {
    if (type == "object") return v.is_object();
    if (type == "array") return v.is_array();
    if (type == "string") return v.is_string();
    if (type == "boolean") return v.is_boolean();
    if (type == "null") return v.is_null();
    if (type == "integer") return v.is_number_integer();
    return type == "number" && v.is_number();
  }

  void problem(const std::string& at, const std::string& what) {
    problems_.push_back(at + ": " + what);
  }

  void check(const Json& v, const Json& schema, const std::string& at) {
    if (schema.is_boolean()) {
      if (!schema.get<bool>()) problem(at, "must not be there");
      return;
    }
    if (schema.contains("$ref")) {
      const auto name = schema["$ref"].get<std::string>().substr(std::string("#").size());
      return check(v, root_.at(Json::json_pointer(name)), at);
    }
    static const std::set<std::string> kKnown = {
        "$schema", "title",      "description", "type",  "required", "additionalProperties",
        "const",   "properties", "enum",        "items", "minimum",  "$defs",
        "if",      "then",       "else"};
    for (const auto& [key, ignored] : schema.items())
      if (!kKnown.contains(key)) problem(at, "the checker does not know the keyword " + key);
    if (schema.contains("const") && v != schema["const"]) problem(at, "is not the constant");
    if (schema.contains("enum") &&
        std::find(schema["enum"].begin(), schema["enum"].end(), v) == schema["enum"].end())
      problem(at, v.dump() + " is not one of " + schema["enum"].dump());
    if (schema.contains("type")) {
      const Json types = schema["type"].is_array() ? schema["type"] : Json::array({schema["type"]});
      bool fits = false;
      for (const Json& type : types) fits = fits || has_type(v, type.get<std::string>());
      if (!fits) return problem(at, "is not of type " + schema["type"].dump());
    }
    if (schema.contains("minimum") && v.is_number() && v < schema["minimum"])
      problem(at, "is below the minimum");
    if (v.is_array() && schema.contains("items"))
      for (std::size_t i = 0; i < v.size(); ++i)
        check(v[i], schema["items"], fmt::format("{}[{}]", at, i));
    if (v.is_object()) check_object(v, schema, at);
    if (schema.contains("if")) {
      const std::size_t n = problems_.size();
      check_conditional(v, schema["if"], at);
      const bool holds = problems_.size() == n;
      problems_.resize(n);
      check_conditional(v, schema[holds ? "then" : "else"], at);
    }
  }

  // A part of another schema, which is what says whether the object may hold more.
  void check_conditional(const Json& v, Json part, const std::string& at) {
    if (!part.contains("additionalProperties")) part["additionalProperties"] = true;
    check(v, part, at);
  }

  void check_object(const Json& v, const Json& schema, const std::string& at) {
    if (!schema.contains("additionalProperties"))
      problem(at, "the schema does not say whether more may be there");
    if (schema.contains("required"))
      for (const Json& key : schema["required"])
        if (!v.contains(key.get<std::string>())) problem(at, "misses " + key.get<std::string>());
    for (const auto& [key, value] : v.items()) {
      if (schema.contains("properties") && schema["properties"].contains(key)) {
        check(value, schema["properties"][key], at + "." + key);
      } else if (schema.contains("additionalProperties")) {
        const Json& extra = schema["additionalProperties"];
        if (extra.is_boolean()) {
          if (!extra.get<bool>()) problem(at, "has the unknown key " + key);
        } else {
          check(value, extra, at + "." + key);
        }
      }
    }
  }

  Json root_;
  std::vector<std::string> problems_;
};

}  // namespace assay::harness
