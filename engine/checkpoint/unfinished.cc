#include "engine/checkpoint/unfinished.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.h"
#include "base/json.h"

namespace assay::engine {
namespace {

bool has_layer(const fs::path& round, int layer) {
  return is_there(round / layer_tensors_name(layer)) && is_there(round / layer_report_name(layer));
}

// Files of a folder that are called so, as layer_stats_name and the like.
int n_named(const fs::path& folder, std::string_view begin, std::string_view extension) {
  int n = 0;
  std::error_code ignored;
  for (fs::directory_iterator it(folder, ignored), end; it != end; it.increment(ignored)) {
    const fs::path name = it->path().filename();
    n += name.string().starts_with(begin) && name.extension() == extension;
  }
  return n;
}

}  // namespace

fs::path quantise_state(const fs::path& out) { return out / "quantize-state"; }
fs::path quantise_lock(const fs::path& state) { return state / "lock"; }
fs::path quantise_round(const fs::path& out, int round) {
  return quantise_state(out) / fmt::format("round-{}", round);
}
std::string layer_stats_name(int layer) { return fmt::format("stats-{:05}.safetensors", layer); }
std::string tier_codebook_name(int tier) { return fmt::format("codebook-{:05}.json", tier); }
std::string layer_errors_name(int layer) { return fmt::format("errors-{:05}.json", layer); }
std::string layer_kept_name(int layer) { return fmt::format("kept-{:05}.json", layer); }
std::string layer_tensors_name(int layer) { return fmt::format("layer-{:05}.safetensors", layer); }
std::string layer_report_name(int layer) { return fmt::format("layer-{:05}.json", layer); }

std::string UnfinishedQuantisation::text() const {
  if (n_layers == 0 && n_stats + n_codebooks + n_errors + n_kept == 0)
    return "no layer done yet, nor statistics of one";
  if (n_layers == 0)
    return fmt::format(
        "no layer done yet, but statistics of {} layers with experts, {} of {} codebooks and "
        "predicted errors "
        "of {} layers{}",
        n_stats, n_codebooks, n_tiers, n_errors,
        n_kept > 0 ? fmt::format(", samples encoded of {}", n_kept) : "");
  const std::string of_round =
      n_rounds > 1 ? fmt::format(" in round {} of {}", round + 1, n_rounds) : "";
  return fmt::format("{} of {} layers done{}", n_done, n_layers, of_round);
}

// Asks with a lock of its own, shared and given back at once, which is why StateLock tries twice.
std::string working_in(const fs::path& out) {
  const fs::path file = quantise_lock(quantise_state(out));
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  const bool is_held = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  ::close(fd);
  if (!is_held) return "";
  const std::string holder = read_file(file).value_or("");
  return holder.empty() ? "another process" : holder;
}

std::optional<UnfinishedQuantisation> unfinished_quantisation(const fs::path& out) {
  const auto identity = read_json(quantise_state(out) / "identity.json");
  if (!identity) return std::nullopt;
  UnfinishedQuantisation u;
  try {
    u.n_rounds = identity->at("recipe").at("n_rounds").get<int>();
    u.n_tiers = static_cast<int>(identity->at("recipe").at("tiers").size());
    if (const fs::path file = quantise_state(out) / "plan.json"; is_there(file)) {
      const auto plan = read_json(file);
      if (!plan) return std::nullopt;
      u.n_layers = static_cast<int>(plan->at("content").at("tier").size());
    }
  } catch (const Json::exception&) {
    return std::nullopt;
  }
  u.n_stats = n_named(quantise_state(out), "stats-", ".safetensors");
  u.n_codebooks = n_named(quantise_state(out), "codebook-", ".json");
  u.n_errors = n_named(quantise_state(out), "errors-", ".json");
  u.n_kept = n_named(quantise_state(out), "kept-", ".json");
  while (u.round + 1 < u.n_rounds && is_there(quantise_round(out, u.round + 1))) ++u.round;
  while (u.n_done < u.n_layers && has_layer(quantise_round(out, u.round), u.n_done)) ++u.n_done;
  return u;
}

}  // namespace assay::engine
