#include "engine/synthetic.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/size_text.h"
#include "base/thread_pool.h"
#include "engine/checkpoint/config.h"
#include "engine/checkpoint/enclosing.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/synthetic_stage.h"
#include "engine/synthetic_tensors.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace assay::engine {
namespace {

constexpr std::size_t kFileBytes = std::size_t{512} << 20;  // a file's, and so what is in memory
constexpr std::size_t kPartBytes = std::size_t{1} << 20;    // that a thread fills at a time

Result<void> check_out(const fs::path& out) {
  std::error_code ignored;
  if (out.empty()) return fail("no folder is named: it is made, and must not be there");
  const bool is_link = fs::is_symlink(out, ignored);
  if (is_there(out) ? fs::is_directory(out, ignored) && fs::is_empty(out, ignored) : !is_link)
    return check_is_in_no_checkpoint(out);
  return fail("{} is there already{}: nothing is overwritten. Choose another folder, or delete it",
              out.string(), is_link && !is_there(out) ? ", a link to nothing" : "");
}

void shorten(Json& config, const char* key, int n_layers) {
  if (!config.contains(key)) return;
  Json& list = config[key];
  if (list.is_array() && list.size() > static_cast<std::size_t>(n_layers))
    list.erase(list.begin() + n_layers, list.end());
  if (list.is_string())
    list = list.get<std::string>().substr(0, static_cast<std::size_t>(n_layers));
}

// "model.layers.12.…": 12; -1: in no layer.
int layer_of(std::string_view module) {
  constexpr std::string_view kLayers = "model.layers.";
  return module.starts_with(kLayers) ? std::atoi(std::string(module.substr(kLayers.size())).c_str())
                                     : -1;
}

void leave_out_layers(Json& quantization, int n_layers) {
  if (!quantization.is_object() || !quantization.contains("extra_config")) return;
  Json kept = Json::object();
  for (const auto& [module, how] : quantization["extra_config"].items())
    if (layer_of(module) < n_layers) kept[module] = how;
  quantization["extra_config"] = std::move(kept);
}

// The config.json of the first n_layers.
Json shortened_config(Json config, int n_layers) {
  config["num_hidden_layers"] = n_layers;
  if (config["first_k_dense_replace"].get<int>() > n_layers)
    config["first_k_dense_replace"] = n_layers;
  for (const char* key : {"indexer_types", "index_topk_pattern", "mlp_layer_types"})
    shorten(config, key, n_layers);
  config["num_nextn_predict_layers"] = 0;
  if (config.contains("quantization_config"))
    leave_out_layers(config["quantization_config"], n_layers);
  return config;
}

struct Shape {
  Json json;  // config.json of what is made
  ModelConfig config;
  int of_layers;
  bool as_released;  // the config did not say how
};

Result<Shape> read_shape(const fs::path& path, const SyntheticOptions& o) {
  const std::string source = path.string();
  ASSAY_TRY(const std::string text, read_text_file(path));
  ASSAY_TRY(const ModelConfig whole, parse_config(text, source));
  ASSAY_TRY(const Json json, parse_json(text, source));
  if (o.n_layers < 0 || o.n_layers > whole.n_layers)
    return fail("{} layers are asked for, expected 1 to {}, the model's (0: all)", o.n_layers,
                whole.n_layers);
  if (!whole.synthetic.empty())
    return fail("{} is of a synthetic model itself: give the config.json of what it was made from",
                source);
  const int n_layers = o.n_layers == 0 ? whole.n_layers : o.n_layers;
  Shape shape{shortened_config(json, n_layers), {}, whole.n_layers, false};
  if (!shape.json.contains("quantization_config") && !shape.json.contains("vq")) {
    shape.as_released = true;
    ASSAY_TRY(const ModelConfig shorter, parse_config(shape.json.dump(), source));
    shape.json["quantization_config"] = release_quantization(shorter, o.seed);
  }
  shape.json["assay_synthetic"] = {
      {"seed", o.seed}, {"n_layers", n_layers}, {"of_layers", whole.n_layers}};
  ASSAY_TRY(shape.config, parse_config(shape.json.dump(), source));
  return shape;
}

int count_left_dense(const SyntheticModel& model) {
  return static_cast<int>(
      std::count_if(model.tensors.begin(), model.tensors.end(), [](const SyntheticTensor& t) {
        return t.name.find(".indexer.") == std::string::npos &&
               (t.name.find("_proj") != std::string::npos || t.name.starts_with("lm_head")) &&
               t.name.ends_with(".weight") && t.dtype == DType::kBf16;
      }));
}

Result<void> check_tokenizer(const fs::path& folder, const ModelConfig& config) {
  ASSAY_TRY(const text::Tokenizer tokenizer, text::Tokenizer::load(folder / "tokenizer.json"));
  if (tokenizer.vocab_size() > config.vocab)
    return fail(
        "{} has ids up to {}, but the model's vocab_size is {}: name a folder with a "
        "smaller tokenizer (--tokenizer)",
        (folder / "tokenizer.json").string(), tokenizer.vocab_size() - 1, config.vocab);
  ASSAY_TRY_VOID(text::ChatTemplate::load(folder));
  return {};
}

Result<void> check_space(const fs::path& out, std::size_t n_bytes) {
  fs::path place = fs::absolute(out);
  while (!is_there(place) && place != place.parent_path()) place = place.parent_path();
  std::error_code error;
  const fs::space_info disk = fs::space(place, error);
  if (error || disk.available >= n_bytes) return {};
  return fail(
      "{} are free on the disk of {}, and {} takes {}: ask for fewer --layers, or choose a folder "
      "on another disk",
      size_text(static_cast<double>(disk.available)), place.string(), out.string(),
      size_text(static_cast<double>(n_bytes)));
}

Result<void> copy_if_there(const fs::path& from, const fs::path& to) {
  if (!is_there(from)) return {};
  std::error_code error;
  fs::copy_file(from, to, error);
  if (error) return fail("cannot copy {} to {}: {}", from.string(), to.string(), error.message());
  return {};
}

class Writer {
 public:
  Writer(const fs::path& out, const SyntheticOptions& options)
      : out_(out), o_(options), pool_(options.n_threads) {}

