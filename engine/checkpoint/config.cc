#include "engine/checkpoint/config.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <set>
#include <utility>

#include "base/json.h"
#include "engine/checkpoint/misspelt.h"

namespace assay::engine {
namespace {

// Of config.json in this family, and not read, or only where another key says so.
const std::vector<std::string> kOtherKeys = {"architectures",
                                             "attention_dropout",
                                             "bos_token_id",
                                             "dtype",
                                             "ep_size",
                                             "head_dim",
                                             "index_head_dim",
                                             "index_n_heads",
                                             "index_skip_topk_offset",
                                             "index_topk_freq",
                                             "index_topk_pattern",
                                             "initializer_range",
                                             "model_type",
                                             "moe_router_dtype",
                                             "pad_token_id",
                                             "quantization_config",
                                             "rope_scaling",
                                             "rope_theta",
                                             "torch_dtype",
                                             "transformers_version",
                                             "use_cache",
                                             "vq"};

std::string show(const Json& json) {
  std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() > 60 ? text.substr(0, 57) + "..." : text;
}

// Of generation_config.json, near to what is read.
const std::set<std::string> kOtherGenerationKeys = {"bos_token_id", "min_p", "pad_token_id",
                                                    "sep_token_id", "top_h", "typical_p"};

void append(std::vector<std::string>& list, const std::vector<std::string>& more) {
  list.insert(list.end(), more.begin(), more.end());
}

constexpr const char* kRope = "rope_parameters";

// In which no key stands twice: other readers would take the last, or the first.
Result<Json> parse_object(std::string_view text, std::string_view source) {
  ASSAY_TRY(Json json, parse_json(text, source));
  if (!json.is_object()) return fail("{}: expected a JSON object", source);
  if (const std::string key = repeated_key(text); !key.empty())
    return fail("{}: {} stands there twice, so it is not known which is meant: leave one", source,
                key);
  return json;
}

// Reads keys of one JSON object and remembers the first thing that is wrong, so that the caller
// reads like a table.
class Fields {
 public:
  Fields(const Json& json, std::string_view source) : json_(json), source_(source) {}

  bool has(const char* key) {
    asked_.insert(key);
    return json_.contains(key) && !json_[key].is_null();
  }

  int integer(const char* key, int lo, int hi, std::optional<int> absent = {}) {
    if (!has(key)) return missing(key, absent, "an integer");
    const Json& v = json_[key];
    if (!v.is_number_integer() || v.get<double>() < lo || v.get<double>() > hi) {
      wrong(key, fmt::format("an integer from {} to {}", lo, hi));
      return lo;
    }
    return v.get<int>();
  }

  double number(const char* key, double lo, double hi, std::optional<double> absent = {}) {
    if (!has(key)) return missing(key, absent, "a number");
    const Json& v = json_[key];
    if (!v.is_number() || !(v.get<double>() >= lo && v.get<double>() <= hi)) {
      wrong(key, fmt::format("a number from {} to {}", lo, hi));
      return lo;
    }
    return v.get<double>();
  }

  bool boolean(const char* key, std::optional<bool> absent = {}) {
    if (!has(key)) return missing(key, absent, "true or false");
    if (!json_[key].is_boolean()) wrong(key, "true or false");
    return json_[key].is_boolean() && json_[key].get<bool>();
  }

  // A key that may be absent, but must have this value if it is there: what the engine computes has
  // no other form.
  void only(const char* key, const Json& supported) {
    if (has(key) && json_[key] != supported)
      wrong(key, show(supported) + ", the only value that this engine computes");
  }

  std::vector<int> ids(const char* key) {
    std::vector<int> out;
    if (!has(key)) return out;
    const Json list = json_[key].is_array() ? json_[key] : Json::array({json_[key]});
    for (const Json& v : list) {
      if (!v.is_number_integer() || v.get<double>() < 0 || v.get<double>() > 1e8) {
        wrong(key, "a token id or a list of token ids");
        break;
      }
      out.push_back(v.get<int>());
    }
    return out;
  }

  void wrong(const char* key, const std::string& expected) {
    if (error_.empty())
      error_ = fmt::format("{}: {} is {}, expected {}", source_, key,
                           json_.contains(key) ? show(json_[key]) : "absent", expected);
  }
  void contradiction(const std::string& message) {
    if (error_.empty()) error_ = fmt::format("{}: {}", source_, message);
  }

