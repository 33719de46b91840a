#include "engine/quantize/state_check.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/shortened.h"
#include "engine/quantize/identity.h"
#include "engine/quantize/sealed_file.h"
#include "engine/quantize/state_lock.h"

namespace assay::engine {
namespace {

constexpr std::size_t kMostNamed = 4;

// Below the state's folder, in order: finished files, not its lock nor what was half written.
std::vector<fs::path> pieces_of(const fs::path& folder) {
  std::vector<fs::path> out;
  std::error_code ignored;
  for (fs::recursive_directory_iterator it(folder, ignored), end; it != end; it.increment(ignored))
    if (it->is_regular_file(ignored) && it->path() != StateLock::file_of(folder) &&
        it->path().extension() != ".tmp")
      out.push_back(it->path());
  std::sort(out.begin(), out.end());
  return out;
}

bool is_of_layer(const fs::path& piece) {
  return piece.filename().string().starts_with("layer-") &&
         piece.parent_path().filename().string().starts_with("round-");
}

std::string_view without(std::string_view end, std::string_view text) {
  return text.ends_with(end) ? text.substr(0, text.size() - end.size()) : text;
}

Result<void> check_piece(const fs::path& piece) {
  const bool is_json = piece.extension() == ".json";
  if (!is_json && piece.extension() != ".safetensors") return {};  // not of the quantiser
  if (is_json) {
    ASSAY_TRY_VOID(read_sealed(piece));
  } else if (!is_of_layer(piece)) {
    ASSAY_TRY_VOID(open_sealed(piece));
  } else {  // sealed by its report; without one it is not finished, and made anew
    const fs::path report = fs::path(piece).replace_extension(".json");
    if (const auto says = read_sealed(report))
      ASSAY_TRY_VOID(open_sealed_by(piece, says->value("tensors", Json())));
  }
  return {};
}

}  // namespace

bool is_state_without_pieces(const fs::path& folder) { return pieces_of(folder).empty(); }

Result<void> check_state(const fs::path& folder) {
  const std::vector<fs::path> pieces = pieces_of(folder);
  if (pieces.empty()) return {};
  const fs::path identity = folder / kIdentityFile;
  const auto of = is_there(identity) ? read_identity(identity)
                                     : Result<Json>(fail("{} is missing", identity.string()));
  if (!of)
    return fail(
        "{}. Without it nothing tells what the other files there were made of. Delete {} and run "
        "the same command again, which then begins anew, or choose another folder than {}",
        without(".", of.error().message), folder.string(), folder.parent_path().string());
  std::vector<std::string> bad;
  for (const fs::path& piece : pieces) {
    if (piece == identity) continue;
    if (const auto checked = check_piece(piece); !checked) bad.push_back(checked.error().message);
  }
  if (bad.empty()) return {};
  if (bad.size() == 1) return fail("{}", bad.front());
  for (std::string& message : bad) message = without(kDeleteDamaged, message);
  return fail("{} files are damaged: {}. Delete these files: the same command {}makes them anew",
              bad.size(), shortened(bad, "; ", kMostNamed),
              bad.size() > kMostNamed ? "names the rest, and then " : "");
}

}  // namespace assay::engine