  Result<SyntheticSummary> write(const SyntheticModel& model) {
    const std::vector<std::span<const SyntheticTensor>> files = cut(model.tensors);
    const auto n = static_cast<int>(files.size());
    summary_.n_files = n + (model.codebooks.empty() ? 0 : 1);
    Json weight_map = Json::object();
    for (int i = 0; i < n; ++i) {
      const auto& file = files[static_cast<std::size_t>(i)];
      const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, n);
      for (const SyntheticTensor& t : file) weight_map[t.name] = name;
      ASSAY_TRY_VOID(write_file(name, file));
    }
    if (!model.codebooks.empty())
      ASSAY_TRY_VOID(write_file("vq_codebooks.safetensors", model.codebooks));
    const Json index = {{"metadata", {{"total_size", summary_.n_bytes}}},
                        {"weight_map", std::move(weight_map)}};
    ASSAY_TRY_VOID(write_file_atomic(out_ / "model.safetensors.index.json", index.dump(0) + "\n"));
    return summary_;
  }

 private:
  static std::vector<std::span<const SyntheticTensor>> cut(
      std::span<const SyntheticTensor> tensors) {
    std::vector<std::span<const SyntheticTensor>> files;
    std::size_t first = 0, n_bytes = 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (i > first && n_bytes + tensors[i].n_bytes() > kFileBytes) {
        files.push_back(tensors.subspan(first, i - first));
        first = i, n_bytes = 0;
      }
      n_bytes += tensors[i].n_bytes();
    }
    files.push_back(tensors.subspan(first));
    return files;
  }

  Result<void> write_file(const std::string& name, std::span<const SyntheticTensor> tensors) {
    struct Part {
      std::size_t tensor, first;
    };
    std::vector<Part> parts;
    std::vector<TensorView> views;
    std::vector<std::span<std::byte>> bytes;
    std::size_t n_bytes = 0;
    for (const SyntheticTensor& t : tensors) n_bytes += t.n_bytes();
    reserve(n_bytes);
    std::byte* next = buffer_.get();
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      bytes.emplace_back(next, tensors[i].n_bytes());
      next += bytes[i].size();
      for (std::size_t at = 0; at < bytes[i].size(); at += kPartBytes) parts.push_back({i, at});
      views.push_back({tensors[i].name, tensors[i].dtype, tensors[i].shape, bytes[i]});
    }
    summary_.n_bytes += static_cast<std::int64_t>(n_bytes);
    pool_.parallel_for(static_cast<int>(parts.size()), [&](int i) {
      if (o_.stop && o_.stop()) stopped_ = true;
      if (stopped_) return;
      const Part& part = parts[static_cast<std::size_t>(i)];
      const std::span<std::byte> whole = bytes[part.tensor];
      fill_synthetic(tensors[part.tensor], o_.seed, part.first,
                     whole.subspan(part.first, std::min(kPartBytes, whole.size() - part.first)));
    });
    if (stopped_) return fail("stopped");
    pool_.parallel_for(static_cast<int>(tensors.size()), [&](int i) {
      const auto at = static_cast<std::size_t>(i);
      clear_padding(tensors[at], bytes[at]);
    });
    ASSAY_TRY_VOID(write_safetensors(out_ / name, std::move(views)));
    if (o_.on_file) o_.on_file(++n_written_, summary_.n_files, summary_.n_bytes);
    return {};
  }

  void reserve(std::size_t n_bytes) {
    if (n_bytes <= buffer_bytes_) return;
    buffer_.reset();  // both together may be too much
    buffer_ = std::make_unique_for_overwrite<std::byte[]>(n_bytes);
    buffer_bytes_ = n_bytes;
  }

  const fs::path& out_;
  const SyntheticOptions& o_;
  ThreadPool pool_;
  std::unique_ptr<std::byte[]> buffer_;  // of a file's tensors; kept for the next one's
  std::size_t buffer_bytes_ = 0;
  SyntheticSummary summary_;
  std::atomic<bool> stopped_ = false;
  int n_written_ = 0;
};

