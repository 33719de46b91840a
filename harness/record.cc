#include "harness/record.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "base/check.h"
#include "base/json_line.h"
#include "base/shell_quoted.h"
#include "harness/steps.h"

namespace assay::harness {
namespace {

std::string reason() { return std::strerror(errno); }

std::string shown(const Json& value) {
  std::string text = value.dump();
  return text.size() > 80 ? text.substr(0, 77) + "..." : text;
}

// The path of the first difference, with both values: "plan.seed was 0, is 1".
std::string first_difference(const Json& was, const Json& is, const std::string& path) {
  if (was == is) return "";
  if (was.is_object() && is.is_object()) {
    std::set<std::string> keys;
    for (const auto& [key, value] : was.items()) keys.insert(key);
    for (const auto& [key, value] : is.items()) keys.insert(key);
    for (const std::string& key : keys) {
      const std::string at = path + "." + key;
      if (!was.contains(key)) return fmt::format("{} is new: {}", at, shown(is[key]));
      if (!is.contains(key)) return fmt::format("{} was {}, is gone", at, shown(was[key]));
      if (std::string found = first_difference(was[key], is[key], at); !found.empty()) return found;
    }
  }
  if (was.is_array() && is.is_array() && was.size() == is.size())
    for (std::size_t i = 0; i < was.size(); ++i)
      if (std::string found = first_difference(was[i], is[i], fmt::format("{}[{}]", path, i));
          !found.empty())
        return found;
  return fmt::format("{} was {}, is {}", path, shown(was), shown(is));
}

// Nothing is there, or only what a process left that was killed before its run.json was whole.
bool is_unused(const fs::path& folder) {
  std::error_code error;
  if (!fs::exists(folder, error)) return true;
  if (!fs::is_directory(folder, error)) return false;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const bool is_no_sample =
        entry.path() == folder / kSamplesFile && fs::is_empty(entry.path(), error);
    if (entry.path() != temporary_of(folder / kRunFile) && !is_no_sample) return false;
  }
  return !error;
}

// And what to do: a new run is made in a folder that is not there, or has nothing in it.
std::string why_no_run(const fs::path& folder) {
  std::error_code ignored;
  if (is_unused(folder))
    return fmt::format("{}. Begin one with assay run SUITE --model DIR --out {}",
                       fs::exists(folder, ignored) ? "it is empty" : "there is no such folder",
                       shell_quoted(folder.string()));
  return fmt::format(
      "there is no {} in it. Name the folder that an assay run wrote (its first line says \"into "
      "FOLDER\"), or begin one in another folder with assay run SUITE --model DIR --out FOLDER",
      kRunFile);
}

Result<void> make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error)
    return fail("cannot create the output folder {}: {}. Choose another with --out.",
                folder.string(), error.message());
  return {};
}

template <class T>
Result<T> mended_by(Result<T> read, std::string_view next_step) {
  if (read) return read;
  std::string_view said = read.error().message;
  if (said.ends_with('.')) said.remove_suffix(1);
  return fail("{}. {}.", said, next_step);
}

}  // namespace

Result<SampleLines> parse_sample_lines(std::string_view text, std::string_view source) {
  SampleLines lines;
  std::set<std::string> keys;
  for (int line = 1;; ++line) {
    const std::size_t newline = text.find('\n', lines.n_bytes);
    if (newline == std::string_view::npos) return lines;  // the rest, if any, is torn
    const auto where = fmt::format("{}:{}", source, line);
    const auto bytes = text.substr(lines.n_bytes, newline - lines.n_bytes);
    auto json = parse_json_line(bytes, where);
    // A machine that lost power may leave a last line of zeros: that too is torn, if nothing
    // follows it.
    if (!json && newline + 1 == text.size()) return lines;
    if (!json) return tl::unexpected(json.error());
    ASSAY_TRY(Sample sample, parse_sample(*json, where));
    if (!keys.insert(sample.key()).second)
      return fail("{}: sample '{}' is there twice", where, sample.key());
    lines.samples.push_back(std::move(sample));
    lines.n_bytes = newline + 1;
  }
}

