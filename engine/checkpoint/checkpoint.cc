#include "engine/checkpoint/checkpoint.h"

#include <set>

#include "base/file.h"
#include "base/json.h"
#include "engine/checkpoint/mending.h"
#include "engine/checkpoint/unfinished.h"

namespace assay::engine {
namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

// The name of a file in the same folder.
bool is_one_file(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.size() <= 255 &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string::npos;
}

// Tensor name → shard file, as the index says.
Result<std::map<std::string, std::string>> read_index(const std::filesystem::path& path) {
  ASSAY_TRY(const Json json, read_json(path));
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object() ||
      json["weight_map"].empty())
    return fail("{}: expected an object with a weight_map from tensor names to files",
                path.string());
  std::map<std::string, std::string> map;
  for (const auto& [name, file] : json["weight_map"].items()) {
    const std::string text = file.is_string() ? file.get<std::string>() : "";
    if (!is_one_file(text))
      return fail("{}: tensor {}: expected the name of a file beside the index, got {}",
                  path.string(), name, file.dump(-1, ' ', true, Json::error_handler_t::replace));
    map[name] = text;
  }
  return map;
}

// What can be read but is damaged is said with what mends it; a Git LFS pointer says that itself.
Result<SafetensorsFile> open_shard(const std::filesystem::path& path, const std::string& mend) {
  auto shard = SafetensorsFile::open(path);
  if (shard) return shard;
  const std::string& said = shard.error().message;
  if (said.starts_with(path.string() + ": ") && !said.ends_with('.'))
    return fail("{}. {}", said, mend);
  return shard;
}

// Of a folder without config.json, which assay quantize writes last: whether it is a build, and
// what makes it whole.
Result<void> why_no_config(const std::filesystem::path& folder) {
  const std::string name = folder.string();
  if (is_there(quantise_state(folder))) {
    const auto state = unfinished_quantisation(folder);
    const std::string far = state ? state->text() : "a state that cannot be understood";
    if (const std::string worker = working_in(folder); !worker.empty())
      return fail("{} is an unfinished quantisation with {}, and {} is working on it: wait for it",
                  name, far, worker);
    return fail("{} is an unfinished quantisation with {}: run the same assay quantize again {}",
                name, far, state ? "to finish it" : "to be told why");
  }
  if (is_own_build(folder))
    return fail(
        "{} is a build of assay quantize that has lost its config.json: run the same assay "
        "quantize "
        "again, which writes it anew where all else is there",
        name);
  return fail(
      "{}: config.json is missing, expected a checkpoint's folder as the hub has it (config.json, "
      "safetensors, tokenizer.json, chat_template.jinja). Name that folder, or download the file "
      "again.",
      name);
}

}  // namespace

Result<Checkpoint> Checkpoint::open(const std::filesystem::path& model_dir) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(model_dir, ignored))
    return fail(
        "{} is not a folder, expected a checkpoint folder with config.json and safetensors{}",
        model_dir.string(),
        model_dir.string().find("://") == std::string::npos
            ? ""
            : ". assay computes with the model itself and asks no server: download it first");
  Checkpoint c;
  c.dir_ = model_dir;
  for (const char* file : {"config.json", kSingle, kIndex})
    ASSAY_TRY_VOID(check_link(model_dir / file));
  if (!is_there(model_dir / "config.json")) ASSAY_TRY_VOID(why_no_config(model_dir));
  ASSAY_TRY(c.config_, load_config(model_dir));

  const std::string mend = how_to_mend(model_dir);
  std::map<std::string, std::string> index;
  std::set<std::string> files;
  const bool has_index = is_there(model_dir / kIndex);
  if (is_there(model_dir / kSingle)) {
    files.insert(kSingle);
  } else if (has_index) {
    ASSAY_TRY(index, read_index(model_dir / kIndex));
    for (const auto& [name, file] : index) files.insert(file);
  } else {
    return fail("{}: neither {} nor {} is there: the weights are missing. {}", model_dir.string(),
                kSingle, kIndex, mend);
  }
  for (const std::string& file : files) {
    ASSAY_TRY_VOID(check_link(model_dir / file));
    if (!is_there(model_dir / file))
      return fail("{}: shard {} is missing, but {} names it. {}", model_dir.string(), file, kIndex,
                  mend);
    ASSAY_TRY(SafetensorsFile shard, open_shard(model_dir / file, mend));
    c.shards_.push_back(std::move(shard));
  }
  const std::string& codebooks = c.config_.quantisation.codebooks_file();
  if (!codebooks.empty() && !files.contains(codebooks)) {  // global, beside the shards
    if (is_one_file(codebooks)) ASSAY_TRY_VOID(check_link(model_dir / codebooks));
    if (!is_one_file(codebooks) || !is_there(model_dir / codebooks))
      return fail("{}: {} is missing, which holds the codebooks. {}", model_dir.string(), codebooks,
                  mend);
    ASSAY_TRY(SafetensorsFile shard, open_shard(model_dir / codebooks, mend));
    c.shards_.push_back(std::move(shard));
  }
  for (const SafetensorsFile& shard : c.shards_)
    for (const TensorView& tensor : shard.tensors()) {
      if (!c.by_name_.emplace(tensor.name, &tensor).second)
        return fail("{}: tensor {} is in more than one shard", model_dir.string(), tensor.name);
      if (shard.path().filename() == codebooks && !files.contains(codebooks)) continue;
      const auto it = index.find(tensor.name);
      if (!index.empty() && (it == index.end() || it->second != shard.path().filename()))
        return fail("{}: {} holds tensor {}, but {} {}", model_dir.string(),
                    shard.path().filename().string(), tensor.name, kIndex,
                    it == index.end() ? "does not name it" : "puts it into " + it->second);
    }
  for (const auto& [name, file] : index)
    if (!c.by_name_.contains(name))
      return fail("{}: {} says that {} holds tensor {}, but it does not", model_dir.string(),
                  kIndex, file, name);
  return c;
}

const TensorView* Checkpoint::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : it->second;
}

}  // namespace assay::engine
