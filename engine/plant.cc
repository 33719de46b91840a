#include "engine/plant.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "base/json.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/quantize/binary16.h"
#include "kernels/dtype.h"

namespace assay::engine {
namespace {

using Kind = Fault::Kind;

constexpr const char* kProjections[] = {"gate_proj", "up_proj", "down_proj"};

// What the copy has otherwise.
struct Changes {
  struct Tensor {
    DType dtype;
    std::vector<std::int64_t> shape;
    std::string bytes;
  };
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> files;     // config.json, tokenizer.json …
  std::map<std::string, std::string> added_to;  // new tensor → file
};

Changes::Tensor copy_of(const TensorView& t) {
  return {t.dtype, t.shape,
          std::string(reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size())};
}

std::size_t width_of(DType dtype) { return bytes_of(dtype); }

std::uint16_t f32_to_bf16(float x) {  // to nearest, ties to even
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (std::isnan(x)) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

// One value of a tensor of floats.
float get(const Changes::Tensor& t, std::int64_t i) {
  const auto type = t.dtype == DType::kBf16  ? kernels::WeightType::kBf16
                    : t.dtype == DType::kF16 ? kernels::WeightType::kF16
                                             : kernels::WeightType::kF32;
  return kernels::weight_at({t.bytes.data(), type, 1, 0}, i);
}
void put(Changes::Tensor& t, std::int64_t i, float x) {
  char* at = t.bytes.data() + static_cast<std::size_t>(i) * width_of(t.dtype);
  if (t.dtype == DType::kF32) {
    std::memcpy(at, &x, 4);
    return;
  }
  const std::uint16_t half = t.dtype == DType::kBf16 ? f32_to_bf16(x) : f32_to_f16(x);
  std::memcpy(at, &half, 2);
}

bool is_float(DType dtype) {
  return dtype == DType::kBf16 || dtype == DType::kF16 || dtype == DType::kF32;
}

class Planter {
 public:
  Planter(const Checkpoint& checkpoint, const Fault& fault) : model_(checkpoint), fault_(fault) {}

  Result<Changes> plant() {
    ASSAY_TRY_VOID(apply());
    return std::move(changes_);
  }

 private:
  Result<void> apply() {
    switch (fault_.kind) {
      case Kind::kExpertScale:
        for (const ExpertRef& e : fault_.experts) ASSAY_TRY_VOID(scale_expert(e));
        return {};
      case Kind::kExpertSwap:
        return swap_experts();
      case Kind::kSharedDrop:
        ASSAY_TRY_VOID(check_sparse(fault_.layer));
        return scale(fmt::format("model.layers.{}.mlp.shared_experts.down_proj", fault_.layer), 0);
      case Kind::kRopeHalfSplit:
        return half_split("rope_interleave", model_.config().rope_interleave);
      case Kind::kIndexerRopeHalfSplit:
        return half_split("indexer_rope_interleave", model_.config().indexer_rope_interleave);
      case Kind::kChatTemplate:
        return change_template();
      case Kind::kChatTags:
        return swap_tags();
      case Kind::kTierDim:
        return halve_dim();
      case Kind::kCodesShift:
      case Kind::kCodesFlip:
        return change_codes();
      case Kind::kLogitNan:
        return put_nan();
    }
    return {};
  }

  std::string where() const { return model_.dir().string(); }

  Result<void> check_sparse(int layer) const {
    const ModelConfig& c = model_.config();
    if (layer < c.first_dense_layers || layer >= c.n_layers)
      return fail("{}: layer {} has no experts, expected {} to {}", where(), layer,
                  c.first_dense_layers, c.n_layers - 1);
    return {};
  }
  Result<void> check_expert(const ExpertRef& e) const {
    ASSAY_TRY_VOID(check_sparse(e.layer));
    if (e.expert < 0 || e.expert >= model_.config().n_experts)
      return fail("{}: layer {} has no expert {}, expected 0 to {}", where(), e.layer, e.expert,
                  model_.config().n_experts - 1);
    return {};
  }
  static std::string expert_prefix(const ExpertRef& e) {
    return fmt::format("model.layers.{}.mlp.experts.{}.", e.layer, e.expert);
  }

  // The first of these tensors of a module, to be changed.
  Result<Changes::Tensor*> take(const std::string& module,
                                std::initializer_list<const char*> suffixes) {
    std::string tried;
    for (const char* suffix : suffixes) {
      const std::string name = module + suffix;
      tried += (tried.empty() ? "" : ", ") + name;
      const TensorView* found = model_.find(name);
      if (found == nullptr) continue;
      return &changes_.tensors.try_emplace(name, copy_of(*found)).first->second;
    }
    return fail(
        "{}: none of {} is there, expected a tensor per module: experts that are stacked in one "
        "tensor, and formats other than dense, VQ, GPTQ and FP8, cannot be damaged",
        where(), tried);
  }
  // What a module's weights are proportional to.
  Result<Changes::Tensor*> take_scales(const std::string& module) {
    const TensorView* weight = model_.find(module + ".weight");
    if (weight != nullptr && is_float(weight->dtype)) return take(module, {".weight"});
    return take(module, {".vq_scales", ".scales", ".weight_scale_inv"});
  }

  Result<void> scale(const std::string& module, double factor) {
    ASSAY_TRY(Changes::Tensor* const t, take_scales(module));
    const auto n = static_cast<std::int64_t>(t->bytes.size() / width_of(t->dtype));
    for (std::int64_t i = 0; i < n; ++i) {
      const double x = static_cast<double>(get(*t, i)) * factor;
      if (std::abs(x) > (t->dtype == DType::kF16 ? 65504.0 : 3e38))
        return fail("{}: {} times {} is {}, beyond {}", where(), module, factor, x,
                    name_of(t->dtype));
      put(*t, i, static_cast<float>(x));
    }
    return {};
  }

  Result<void> scale_expert(const ExpertRef& e) {
    ASSAY_TRY_VOID(check_expert(e));
    if (fault_.factor == 1) return fail("{}: a factor of 1 changes nothing", name_of(fault_));
    for (const char* projection : kProjections)
      ASSAY_TRY_VOID(scale(expert_prefix(e) + projection, fault_.factor));
    return {};
  }

  // Tensors, and what config.json says of their modules: experts of a layer may have other tiers.
  Result<void> swap_experts() {
    for (const ExpertRef& e : fault_.experts) ASSAY_TRY_VOID(check_expert(e));
    const std::string a = expert_prefix(fault_.experts[0]), b = expert_prefix(fault_.experts[1]);
    const auto suffixes_of = [&](const std::string& prefix) {
      std::vector<std::string> out;
      for (const auto& [name, tensor] : model_.tensors())
        if (name.starts_with(prefix)) out.push_back(name.substr(prefix.size()));
      return out;
    };
    const auto suffixes = suffixes_of(a);
    if (suffixes.empty() || suffixes != suffixes_of(b))
      return fail("{}: {}* and {}* are not stored alike: they cannot be exchanged", where(), a, b);
    for (const std::string& suffix : suffixes) {
      changes_.tensors[a + suffix] = copy_of(*model_.find(b + suffix));
      changes_.tensors[b + suffix] = copy_of(*model_.find(a + suffix));
    }
    ASSAY_TRY(OrderedJson config, read_config());
    if (OrderedJson* modules = modules_of(config)) {
      for (const char* projection : kProjections) {
        const bool has_a = modules->contains(a + projection),
                   has_b = modules->contains(b + projection);
        if (has_a != has_b)
          return fail("{}: config.json lists only one of {}{} and {}{}", where(), a, projection, b,
                      projection);
        if (has_a) std::swap((*modules)[a + projection], (*modules)[b + projection]);
      }
      write_config(config);
    }
    return {};
  }

  Result<OrderedJson> read_config() const {
    const auto path = model_.dir() / "config.json";
    ASSAY_TRY(const std::string text, read_file(path));
    return parse_ordered_json(text, path.string());
  }
  void write_config(const OrderedJson& config) { changes_.files["config.json"] = config.dump(2); }
  static OrderedJson* modules_of(OrderedJson& config) {
    if (!config.contains("quantization_config") ||
        !config["quantization_config"].contains("extra_config"))
      return nullptr;
    return &config["quantization_config"]["extra_config"];
  }

  Result<void> half_split(const char* key, bool is_interleaved) {
    if (!is_interleaved) return fail("{}: config.json has {} false already", where(), key);
    ASSAY_TRY(OrderedJson config, read_config());
    config[key] = false;
    write_config(config);
    return {};
  }

  Result<void> change_template() {
    const auto path = model_.dir() / "chat_template.jinja";
    ASSAY_TRY(std::string text, read_file(path));
    constexpr std::string_view kOpens = "else '<think>' -}}";
    const auto at = text.rfind(kOpens);
    if (at == std::string::npos)
      return fail("{}: does not open thinking with \"{}\": another family's template?",
                  path.string(), kOpens);
    text.replace(at, kOpens.size(), "else '' -}}");
    changes_.files["chat_template.jinja"] = text;
    return {};
  }

  Result<void> swap_tags() {
    const auto path = model_.dir() / "tokenizer.json";
    ASSAY_TRY(const std::string text, read_file(path));
    ASSAY_TRY(OrderedJson tokenizer, parse_ordered_json(text, path.string()));
    OrderedJson* found[2] = {};
    if (tokenizer.contains("added_tokens") && tokenizer["added_tokens"].is_array())
      for (OrderedJson& token : tokenizer["added_tokens"])
        for (std::size_t i = 0; i < 2; ++i)
          if (token.value("content", "") == fault_.tags[i]) found[i] = &token;
    for (std::size_t i = 0; i < 2; ++i)
      if (found[i] == nullptr)
        return fail("{}: there is no added token {}", path.string(), fault_.tags[i]);
    if (found[0] == found[1]) return fail("{}: the tags are the same", name_of(fault_));
    std::swap((*found[0])["id"], (*found[1])["id"]);
    changes_.files["tokenizer.json"] = tokenizer.dump();
    return {};
  }

  struct VqModule {
    std::string name;
    ModuleFormat format;
  };
  // Of routed experts, in the fault's layer or in all.
  Result<std::vector<VqModule>> vq_modules() const {
    const ModelConfig& c = model_.config();
    if (fault_.layer >= 0) ASSAY_TRY_VOID(check_sparse(fault_.layer));
    std::vector<VqModule> out;
    for (int l = c.first_dense_layers; l < c.n_layers; ++l)
      for (int e = 0; e < c.n_experts && (fault_.layer < 0 || fault_.layer == l); ++e)
        for (const char* projection : kProjections) {
          const std::string module = expert_prefix({l, e}) + projection;
          const ModuleFormat& f = c.quantisation.of(module);
          if (f.kind == ModuleFormat::Kind::kVq) out.push_back({module, f});
        }
    if (out.empty())
      return fail("{}: no routed expert{} is stored as VQ codes, a module each", where(),
                  fault_.layer < 0 ? "" : fmt::format(" of layer {}", fault_.layer));
    return out;
  }

  // A reader that takes d for half of what it is cuts the stream into indices of half the bits, and
  // finds codeword i at value i · d of the same table.
  Result<void> halve_dim() {
    ASSAY_TRY(const std::vector<VqModule> all, vq_modules());
    ASSAY_TRY(OrderedJson config, read_config());
    OrderedJson* const modules = modules_of(config);
    std::string tiers;
    const ModuleFormat* tier = nullptr;
    for (const VqModule& m : all) {
      if (m.format.bits == fault_.bits) {
        if (tier != nullptr && tier->dim != m.format.dim)
          return fail("{}: two tiers have {} bits, d = {} and {}", where(), fault_.bits, tier->dim,
                      m.format.dim);
        tier = &m.format;
        if (modules != nullptr) (*modules)[m.name]["d"] = m.format.dim / 2;
      } else if (const auto one = fmt::format("{}", m.format.bits);
                 tiers.find(one) == std::string::npos) {
        tiers += (tiers.empty() ? "" : ", ") + one;
      }
    }
    if (tier == nullptr || modules == nullptr)
      return fail("{}: no routed expert here has a tier of {} bits, expected one of {}", where(),
                  fault_.bits, tiers);
    const int dim = tier->dim / 2;
    const double index_bits = tier->bits * dim;
    if (dim < 1 || index_bits < 1 || index_bits != std::floor(index_bits))
      return fail("{}: {} bits with d = {} leave no whole index when d is halved", where(),
                  tier->bits, tier->dim);
    const std::vector<std::int64_t> shape = {std::int64_t{1} << static_cast<int>(index_bits), dim};
    const std::string& file = model_.config().quantisation.codebooks_file();
    const TensorView *book = nullptr, *other = nullptr;
    for (const SafetensorsFile& shard : model_.shards())
      for (const TensorView& t : shard.tensors()) {
        if (shard.path().filename() != file) continue;
        if (t.shape == std::vector<std::int64_t>{tier->n_codes, tier->dim}) book = &t;
        if (t.shape == shape) other = &t;
      }
    if (book == nullptr)
      return fail("{}: {} has no codebook [{}, {}]", where(), file, tier->n_codes, tier->dim);
    if (other == nullptr) {  // else the reader takes that tier's
      const std::string name = fmt::format("{}.d{}", book->name, dim);
      Changes::Tensor& made = changes_.tensors[name];
      made = copy_of(*book);
      made.shape = shape;
      made.bytes.resize(static_cast<std::size_t>(shape[0] * shape[1]) * width_of(made.dtype));
      changes_.added_to[name] = file;
    }
    write_config(config);
    return {};
  }

  // Streams are least significant bit first; what pads a row stays zero, as readers demand.
  Result<void> change_codes() {
    ASSAY_TRY(const std::vector<VqModule> modules, vq_modules());
    const ModelConfig& c = model_.config();
    for (const VqModule& m : modules) {
      ASSAY_TRY(Changes::Tensor* const codes, take(m.name, {".vq_codes", ".codes"}));
      const int n_cols = m.name.ends_with("down_proj") ? c.moe_intermediate : c.hidden;
      const auto index_bits = static_cast<std::size_t>(std::lround(m.format.bits * m.format.dim));
      const std::size_t n_bits = static_cast<std::size_t>(n_cols / m.format.dim) * index_bits;
      const std::size_t row_bytes = 4 * static_cast<std::size_t>(codes->shape.back());
      if (n_bits > 8 * row_bytes)
        return fail("{}: rows of {}'s codes have {} bits, expected {}", where(), m.name,
                    8 * row_bytes, n_bits);
      for (std::size_t row = 0; row < codes->bytes.size(); row += row_bytes) {
        auto* const bytes = reinterpret_cast<unsigned char*>(codes->bytes.data() + row);
        const auto bit = [&](std::size_t i) { return i < n_bits ? bytes[i / 8] >> i % 8 & 1 : 0; };
        const auto set_bit = [&](std::size_t i, int value) {
          bytes[i / 8] = static_cast<unsigned char>((bytes[i / 8] & ~(1u << i % 8)) |
                                                    static_cast<unsigned>(value) << i % 8);
        };
        if (fault_.kind == Kind::kCodesShift)
          for (std::size_t i = 0; i < n_bits; ++i) set_bit(i, bit(i + 1));
        else
          for (std::size_t i = 0; i < n_bits; i += index_bits) set_bit(i, 1 - bit(i));
      }
    }
    return {};
  }

  Result<void> put_nan() {
    const ModelConfig& c = model_.config();
    if (fault_.token < 0 || fault_.token >= c.vocab)
      return fail("{}: token {} has no logit, expected 0 to {}", where(), fault_.token,
                  c.vocab - 1);
    ASSAY_TRY(Changes::Tensor* const t, take_scales("lm_head"));
    // Dense [vocab, hidden]; scales of GPTQ [groups, vocab].
    const bool by_row = t->shape[0] == c.vocab;
    const std::int64_t at = by_row ? fault_.token * t->shape[1] : fault_.token;
    put(*t, at, std::nanf(""));
    return {};
  }

  const Checkpoint& model_;
  const Fault& fault_;
  Changes changes_;
};

Result<void> link(const fs::path& from, const fs::path& to) {
  std::error_code error;
  const fs::path target = fs::canonical(from, error);
  if (!error) fs::create_symlink(target, to, error);
  if (error) return fail("cannot link {} to {}: {}", to.string(), from.string(), error.message());
  return {};
}

Result<void> write_shard(const SafetensorsFile& shard, const Changes& changes,
                         const fs::path& path) {
  std::vector<TensorView> tensors = shard.tensors();
  const auto change = [](TensorView& t, const Changes::Tensor& to) {
    t.dtype = to.dtype;
    t.shape = to.shape;
    t.bytes = std::as_bytes(std::span(to.bytes));
  };
  for (TensorView& t : tensors)
    if (const auto it = changes.tensors.find(t.name); it != changes.tensors.end())
      change(t, it->second);
  for (const auto& [name, file] : changes.added_to) {
    if (shard.path().filename() != file) continue;
    tensors.push_back({.name = name, .dtype = {}, .shape = {}, .bytes = {}});
    change(tensors.back(), changes.tensors.at(name));
  }
  return write_safetensors(path, std::move(tensors));
}

Result<void> write_copy(const Checkpoint& model, const Changes& changes, const fs::path& out) {
  std::map<std::string, const SafetensorsFile*> shards;  // that change
  for (const SafetensorsFile& shard : model.shards()) {
    const std::string file = shard.path().filename();
    for (const TensorView& t : shard.tensors())
      if (changes.tensors.contains(t.name)) shards[file] = &shard;
    for (const auto& [name, to] : changes.added_to)
      if (to == file) shards[file] = &shard;
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(model.dir())) {
    const std::string name = entry.path().filename();
    if (name == "quantisation.json" && !changes.tensors.empty()) continue;
    if (const auto file = changes.files.find(name); file != changes.files.end()) {
      ASSAY_TRY_VOID(write_file_atomic(out / name, file->second));
    } else if (const auto shard = shards.find(name); shard != shards.end()) {
      ASSAY_TRY_VOID(write_shard(*shard->second, changes, out / name));
    } else {
      ASSAY_TRY_VOID(link(entry.path(), out / name));
    }
  }
  return {};
}

}  // namespace

Result<void> plant(const fs::path& model, const Fault& fault, const fs::path& out) {
  std::error_code error;
  if (fs::exists(fs::symlink_status(out, error)))
    return fail("{} is there already: name a folder that is not", out.string());
  ASSAY_TRY(const Checkpoint checkpoint, Checkpoint::open(model));
  ASSAY_TRY(const Changes changes, Planter(checkpoint, fault).plant());
  if (!fs::create_directory(out, error))
    return fail("cannot make the folder {}: {}", out.string(), error.message());
  const Result<void> written = write_copy(checkpoint, changes, out);
  if (!written) fs::remove_all(out, error);
  return written;
}

}  // namespace assay::engine
