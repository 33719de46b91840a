#include "engine/fault.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>

namespace assay::engine {
namespace {

using Kind = Fault::Kind;

struct KindEntry {
  Kind kind;
  std::string_view name;
  std::string_view required, optional;  // keys, a space between two
  std::string_view example;
};
constexpr std::array<KindEntry, 11> kKinds = {{
    {Kind::kExpertScale, "expert-scale", "experts factor", "",
     "expert-scale:experts=3/5+4/0,factor=2"},
    {Kind::kExpertSwap, "expert-swap", "experts", "", "expert-swap:experts=3/5+3/9"},
    {Kind::kSharedDrop, "shared-drop", "layer", "", "shared-drop:layer=3"},
    {Kind::kRopeHalfSplit, "rope-half-split", "", "", "rope-half-split"},
    {Kind::kIndexerRopeHalfSplit, "indexer-rope-half-split", "", "", "indexer-rope-half-split"},
    {Kind::kChatTemplate, "chat-template", "", "", "chat-template"},
    {Kind::kChatTags, "chat-tags", "tags", "", "chat-tags:tags=<|user|>+<|assistant|>"},
    {Kind::kTierDim, "tier-dim", "bits", "layer", "tier-dim:bits=1.5,layer=3"},
    {Kind::kCodesShift, "codes-shift", "", "layer", "codes-shift:layer=3"},
    {Kind::kCodesFlip, "codes-flip", "", "layer", "codes-flip:layer=3"},
    {Kind::kLogitNan, "logit-nan", "token", "", "logit-nan:token=100"},
}};

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(separator, at), text.size());
    if (end > at) parts.emplace_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

bool has_key(std::string_view keys, std::string_view key) {
  const auto all = split(keys, ' ');
  return std::find(all.begin(), all.end(), key) != all.end();
}

template <class T>
Result<T> number(std::string_view fault, std::string_view key, std::string_view written) {
  T value{};
  const char* end = written.data() + written.size();
  const auto [at, error] = std::from_chars(written.data(), end, value);
  if (error != std::errc() || at != end || value < 0)
    return fail("fault {}: {} is '{}', expected a number from 0 up", fault, key, written);
  return value;
}

Result<void> set(Fault& fault, std::string_view name, const std::string& key,
                 const std::string& value) {
  if (key == "factor") {
    ASSAY_TRY(fault.factor, number<double>(name, key, value));
  } else if (key == "bits") {
    ASSAY_TRY(fault.bits, number<double>(name, key, value));
  } else if (key == "layer") {
    ASSAY_TRY(fault.layer, number<int>(name, key, value));
  } else if (key == "token") {
    ASSAY_TRY(fault.token, number<int>(name, key, value));
  } else if (key == "tags") {
    fault.tags = split(value, '+');
    if (fault.tags.size() != 2)
      return fail("fault {}: tags is '{}', expected two added tokens such as <think>+</think>",
                  name, value);
  } else {
    for (const std::string& one : split(value, '+')) {
      const auto parts = split(one, '/');
      if (parts.size() != 2)
        return fail("fault {}: experts has '{}', expected LAYER/EXPERT such as 3/5", name, one);
      ASSAY_TRY(const int layer, number<int>(name, "layer", parts[0]));
      ASSAY_TRY(const int expert, number<int>(name, "expert", parts[1]));
      fault.experts.push_back({layer, expert});
    }
  }
  return {};
}

const KindEntry& entry_of(Kind kind) {
  return *std::find_if(kKinds.begin(), kKinds.end(),
                       [&](const KindEntry& e) { return e.kind == kind; });
}

std::string value_of(const Fault& fault, std::string_view key) {
  if (key == "factor") return fmt::format("{}", fault.factor);
  if (key == "bits") return fmt::format("{}", fault.bits);
  if (key == "layer") return fault.layer < 0 ? "" : fmt::format("{}", fault.layer);
  if (key == "token") return fmt::format("{}", fault.token);
  std::string out;
  const auto join = [&](const std::string& one) { out += (out.empty() ? "" : "+") + one; };
  if (key == "tags")
    for (const std::string& tag : fault.tags) join(tag);
  else
    for (const ExpertRef& e : fault.experts) join(fmt::format("{}/{}", e.layer, e.expert));
  return out;
}

}  // namespace

Result<Fault> parse_fault(std::string_view written) {
  const std::size_t colon = written.find(':');
  const std::string_view name = written.substr(0, colon);
  const auto entry = std::find_if(kKinds.begin(), kKinds.end(),
                                  [&](const KindEntry& e) { return e.name == name; });
  if (entry == kKinds.end())
    return fail("unknown fault '{}', expected one like these:\n{}", name, fault_examples());
  Fault fault{.kind = entry->kind};
  std::vector<std::string> seen;
  for (const std::string& part :
       split(colon == std::string_view::npos ? "" : written.substr(colon + 1), ',')) {
    const std::size_t sign = part.find('=');
    const std::string key = part.substr(0, sign);
    const bool known = has_key(entry->required, key) || has_key(entry->optional, key);
    if (!known || sign == std::string::npos || sign + 1 == part.size() ||
        std::find(seen.begin(), seen.end(), key) != seen.end())
      return fail("fault {}: '{}' is not understood, expected something like {}", name, part,
                  entry->example);
    ASSAY_TRY_VOID(set(fault, name, key, part.substr(sign + 1)));
    seen.push_back(key);
  }
  for (const std::string& key : split(entry->required, ' '))
    if (std::find(seen.begin(), seen.end(), key) == seen.end())
      return fail("fault {}: {} is missing, expected something like {}", name, key, entry->example);
  if (fault.kind == Kind::kExpertSwap &&
      (fault.experts.size() != 2 || fault.experts[0].layer != fault.experts[1].layer ||
       fault.experts[0] == fault.experts[1]))
    return fail("fault {}: experts is '{}', expected two of one layer such as 3/5+3/9", name,
                value_of(fault, "experts"));
  return fault;
}

std::string name_of(const Fault& fault) {
  const KindEntry& entry = entry_of(fault.kind);
  std::string out(entry.name);
  char before = ':';
  for (const std::string_view keys : {entry.required, entry.optional})
    for (const std::string& key : split(keys, ' ')) {
      const std::string value = value_of(fault, key);
      if (value.empty()) continue;
      out += fmt::format("{}{}={}", before, key, value);
      before = ',';
    }
  return out;
}

std::string fault_examples() {
  std::string out;
  for (const KindEntry& entry : kKinds) out += fmt::format("  {}\n", entry.example);
  out.pop_back();
  return out;
}

}  // namespace assay::engine
