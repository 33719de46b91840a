// For tests: writes a small, valid GLM checkpoint, whole or sharded, with experts apart or stacked,
// which a test may then damage.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/file.h"
#include "base/json.h"
#include "engine/checkpoint/safetensors.h"

namespace assay::engine {

struct TinyTensor {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::string bytes;
};
using TinyTensors = std::map<std::string, TinyTensor>;

inline Json tiny_config() {
  return Json::parse(
      R"({"model_type": "glm_moe_dsa", "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 3,
    "num_attention_heads": 2, "q_lora_rank": 12, "kv_lora_rank": 8, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 5,
    "first_k_dense_replace": 1, "intermediate_size": 24, "moe_intermediate_size": 10, "n_routed_experts": 3,
    "num_experts_per_tok": 2, "n_shared_experts": 1, "routed_scaling_factor": 2.5, "norm_topk_prob": true, "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "max_position_embeddings": 64, "index_topk": 8,
    "index_n_heads": 2, "index_head_dim": 6, "indexer_types": ["full", "full", "shared"], "eos_token_id": [1, 2]})");
}

// Random bf16 values of every tensor that tiny_config() asks for; one tensor per expert.
inline TinyTensors tiny_tensors() {
  TinyTensors out;
  std::mt19937 rng(5);
  const auto put = [&](const std::string& name, const std::vector<std::int64_t>& shape) {
    TinyTensor t{"BF16", shape, ""};
    std::int64_t n = 1;
    for (const auto s : shape) n *= s;
    for (std::int64_t i = 0; i < n; ++i) {
      const unsigned bits = 0x3C00 + rng() % 0x200 + (rng() % 2 << 15);  // ± 0.008 to 0.03
      t.bytes += {static_cast<char>(bits & 255), static_cast<char>(bits >> 8)};
    }
    out[name] = t;
  };
  put("model.embed_tokens.weight", {40, 16});
  put("model.norm.weight", {16});
  put("lm_head.weight", {40, 16});
  for (int l = 0; l < 3; ++l) {
    const std::string p = fmt::format("model.layers.{}.", l), a = p + "self_attn.";
    put(p + "input_layernorm.weight", {16});
    put(p + "post_attention_layernorm.weight", {16});
    put(a + "q_a_proj.weight", {12, 16});
    put(a + "q_a_layernorm.weight", {12});
    put(a + "q_b_proj.weight", {20, 12});
    put(a + "kv_a_proj_with_mqa.weight", {12, 16});
    put(a + "kv_a_layernorm.weight", {8});
    put(a + "kv_b_proj.weight", {22, 8});
    put(a + "o_proj.weight", {16, 10});
    if (l < 2) {
      put(a + "indexer.wq_b.weight", {12, 12});
      put(a + "indexer.wk.weight", {6, 16});
      put(a + "indexer.weights_proj.weight", {2, 16});
      put(a + "indexer.k_norm.weight", {6});
      put(a + "indexer.k_norm.bias", {6});
    }
    const auto mlp = [&](const std::string& prefix, std::int64_t width) {
      put(prefix + "gate_proj.weight", {width, 16});
      put(prefix + "up_proj.weight", {width, 16});
      put(prefix + "down_proj.weight", {16, width});
    };
    if (l == 0) {
      mlp(p + "mlp.", 24);
      continue;
    }
    mlp(p + "mlp.shared_experts.", 10);
    put(p + "mlp.gate.weight", {3, 16});
    put(p + "mlp.gate.e_score_correction_bias", {3});
    for (int e = 0; e < 3; ++e) mlp(fmt::format("{}mlp.experts.{}.", p, e), 10);
  }
  return out;
}

// The same experts as transformers 5 stacks them: gate_up_proj [E, 2I, H], gate rows first, and
// down_proj [E, H, I].
inline TinyTensors stacked(const TinyTensors& tensors) {
  TinyTensors out = tensors;
  for (int l = 1; l < 3; ++l) {
    const std::string p = fmt::format("model.layers.{}.mlp.experts.", l);
    TinyTensor gate_up{"BF16", {3, 20, 16}, ""}, down{"BF16", {3, 16, 10}, ""};
    for (int e = 0; e < 3; ++e) {
      for (const char* part : {"gate", "up", "down"}) {
        const auto node = out.extract(fmt::format("{}{}.{}_proj.weight", p, e, part));
        (std::string_view(part) == "down" ? down : gate_up).bytes += node.mapped().bytes;
      }
    }
    out[p + "gate_up_proj"] = gate_up;
    out[p + "down_proj"] = down;
  }
  return out;
}

inline std::string safetensors_bytes(const TinyTensors& tensors) {
  Json header = Json::object();
  std::string data;
  for (const auto& [name, t] : tensors) {
    header[name] = {{"dtype", t.dtype},
                    {"shape", t.shape},
                    {"data_offsets", {data.size(), data.size() + t.bytes.size()}}};
    data += t.bytes;
  }
  const std::string json = header.dump();
  std::string out(8, '\0');
  for (int i = 0; i < 8; ++i) out[i] = static_cast<char>(json.size() >> (8 * i));
  return out + json + data;
}

// A temporary checkpoint folder, removed at the end.
class TinyCheckpoint {
 public:
  TinyCheckpoint() {
    std::string pattern = (fs::temp_directory_path() / "assay-tiny-XXXXXX").string();
    CHECK(mkdtemp(pattern.data()) != nullptr);
    dir = pattern;
    write("config.json", tiny_config().dump());
  }
  ~TinyCheckpoint() { fs::remove_all(dir); }
  TinyCheckpoint(const TinyCheckpoint&) = delete;
  TinyCheckpoint& operator=(const TinyCheckpoint&) = delete;

  void write(const std::string& file, const std::string& bytes) const {
    std::ofstream(dir / file, std::ios::binary) << bytes;
  }
  void write_single(const TinyTensors& tensors) const {
    write("model.safetensors", safetensors_bytes(tensors));
  }
  void write_sharded(const TinyTensors& tensors) const {
    TinyTensors shard[2];
    Json map;
    int i = 0;
    for (const auto& [name, t] : tensors) {
      shard[i % 2][name] = t;
      map[name] = fmt::format("model-0000{}-of-00002.safetensors", i++ % 2 + 1);
    }
    for (int s = 0; s < 2; ++s)
      write(fmt::format("model-0000{}-of-00002.safetensors", s + 1), safetensors_bytes(shard[s]));
    write("model.safetensors.index.json", Json{{"weight_map", map}}.dump());
  }

  fs::path dir;
};

}  // namespace assay::engine
