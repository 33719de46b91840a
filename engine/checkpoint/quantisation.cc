#include "engine/checkpoint/quantisation.h"

#include <array>
#include <bit>
#include <cmath>

#include "engine/checkpoint/misspelt.h"
#include "kernels/vq.h"

namespace assay::engine {
namespace {

using Kind = ModuleFormat::Kind;

struct KindEntry {
  Kind kind;
  std::string_view name;
};
constexpr std::array<KindEntry, 5> kKinds = {{{Kind::kDense, "dense"},
                                              {Kind::kVq, "vq"},
                                              {Kind::kGptq, "gptq"},
                                              {Kind::kAqlm, "aqlm"},
                                              {Kind::kFp8, "fp8"}}};

constexpr const char* kCodebooksFile = "vq_codebooks.safetensors";

// What is accepted here must load: the limits are the kernels'.
constexpr int kMaxDim = kernels::PackedVq::kMaxDim, kMaxBooks = kernels::PackedVq::kMaxBooks;

std::string show(const Json& json) {
  std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() > 60 ? text.substr(0, 57) + "..." : text;
}

// One object of config.json, by its path in messages.
struct Section {
  const Json& json;
  std::string where;

  Json at(const char* key) const { return json.contains(key) ? json[key] : Json(); }

  Result<double> number(const char* key, double lo, double hi) const {
    const Json v = at(key);
    if (!v.is_number() || !(v.get<double>() >= lo && v.get<double>() <= hi))
      return fail("{}.{} is {}, expected a number from {} to {}", where, key,
                  json.contains(key) ? show(v) : "absent", lo, hi);
    return v.get<double>();
  }
  Result<int> integer(const char* key, int lo, int hi) const {
    const Json v = at(key);
    if (!v.is_number_integer() || !(v.get<double>() >= lo && v.get<double>() <= hi))
      return fail("{}.{} is {}, expected an integer from {} to {}", where, key,
                  json.contains(key) ? show(v) : "absent", lo, hi);
    return v.get<int>();
  }
  Result<int> integer_or(const char* key, int lo, int hi, int absent) const {
    if (at(key).is_null()) return absent;
    return integer(key, lo, hi);
  }
  // What has one supported value only.
  Result<void> only(const char* key, const Json& supported) const {
    const Json v = at(key);
    if (!v.is_null() && v != supported)
      return fail("{}.{} is {}, expected {}: nothing else is supported", where, key, show(v),
                  supported.dump());
    return {};
  }
};

// Code bits and the codeword's length give the number of codewords.
Result<ModuleFormat> vq_format(const Section& s, double bits, int dim, int group) {
  const double index_bits = bits * dim;
  const double whole = std::round(index_bits);
  if (std::abs(index_bits - whole) > 1e-6 || whole < 1 || whole > 16)
    return fail(
        "{}: {} bits with d = {} make an index of {} bits, expected a whole number from 1 to 16",
        s.where, bits, dim, index_bits);
  if (group % dim != 0)
    return fail("{}: group_size {} is no multiple of d = {}", s.where, group, dim);
  return ModuleFormat{.kind = Kind::kVq,
                      .bits = whole / dim,
                      .dim = dim,
                      .n_codes = 1 << static_cast<int>(whole),
                      .n_books = 1,
                      .group = group};
}

Result<ModuleFormat> module_format(const Section& s, int group_size) {
  ASSAY_TRY(const double bits, s.number("bits", 0.0625, 64));
  ASSAY_TRY(const int group, s.integer_or("group_size", 1, 1 << 20, group_size));
  const Json format = s.at("format");
  if (format == "vq") {
    ASSAY_TRY(const int dim, s.integer("d", 1, kMaxDim));
    return vq_format(s, bits, dim, group);
  }
  if (!format.is_null() && format != "gptq" && format != "auto_round:auto_gptq")
    return fail("{}.format is {}, expected \"vq\", or \"gptq\" (or none) for 4 and 8 bits", s.where,
                show(format));
  if (bits >= 16) return ModuleFormat{};
  if (bits != 4 && bits != 8)
    return fail("{}.bits is {}, expected 4, 8, or 16 and more (not quantised)", s.where, bits);
  return ModuleFormat{
      .kind = Kind::kGptq, .bits = bits, .dim = 0, .n_codes = 0, .n_books = 1, .group = group};
}

// What is read, and what the tools that write such files write beside it.
const KnownKeys kModuleKeys = {
    {"bits", "d", "format", "group_size"},
    {"act_bits", "act_data_type", "act_dynamic", "act_group_size", "act_sym", "data_type",
     "scale_dtype", "super_bits", "super_group_size", "sym"}};
const KnownKeys kMlxModuleKeys = {{"K", "d", "nbits", "norm_group"}, {"in_dims", "vq_bits"}};
const KnownKeys kGptqKeys = {
    {"bits", "codebooks_file", "d", "desc_act", "extra_config", "format", "group_size",
     "quant_method"},
    {"act_bits", "act_data_type", "act_dynamic", "act_group_size", "act_sym", "checkpoint_format",
     "data_type", "dataset", "iters", "nsamples", "pack_dtype", "packing_format", "scale_dtype",
     "static_groups", "super_bits", "super_group_size", "sym"}};
const std::map<std::string, KnownKeys> kMethodKeys = {
    {"auto-round", kGptqKeys},
    {"gptq", kGptqKeys},
    {"aqlm",
     {{"in_group_size", "nbits_per_codebook", "num_codebooks", "out_group_size", "quant_method"},
      {"linear_weights_not_to_quantize"}}},
    {"fp8",
     {{"quant_method", "weight_block_size"},
      {"activation_scheme", "fmt", "modules_to_not_convert", "scale_fmt"}}}};

void add_misspelt_of_modules(const Json& modules, const KnownKeys& known, const std::string& where,
                             std::vector<std::string>& out) {
  if (!modules.is_object()) return;
  struct Found {
    std::string first;
    int n = 0;
  };
  std::map<std::string, Found> found;  // a slip of whoever wrote them is in all of them
  for (const auto& [path, entry] : modules.items())
    for (const std::string& key : misspelt_keys(entry, known)) {
      Found& f = found[key];
      if (f.n++ == 0) f.first = path;
    }
  for (const auto& [key, f] : found)
    out.push_back(fmt::format("{}.{}.{}{}", where, f.first, key,
                              f.n == 1 ? "" : fmt::format(" ({} such modules)", f.n)));
}

std::string file_name(const Json& config, const Json& section) {
  for (const Json* in : {&section, &config})
    if (in->contains("codebooks_file") && (*in)["codebooks_file"].is_string())
      return (*in)["codebooks_file"].get<std::string>();
  return kCodebooksFile;
}

}  // namespace

std::string_view name_of(ModuleFormat::Kind kind) {
  for (const KindEntry& entry : kKinds)
    if (entry.kind == kind) return entry.name;
  return "?";
}

const ModuleFormat& Quantisation::of(std::string_view module) const {
  const auto it = modules_.find(module);
  return it == modules_.end() ? default_ : it->second;
}

Result<Quantisation> Quantisation::parse(const Json& config, std::string_view source) {
  Quantisation q;
  const auto has = [&](const char* key) { return config.contains(key) && !config[key].is_null(); };
  if (has("vq")) {  // MLX: per stacked module, {vq_bits, d, K, nbits, in_dims, norm_group}
    const Json& vq = config["vq"];
    if (!vq.is_object() || !vq.contains("modules") || !vq["modules"].is_object())
      return fail("{}: vq is {}, expected an object with modules", source, show(vq));
    q.method_ = "mlx-vq";
    q.codebooks_file_ = file_name(config, vq);
    for (const auto& [path, entry] : vq["modules"].items()) {
      const Section s{entry, fmt::format("{}: vq.modules.{}", source, path)};
      ASSAY_TRY(const int dim, s.integer("d", 1, kMaxDim));
      ASSAY_TRY(const int n_codes, s.integer("K", 2, 1 << 16));
      ASSAY_TRY(const int index_bits, s.integer("nbits", 1, 16));
      ASSAY_TRY(const int group, s.integer("norm_group", 1, 1 << 20));
      if (static_cast<int>(std::bit_width(static_cast<unsigned>(n_codes - 1))) != index_bits)
        return fail("{}: K is {} and nbits {}, expected the fewest bits that tell K apart", s.where,
                    n_codes, index_bits);
      ASSAY_TRY(ModuleFormat format,
                vq_format(s, static_cast<double>(index_bits) / dim, dim, group));
      format.n_codes = n_codes;
      q.modules_[path] = format;
    }
    return q;
  }
  if (!has("quantization_config")) return q;
  const Section s{config["quantization_config"], fmt::format("{}: quantization_config", source)};
  if (!s.json.is_object()) return fail("{} is {}, expected an object", s.where, show(s.json));
  const Json method = s.at("quant_method");
  q.method_ = method.is_string() ? method.get<std::string>() : "";
  if (q.method_ == "auto-round" || q.method_ == "gptq") {
    ASSAY_TRY_VOID(s.only("desc_act", false));
    ASSAY_TRY(const int group, s.integer_or("group_size", 1, 1 << 20, 128));
    ASSAY_TRY(q.default_, module_format(s, group));
    const Json extra = s.at("extra_config");
    bool has_vq = false;
    if (!extra.is_null() && !extra.is_object())
      return fail("{}.extra_config is {}, expected an object by module", s.where, show(extra));
    for (const auto& [path, entry] : extra.items()) {
      const Section module{entry, fmt::format("{}.extra_config.{}", s.where, path)};
      ASSAY_TRY(const ModuleFormat format, module_format(module, group));
      q.modules_[path] = format;
      has_vq = has_vq || format.kind == Kind::kVq;
    }
    if (has_vq) q.codebooks_file_ = file_name(config, s.json);
  } else if (q.method_ == "aqlm") {
    ASSAY_TRY_VOID(s.only("out_group_size", 1));
    ASSAY_TRY(const int dim, s.integer("in_group_size", 1, kMaxDim));
    ASSAY_TRY(const int n_books, s.integer("num_codebooks", 1, kMaxBooks));
    ASSAY_TRY(const int index_bits, s.integer("nbits_per_codebook", 1, 16));
    q.default_ = {.kind = Kind::kAqlm,
                  .bits = static_cast<double>(index_bits) * n_books / dim,
                  .dim = dim,
                  .n_codes = 1 << index_bits,
                  .n_books = n_books,
                  .group = 0};
  } else if (q.method_ == "fp8") {
    const Json block = s.at("weight_block_size");
    if (!block.is_array() || block.size() != 2 || block[0] != block[1] ||
        !block[0].is_number_integer() || block[0].get<double>() < 1 ||
        block[0].get<double>() > 65536)
      return fail("{}.weight_block_size is {}, expected a square block such as [128, 128]", s.where,
                  show(block));
    q.default_ = {.kind = Kind::kFp8,
                  .bits = 8,
                  .dim = 0,
                  .n_codes = 0,
                  .n_books = 1,
                  .group = block[0].get<int>()};
  } else {
    return fail(
        "{}.quant_method is {}, expected auto-round (with VQ experts), gptq, aqlm or fp8: other "
        "methods cannot be read",
        s.where, s.json.contains("quant_method") ? show(method) : "absent");
  }
  return q;
}

std::vector<std::string> Quantisation::misspelt(const Json& config) {
  const auto at = [](const Json& json, const char* key) {
    return json.is_object() && json.contains(key) ? &json[key] : nullptr;
  };
  std::vector<std::string> out;
  if (const Json* vq = at(config, "vq"); vq != nullptr && !vq->is_null()) {
    out = misspelt_keys(*vq, {{"modules", "codebooks_file"}}, "vq.");
    if (const Json* modules = at(*vq, "modules"))
      add_misspelt_of_modules(*modules, kMlxModuleKeys, "vq.modules", out);
    return out;
  }
  const Json* section = at(config, "quantization_config");
  if (section == nullptr) return out;
  const Json* method = at(*section, "quant_method");
  const auto known = method != nullptr && method->is_string()
                         ? kMethodKeys.find(method->get<std::string>())
                         : kMethodKeys.end();
  out = misspelt_keys(*section,
                      known == kMethodKeys.end() ? KnownKeys{{"quant_method"}} : known->second,
                      "quantization_config.");
  if (const Json* modules = at(*section, "extra_config"))
    add_misspelt_of_modules(*modules, kModuleKeys, "quantization_config.extra_config", out);
  return out;
}

}  // namespace assay::engine