  // Once all has been read: what was asked for, and `more`, is what is known.
  std::vector<std::string> misspelt(const std::vector<std::string>& more,
                                    const std::set<std::string>& others = {}) const {
    KnownKeys known{asked_, others};
    known.read.insert(more.begin(), more.end());
    return misspelt_keys(json_, known);
  }

  const std::string& error() const { return error_; }
  const Json& json() const { return json_; }

 private:
  template <class T>
  T missing(const char* key, const std::optional<T>& absent, const char* expected) {
    if (!absent) wrong(key, expected);
    return absent.value_or(T{});
  }

  const Json& json_;
  std::string_view source_;
  std::string error_;
  std::set<std::string> asked_;
};

double rope_theta(Fields& f) {
  if (!f.has("rope_parameters")) {
    if (f.has("rope_scaling"))
      f.wrong("rope_scaling", "null: scaled rope (YaRN and the like) is not supported");
    return f.number("rope_theta", 1, 1e12);
  }
  const Json& rope = f.json()["rope_parameters"];
  if (!rope.is_object()) {
    f.wrong("rope_parameters", "an object with rope_theta and rope_type");
    return 1;
  }
  if (rope.contains("rope_type") && rope["rope_type"] != "default")
    f.wrong("rope_parameters",
            "rope_type \"default\": scaled rope (YaRN and the like) is not supported");
  const Json theta = rope.contains("rope_theta") ? rope["rope_theta"] : Json();
  if (!theta.is_number() || !(theta.get<double>() >= 1 && theta.get<double>() <= 1e12)) {
    f.wrong("rope_parameters", "rope_theta from 1 to 1e12 in it");
    return 1;
  }
  return theta.get<double>();
}

// Which layers have an indexer of their own. indexer_types is authoritative where present
// (GLM-5.2); GLM-5 and 5.1 have neither list nor frequency: every layer is full.
std::vector<bool> indexer_schedule(Fields& f, int n_layers) {
  std::vector<bool> full(static_cast<std::size_t>(n_layers), true);
  if (f.has("indexer_types")) {
    const Json& types = f.json()["indexer_types"];
    const bool right = types.is_array() && types.size() == full.size() &&
                       std::all_of(types.begin(), types.end(),
                                   [](const Json& t) { return t == "full" || t == "shared"; });
    if (!right) {
      f.wrong("indexer_types", fmt::format("a list of {} times \"full\" or \"shared\"", n_layers));
      return full;
    }
    for (int l = 0; l < n_layers; ++l) full[l] = types[l] == "full";
  } else if (f.has("index_topk_pattern")) {
    const Json& pattern = f.json()["index_topk_pattern"];
    const std::string letters = pattern.is_string() ? pattern.get<std::string>() : "";
    if (letters.size() != full.size() || letters.find_first_not_of("FS") != std::string::npos) {
      f.wrong("index_topk_pattern",
              fmt::format("{} letters, F (full) or S (shared), one per layer", n_layers));
      return full;
    }
    for (int l = 0; l < n_layers; ++l) full[l] = letters[l] == 'F';
  } else if (f.has("index_topk_freq")) {
    const int freq = f.integer("index_topk_freq", 1, 4096),
              offset = f.integer("index_skip_topk_offset", 0, 4096, 2);  // transformers' default
    for (int l = 0; l < n_layers; ++l) full[l] = std::max(l - offset + 1, 0) % freq == 0;
  }
  if (!full.empty() && !full[0])
    f.contradiction("layer 0 shares an indexer, but there is no earlier layer to share from");
  return full;
}

// What assay synthesize says of itself (engine/synthetic.h).
std::string synthetic_text(Fields& f) {
  constexpr const char* kKey = "assay_synthetic";
  if (!f.has(kKey)) return "";
  const Json& s = f.json()[kKey];
  for (const char* key : {"n_layers", "of_layers"})
    if (!s.is_object() || !s.contains(key) || !s[key].is_number_integer()) {
      f.wrong(kKey, "an object with n_layers and of_layers, as assay synthesize writes it");
      return "";
    }
  const int n = s["n_layers"], of = s["of_layers"];
  return n == of ? fmt::format("random weights in the shape of a model of {} layers", of)
                 : fmt::format("random weights in the shape of the first {} of {} layers", n, of);
}

void check_layer_types(Fields& f, const ModelConfig& c) {
  if (!f.has("mlp_layer_types")) return;
  const Json& types = f.json()["mlp_layer_types"];
  bool right = types.is_array() && static_cast<int>(types.size()) == c.n_layers;
  for (int l = 0; right && l < c.n_layers; ++l)
    right = types[l] == (c.is_dense_layer(l) ? "dense" : "sparse");
  if (!right)
    f.wrong("mlp_layer_types",
            fmt::format(
                "{} times \"dense\", then \"sparse\" to {} layers, as first_k_dense_replace says",
                c.first_dense_layers, c.n_layers));
}

}  // namespace

int ModelConfig::n_full_indexers() const {
  return index_topk == 0
             ? 0
             : static_cast<int>(std::count(indexer_full.begin(), indexer_full.end(), true));
}

Result<ModelConfig> parse_config(std::string_view text, std::string_view source) {
  ASSAY_TRY(const Json json, parse_object(text, source));
  if (!json.contains("model_type") || json["model_type"] != "glm_moe_dsa")
    return fail(
        "{}: model_type is {}, expected \"glm_moe_dsa\" (GLM-5, 5.1, 5.2). Other architectures are "
        "not supported.",
        source, json.contains("model_type") ? show(json["model_type"]) : "absent");

  Fields f(json, source);
  ModelConfig c{};
  c.model_type = "glm_moe_dsa";
  const char* dtype_key = json.contains("dtype") ? "dtype" : "torch_dtype";  // older name
  c.dtype = json.contains(dtype_key) && json[dtype_key].is_string()
                ? json[dtype_key].get<std::string>()
                : "";
  c.vocab = f.integer("vocab_size", 1, 10'000'000);
  c.hidden = f.integer("hidden_size", 1, 1 << 17);
  c.n_layers = f.integer("num_hidden_layers", 1, 4096);
  c.n_heads = f.integer("num_attention_heads", 1, 4096);
  c.q_lora = f.integer("q_lora_rank", 1, 1 << 17);
  c.kv_lora = f.integer("kv_lora_rank", 1, 1 << 17);
  c.qk_nope = f.integer("qk_nope_head_dim", 1, 1 << 13);
  c.qk_rope = f.integer("qk_rope_head_dim", 2, 1 << 13);
  c.v_head = f.integer("v_head_dim", 1, 1 << 13);
  c.first_dense_layers = f.integer("first_k_dense_replace", 0, 4096);
  c.dense_intermediate = f.integer("intermediate_size", 1, 1 << 20);
  c.moe_intermediate = f.integer("moe_intermediate_size", 1, 1 << 20);
  c.n_experts = f.integer("n_routed_experts", 1, 1 << 16);
  c.n_experts_per_token = f.integer("num_experts_per_tok", 1, 1 << 10);
  c.n_shared_experts = f.integer("n_shared_experts", 1, 64);
  c.routed_scaling = static_cast<float>(f.number("routed_scaling_factor", 1e-6, 1e6));
  c.norm_topk_prob = f.boolean("norm_topk_prob", true);
  c.n_groups = f.integer("n_group", 1, 1, 1);
  c.topk_groups = f.integer("topk_group", 1, 1, 1);
  c.rms_eps = static_cast<float>(f.number("rms_norm_eps", 1e-12, 1e-1));
  c.rope_theta = rope_theta(f);
  c.rope_interleave = f.boolean("rope_interleave", true);
  c.indexer_rope_interleave = f.boolean("indexer_rope_interleave", true);
  c.max_positions = f.integer("max_position_embeddings", 1, 1 << 27);
  c.index_topk = f.integer("index_topk", 1, 1 << 27, 0);
  if (c.index_topk > 0) {
    c.index_n_heads = f.integer("index_n_heads", 1, 4096);
    c.index_head_dim = f.integer("index_head_dim", 1, 1 << 13);
    c.indexer_full = indexer_schedule(f, c.n_layers);
    if (c.index_head_dim < c.qk_rope)
      f.contradiction(fmt::format(
          "index_head_dim is {}, smaller than qk_rope_head_dim {}: its rope part would not fit",
          c.index_head_dim, c.qk_rope));
  } else {
    c.indexer_full.assign(static_cast<std::size_t>(c.n_layers), false);
  }
  c.n_mtp_layers = f.integer("num_nextn_predict_layers", 0, 16, 0);
  const std::vector<std::string> of_quantisation = Quantisation::misspelt(json);
  auto quantisation = Quantisation::parse(json, source);
  if (!quantisation)
    return fail("{}{}", quantisation.error().message, after_error(of_quantisation));
  c.quantisation = *std::move(quantisation);
  c.tied_embeddings = f.boolean("tie_word_embeddings", false);
  c.eos_ids = f.ids("eos_token_id");
  c.synthetic = synthetic_text(f);

  f.only("hidden_act", "silu");
  f.only("scoring_func", "sigmoid");
  f.only("topk_method", "noaux_tc");
  f.only("attention_bias", false);
  f.only("moe_layer_freq", 1);
  // head_dim is not read: GLM-5.2 says 192 there, and the rope dimension is 64 all the same.
  f.only("num_key_value_heads", c.n_heads);
  f.only("qk_head_dim", c.qk_nope + c.qk_rope);
  if (c.qk_rope % 2 != 0) f.wrong("qk_rope_head_dim", "an even number");
  if (c.n_experts_per_token > c.n_experts)
    f.wrong("num_experts_per_tok", fmt::format("at most n_routed_experts = {}", c.n_experts));
  // Every expert costs memory before a single tensor is looked up; GLM-5.2 has 78 · 256.
  constexpr std::int64_t kMaxAllExperts = 1 << 18;
  if (std::int64_t{c.n_layers} * c.n_experts > kMaxAllExperts)
    f.wrong("n_routed_experts", fmt::format("at most {} experts in all {} layers together",
                                            kMaxAllExperts, c.n_layers));
  if (c.first_dense_layers > c.n_layers)
    f.wrong("first_k_dense_replace", fmt::format("at most num_hidden_layers = {}", c.n_layers));
  check_layer_types(f, c);
  for (const int id : c.eos_ids)
    if (id >= c.vocab) f.wrong("eos_token_id", fmt::format("ids below vocab_size = {}", c.vocab));
  c.misspelt = f.misspelt(kOtherKeys);
  if (json.contains(kRope))
    append(c.misspelt,
           misspelt_keys(json[kRope], {{"rope_theta", "rope_type", "partial_rotary_factor"}},
                         fmt::format("{}.", kRope)));
  append(c.misspelt, of_quantisation);
  if (!f.error().empty()) return fail("{}{}", f.error(), after_error(c.misspelt));
  return c;
}

Result<ModelConfig> load_config(const std::filesystem::path& model_dir) {
  const auto path = model_dir / "config.json";
  ASSAY_TRY(const std::string text, read_file(path));
  return parse_config(text, path.string());
}

Result<GenerationConfig> load_generation_config(const std::filesystem::path& model_dir,
                                                const ModelConfig& config) {
  const auto path = model_dir / "generation_config.json";
  GenerationConfig g;
  g.eos_ids = config.eos_ids;
  ASSAY_TRY_VOID(check_link(path));
  if (std::filesystem::exists(path)) {
    const std::string source = path.string();
    ASSAY_TRY(const std::string text, read_text_file(path));
    ASSAY_TRY(const Json json, parse_object(text, source));
    Fields f(json, source);
    g.do_sample = f.boolean("do_sample", false);
    g.temperature = f.number("temperature", 0, 100, 1.0);
    g.top_p = f.number("top_p", 0, 1, 1.0);
    g.top_k = f.integer("top_k", 0, 1 << 30, 0);
    const auto ids = f.ids("eos_token_id");
    if (!ids.empty()) g.eos_ids = ids;
    for (const int id : g.eos_ids)
      if (id >= config.vocab)
        f.wrong("eos_token_id", fmt::format("ids below vocab_size = {}", config.vocab));
    g.misspelt = f.misspelt({}, kOtherGenerationKeys);
    if (!f.error().empty()) return fail("{}{}", f.error(), after_error(g.misspelt));
  }
  if (g.eos_ids.empty())
    return fail(
        "{}: neither generation_config.json nor config.json has an eos_token_id: no reply could "
        "ever end",
        model_dir.string());
  return g;
}

std::vector<std::string> misspelt_in_files(const std::filesystem::path& model_dir,
                                           const ModelConfig& config) {
  std::vector<std::string> out;
  for (const std::string& key : config.misspelt) out.push_back("config.json: " + key);
  if (const auto generation = load_generation_config(model_dir, config))
    for (const std::string& key : generation->misspelt)
      out.push_back("generation_config.json: " + key);
  return out;
}

}  // namespace assay::engine