Result<Json> read_run_json(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::exists(folder / kRunFile, ignored))
    return fail("{} holds no run: {}", folder.string(), why_no_run(folder));
  ASSAY_TRY(Json json, read_json(folder / kRunFile));
  const bool known = json.is_object() && json.contains("format") &&
                     json["format"].is_number_integer() && json["format"] >= kOldestFormat &&
                     json["format"] <= kRecordFormat;
  if (!known)
    return fail("{}: expected a run record of format {} to {}, got {}",
                (folder / kRunFile).string(), kOldestFormat, kRecordFormat,
                json.is_object() && json.contains("format") ? shown(json["format"]) : "none");
  return json;
}

Result<RunRecord> RunRecord::create(const fs::path& folder, Json head) {
  const auto refuse_if_used = [&]() -> Result<void> {
    std::error_code ignored;
    if (is_unused(folder)) return {};
    if (fs::exists(folder / kRunFile, ignored))
      return fail(
          "{} is there already and not empty. Continue it with --resume {}, or choose another "
          "--out. While another process adds samples to it, --resume says so.",
          folder.string(), shell_quoted(folder.string()));
    return fail(
        "{} is there already and not empty. There is no {} in it, so no run to continue: choose "
        "another --out.",
        folder.string(), kRunFile);
  };
  ASSAY_TRY_VOID(refuse_if_used());
  ASSAY_TRY_VOID(make_folder(folder));
  RunRecord record(folder, std::move(head));
  // Of two processes that begin here at once one has the samples, and finds no run of the other's.
  ASSAY_TRY_VOID(record.open_samples());
  ASSAY_TRY_VOID(refuse_if_used());
  ASSAY_TRY_VOID(record.write_running());
  return record;
}

Result<RunRecord> RunRecord::resume(const fs::path& folder, Json head) {
  ASSAY_TRY(const Json was, read_run_json(folder));
  for (const char* part : {"identity", "plan"})
    if (const std::string difference = first_difference(was.value(part, Json()), head[part], part);
        !difference.empty())
      return fail("cannot resume {}: {}. {}, or start a new run.", folder.string(), difference,
                  difference.starts_with("identity.model ")
                      ? "The model's files are not those that the run began with: put them back"
                  : difference.find(".hash ") != std::string::npos
                      ? "The suite's files are not those that the run began with: put them back"
                      : "Repeat the recorded options");
  // Who started the run and when stays; how it was continued is added.
  if (was.contains("provenance")) {
    Json resumed = was["provenance"].value("resumed", Json::array());
    resumed.push_back(
        {{"command", head["provenance"]["command"]}, {"started", head["provenance"]["started"]}});
    head["provenance"]["command"] = was["provenance"]["command"];
    head["provenance"]["started"] = was["provenance"]["started"];
    head["provenance"]["resumed"] = std::move(resumed);
  }
  RunRecord record(folder, std::move(head));
  ASSAY_TRY_VOID(record.open_samples());  // before anything is dropped
  const fs::path samples_path = folder / kSamplesFile;
  const fs::path steps_path = folder / kStepsFile;
  StepFrames frames;
  std::error_code error;
  if (fs::exists(steps_path, error)) {
    ASSAY_TRY(const std::string bytes, read_file(steps_path));
    ASSAY_TRY(frames, mended_by(decode_steps(bytes, steps_path.string()),
                                "Delete that file, and go on without the steps of its samples"));
    if (frames.n_bytes < bytes.size()) fs::resize_file(steps_path, frames.n_bytes, error);
    if (error)
      return fail("cannot drop the torn end of {}: {}", steps_path.string(), error.message());
  }
  if (fs::exists(samples_path, error)) {
    ASSAY_TRY(const std::string text, read_file(samples_path));
    ASSAY_TRY(
        SampleLines lines,
        mended_by(
            parse_sample_lines(text, samples_path.string()),
            "Delete that line, and its sample is asked again; or start a new run with --out"));
    record.earlier_ = std::move(lines.samples);
    for (Sample& sample : record.earlier_)
      if (const auto steps = frames.by_key.find(sample.key()); steps != frames.by_key.end())
        sample.steps = std::move(steps->second);
    if (lines.n_bytes < text.size()) fs::resize_file(samples_path, lines.n_bytes, error);
    if (error)
      return fail("cannot drop the torn last line of {}: {}", samples_path.string(),
                  error.message());
  }
  // What is complete stays so until there is something newer.
  if (was.value("status", "") != "complete") ASSAY_TRY_VOID(record.write_running());
  return record;
}

