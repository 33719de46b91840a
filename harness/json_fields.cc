#include "harness/json_fields.h"

#include <algorithm>

#include "base/suggest.h"

namespace assay::harness {
namespace {

// What a message shows of a value: its text, shortened.
std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 40) text = text.substr(0, 37) + "...";
  return text;
}

}  // namespace

Result<JsonFields> JsonFields::open(const Json& object, std::string where,
                                    std::initializer_list<std::string_view> known_keys) {
  if (!object.is_object()) return fail("{}: expected an object, got {}", where, shown(object));
  const std::vector<std::string> known(known_keys.begin(), known_keys.end());
  for (const auto& [key, value] : object.items())
    if (std::find(known.begin(), known.end(), key) == known.end())
      return fail("{}: unknown key '{}'.{}", where, key, suggestion(key, known));
  return JsonFields(object, std::move(where));
}

bool JsonFields::has(std::string_view key) const { return object_->contains(key); }

Result<const Json*> JsonFields::get(std::string_view key) const {
  const auto found = object_->find(key);
  if (found == object_->end()) return fail("{}: missing key '{}'", where_, key);
  return &*found;
}

Result<std::string> JsonFields::text(std::string_view key) const {
  ASSAY_TRY(const Json* value, get(key));
  if (!value->is_string() || value->get_ref<const std::string&>().empty())
    return fail("{}: '{}' must be a non-empty string, got {}", where_, key, shown(*value));
  return value->get<std::string>();
}

Result<std::string> JsonFields::name(std::string_view key) const {
  ASSAY_TRY(std::string value, text(key));
  if (value.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-") != std::string::npos)
    return fail("{}: '{}' may have a-z, 0-9, '-' and '_', got '{}'", where_, key, value);
  return value;
}

Result<std::string> JsonFields::text_or(std::string_view key, std::string_view absent) const {
  if (!has(key)) return std::string(absent);
  return text(key);
}

Result<bool> JsonFields::boolean(std::string_view key) const {
  ASSAY_TRY(const Json* value, get(key));
  if (!value->is_boolean())
    return fail("{}: '{}' must be true or false, got {}", where_, key, shown(*value));
  return value->get<bool>();
}

Result<long> JsonFields::integer(std::string_view key, long min, long max) const {
  ASSAY_TRY(const Json* value, get(key));
  // A number beyond long would wrap in get<long>(), so its size is judged as a double.
  if (!value->is_number_integer() || value->get<double>() < static_cast<double>(min) ||
      value->get<double>() > static_cast<double>(max))
    return fail("{}: '{}' must be a whole number from {} to {}, got {}", where_, key, min, max,
                shown(*value));
  return value->get<long>();
}

Result<double> JsonFields::number(std::string_view key, double min, double max) const {
  ASSAY_TRY(const Json* value, get(key));
  if (!value->is_number() || !(value->get<double>() >= min && value->get<double>() <= max))
    return fail("{}: '{}' must be a number from {} to {}, got {}", where_, key, min, max,
                shown(*value));
  return value->get<double>();
}

Result<std::vector<std::string>> JsonFields::texts(std::string_view key) const {
  if (!has(key)) return std::vector<std::string>{};
  ASSAY_TRY(const Json* value, get(key));
  if (value->is_string()) return std::vector{value->get<std::string>()};
  const auto wrong = [&] {
    return fail("{}: '{}' must be a string or a non-empty list of strings, got {}", where_, key,
                shown(*value));
  };
  if (!value->is_array() || value->empty()) return wrong();
  std::vector<std::string> out;
  for (const Json& item : *value) {
    if (!item.is_string()) return wrong();
    out.push_back(item.get<std::string>());
  }
  return out;
}

Result<std::vector<int>> JsonFields::integers(std::string_view key, int min, int max) const {
  ASSAY_TRY(const Json* value, get(key));
  const auto wrong = [&] {
    return fail("{}: '{}' must be a list of whole numbers from {} to {}, got {}", where_, key, min,
                max, shown(*value));
  };
  if (!value->is_array()) return wrong();
  std::vector<int> out;
  for (const Json& item : *value) {
    if (!item.is_number_integer() || item.get<double>() < min || item.get<double>() > max)
      return wrong();
    const int number = item.get<int>();
    if (std::find(out.begin(), out.end(), number) != out.end())
      return fail("{}: '{}' lists {} twice", where_, key, number);
    out.push_back(number);
  }
  return out;
}

Result<const Json*> JsonFields::array(std::string_view key) const {
  ASSAY_TRY(const Json* value, get(key));
  if (!value->is_array() || value->empty())
    return fail("{}: '{}' must be a non-empty list, got {}", where_, key, shown(*value));
  return value;
}

}  // namespace assay::harness
