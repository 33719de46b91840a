// For tests: a GLM checkpoint of 1 MB with micro-glm's tokenizer and chat template, and its tensors
// to damage.
#pragma once

#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/file.h"
#include "base/json.h"

namespace assay {

struct StoredTensor {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::string bytes;
};
using StoredTensors = std::map<std::string, StoredTensor>;

inline void write_tensors(const fs::path& file, const StoredTensors& tensors) {
  Json header = Json::object();
  std::string data;
  for (const auto& [name, t] : tensors) {
    header[name] = {{"dtype", t.dtype},
                    {"shape", t.shape},
                    {"data_offsets", {data.size(), data.size() + t.bytes.size()}}};
    data += t.bytes;
  }
  const std::string json = header.dump();
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(json.size() >> (8 * i) & 255);
  CHECK(write_file_atomic(file, out + json + data)) << file.string();
}

inline StoredTensors read_tensors(const fs::path& file) {
  const std::string bytes = *read_file(file);
  std::size_t n_header = 0;
  for (std::size_t i = 8; i-- > 0;)
    n_header = n_header << 8 | static_cast<unsigned char>(bytes.at(i));
  StoredTensors out;
  const Json header = Json::parse(bytes.substr(8, n_header));
  for (const auto& [name, t] : header.items()) {
    if (name == "__metadata__") continue;
    const auto begin = t["data_offsets"][0].get<std::size_t>(),
               end = t["data_offsets"][1].get<std::size_t>();
    out[name] = {t["dtype"], t["shape"], bytes.substr(8 + n_header + begin, end - begin)};
  }
  return out;
}

// Sizes that every tier and a 4-bit spine can pack; random bf16 weights, another draw per seed.
inline void make_tiny_model(const fs::path& folder, int vocab = 3072, unsigned seed = 5) {
  const std::string source = std::string(ASSAY_SOURCE_DIR) + "/golden/micro-glm/model/";
  fs::create_directories(folder);
  for (const char* name :
       {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"})
    fs::copy_file(source + name, folder / name);
  const Json config = {{"model_type", "glm_moe_dsa"},
                       {"vocab_size", vocab},
                       {"hidden_size", 64},
                       {"num_hidden_layers", 3},
                       {"num_attention_heads", 2},
                       {"q_lora_rank", 16},
                       {"kv_lora_rank", 16},
                       {"qk_nope_head_dim", 8},
                       {"qk_rope_head_dim", 8},
                       {"v_head_dim", 8},
                       {"first_k_dense_replace", 1},
                       {"intermediate_size", 48},
                       {"moe_intermediate_size", 32},
                       {"n_routed_experts", 4},
                       {"num_experts_per_tok", 2},
                       {"n_shared_experts", 1},
                       {"routed_scaling_factor", 2.5},
                       {"norm_topk_prob", true},
                       {"rms_norm_eps", 1e-5},
                       {"rope_parameters", {{"rope_theta", 10000.0}, {"rope_type", "default"}}},
                       {"max_position_embeddings", 512},
                       {"index_topk", 64},
                       {"index_n_heads", 2},
                       {"index_head_dim", 16},
                       {"indexer_types", {"full", "full", "shared"}},
                       {"eos_token_id", {3051, 3058, 3060}}};
  CHECK(write_file_atomic(folder / "config.json", config.dump(1)));

  StoredTensors out;
  std::mt19937 random(seed);
  const auto put = [&](const std::string& name, const std::vector<std::int64_t>& shape) {
    StoredTensor t{"BF16", shape, ""};
    std::int64_t n = 1;
    for (const std::int64_t s : shape) n *= s;
    for (std::int64_t i = 0; i < n; ++i) {
      const unsigned bits = name.find("norm.weight") != std::string::npos
                                ? 0x3F80                                             // 1
                                : 0x3D80 + random() % 0x100 + (random() % 2 << 15);  // ± 1/16 … 1/4
      t.bytes += {static_cast<char>(bits & 255), static_cast<char>(bits >> 8)};
    }
    out[name] = std::move(t);
  };
  const auto put_mlp = [&](const std::string& prefix, std::int64_t width) {
    put(prefix + "gate_proj.weight", {width, 64});
    put(prefix + "up_proj.weight", {width, 64});
    put(prefix + "down_proj.weight", {64, width});
  };
  put("model.embed_tokens.weight", {vocab, 64});
  put("model.norm.weight", {64});
  put("lm_head.weight", {vocab, 64});
  for (int l = 0; l < 3; ++l) {
    const std::string p = fmt::format("model.layers.{}.", l), a = p + "self_attn.";
    put(p + "input_layernorm.weight", {64});
    put(p + "post_attention_layernorm.weight", {64});
    put(a + "q_a_proj.weight", {16, 64});
    put(a + "q_a_layernorm.weight", {16});
    put(a + "q_b_proj.weight", {32, 16});
    put(a + "kv_a_proj_with_mqa.weight", {24, 64});
    put(a + "kv_a_layernorm.weight", {16});
    put(a + "kv_b_proj.weight", {32, 16});
    put(a + "o_proj.weight", {64, 16});
    if (l < 2) {
      put(a + "indexer.wq_b.weight", {32, 16});
      put(a + "indexer.wk.weight", {16, 64});
      put(a + "indexer.weights_proj.weight", {2, 64});
      put(a + "indexer.k_norm.weight", {16});
      put(a + "indexer.k_norm.bias", {16});
    }
    if (l == 0) {
      put_mlp(p + "mlp.", 48);
      continue;
    }
    put_mlp(p + "mlp.shared_experts.", 32);
    put(p + "mlp.gate.weight", {4, 64});
    put(p + "mlp.gate.e_score_correction_bias", {4});
    for (int e = 0; e < 4; ++e) put_mlp(fmt::format("{}mlp.experts.{}.", p, e), 32);
  }
  write_tensors(folder / "model.safetensors", out);
}

}  // namespace assay