RunRecord::RunRecord(RunRecord&& other) noexcept
    : folder_(std::move(other.folder_)),
      head_(std::move(other.head_)),
      fd_(std::exchange(other.fd_, -1)),
      steps_fd_(std::exchange(other.steps_fd_, -1)),
      earlier_(std::move(other.earlier_)) {}

RunRecord::~RunRecord() {
  if (fd_ >= 0) ::close(fd_);
  if (steps_fd_ >= 0) ::close(steps_fd_);
}

Result<void> RunRecord::open_file(int& fd, const char* file) {
  if (fd >= 0) return {};
  const fs::path path = folder_ / file;
  fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return fail("cannot write {}: {}", path.string(), reason());
  return {};
}

// One process at a time adds samples. The lock is the kernel's, of the open file: it goes with the
// process, however that ends. Where the file system has no locks there is none.
Result<void> RunRecord::open_samples() {
  ASSAY_TRY_VOID(open_file(fd_, kSamplesFile));
  if (flock(fd_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return {};
  return fail(
      "another process is adding samples to {}: wait for it or end it, then continue with --resume "
      "{}; or begin a run in another folder with --out",
      folder_.string(), folder_.string());
}

Result<void> RunRecord::write_running() {
  Json json = head_;
  json["format"] = kRecordFormat;
  json["status"] = "running";
  return write_file_atomic(folder_ / kRunFile, json.dump(1) + "\n");
}

Result<void> RunRecord::append(const Sample& sample) {
  // First, so that a sample on record has its steps.
  if (!sample.steps.empty()) {
    ASSAY_TRY_VOID(open_file(steps_fd_, kStepsFile));
    ASSAY_TRY_VOID(append_bytes(steps_fd_, kStepsFile, encode_steps(sample.key(), sample.steps)));
  }
  return append_bytes(fd_, kSamplesFile,
                      to_json(sample).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

// On disk when it returns; what could not be written whole is taken back.
Result<void> RunRecord::append_bytes(int fd, const char* file, std::string_view rest) {
  CHECK(fd >= 0);
  const off_t before = ::lseek(fd, 0, SEEK_END);
  bool ok = before >= 0;
  while (ok && !rest.empty()) {
    const ssize_t n = ::write(fd, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    ok = n >= 0;
    if (ok) rest.remove_prefix(static_cast<std::size_t>(n));
  }
  ok = ok && ::fsync(fd) == 0;
  if (ok) return {};
  const std::string why = reason();
  // Should taking it back fail too, resume finds the torn end by itself.
  if (before >= 0) [[maybe_unused]]
    const int taken_back = ::ftruncate(fd, before);
  return fail(
      "cannot write {}: {}. The finished samples are kept; make room and continue with --resume "
      "{}.",
      (folder_ / file).string(), why, folder_.string());
}

Result<Json> RunRecord::finish(const std::vector<Sample>& samples, Json verdict, Json metrics,
                               Json timings, RunExtras extras) {
  Json json = head_;
  json["format"] = kRecordFormat;
  json["status"] = "complete";
  json["verdict"] = std::move(verdict);
  json["metrics"] = std::move(metrics);
  json["samples"] = {{"file", kSamplesFile}, {"n", samples.size()}, {"hash", hash_of(samples)}};
  json["timings"] = std::move(timings);
  if (!extras.comparison.is_null()) json["comparison"] = std::move(extras.comparison);
  if (!extras.goldens.empty()) json["goldens"] = std::move(extras.goldens);
  if (!extras.golden_note.empty()) json["golden_note"] = extras.golden_note;
  if (!extras.needle_grid.empty()) json["needle_grid"] = std::move(extras.needle_grid);
  if (!extras.measurements.empty()) json["measurements"] = std::move(extras.measurements);
  if (!extras.skipped.empty()) json["skipped"] = std::move(extras.skipped);
  ASSAY_TRY_VOID(write_file_atomic(folder_ / kRunFile, json.dump(1) + "\n"));
  return json;
}

}  // namespace assay::harness