Result<SyntheticSummary> write_all(const Shape& shape, const SyntheticModel& model,
                                   const fs::path& config, const fs::path& tokenizer,
                                   const fs::path& out, const SyntheticOptions& o) {
  ASSAY_TRY(SyntheticSummary summary, Writer(out, o).write(model));
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"})
    ASSAY_TRY_VOID(copy_if_there(tokenizer / name, out / name));
  ASSAY_TRY_VOID(copy_if_there(config.parent_path() / "generation_config.json",
                               out / "generation_config.json"));
  ASSAY_TRY_VOID(write_file_atomic(out / "config.json", shape.json.dump(0) + "\n"));
  summary.n_layers = shape.config.n_layers;
  summary.of_layers = shape.of_layers;
  if (shape.as_released) summary.n_left_dense = count_left_dense(model);
  return summary;
}

}  // namespace

Result<SyntheticSummary> synthesize(const fs::path& config_or_folder, const fs::path& tokenizer,
                                    const fs::path& out, const SyntheticOptions& options) {
  std::error_code error;
  const fs::path config = fs::is_directory(config_or_folder, error)
                              ? config_or_folder / "config.json"
                              : config_or_folder;
  ASSAY_TRY_VOID(check_out(out));
  ASSAY_TRY(const Shape shape, read_shape(config, options));
  ASSAY_TRY(const GenerationConfig generation,
            load_generation_config(config.parent_path(), shape.config));
  ASSAY_TRY_VOID(check_tokenizer(tokenizer, shape.config));
  for (const auto& [file, misspelt] :
       {std::pair{config, &shape.config.misspelt},
        {config.parent_path() / "generation_config.json", &generation.misspelt}})
    for (const std::string& key : *misspelt)
      if (options.on_note) options.on_note(fmt::format("warning: {}: {}", file.string(), key));
  ASSAY_TRY(const SyntheticModel model, synthetic_model(shape.config));
  for (const fs::path& left : Stage::clear_left_beside(out))
    if (options.on_note)
      options.on_note(fmt::format("{} was left half made by a process that is gone, and is deleted",
                                  left.string()));
  std::size_t n_bytes = 0;
  for (const SyntheticTensor& t : model.tensors) n_bytes += t.n_bytes();
  ASSAY_TRY_VOID(check_space(out, n_bytes));
  ASSAY_TRY(const std::unique_ptr<Stage> stage, Stage::beside(out));
  ASSAY_TRY(const SyntheticSummary summary,
            write_all(shape, model, config, tokenizer, stage->folder(), options));
  ASSAY_TRY_VOID(stage->finish());
  return summary;
}

}  // namespace assay::engine
