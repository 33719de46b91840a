#include "engine/checkpoint/safetensors.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/json.h"

namespace assay::engine {
namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr int kMaxDepth = 8;  // tensor entries need 4; a deeper header is not one

struct DTypeEntry {
  DType dtype;
  std::string_view name;
  std::size_t bytes;
};
constexpr std::array<DTypeEntry, 12> kDTypes = {{{DType::kBf16, "BF16", 2},
                                                 {DType::kF16, "F16", 2},
                                                 {DType::kF32, "F32", 4},
                                                 {DType::kF64, "F64", 8},
                                                 {DType::kI8, "I8", 1},
                                                 {DType::kU8, "U8", 1},
                                                 {DType::kI16, "I16", 2},
                                                 {DType::kI32, "I32", 4},
                                                 {DType::kI64, "I64", 8},
                                                 {DType::kU32, "U32", 4},
                                                 {DType::kBool, "BOOL", 1},
                                                 {DType::kF8E4M3, "F8_E4M3", 1}}};

const DTypeEntry& entry_of(DType dtype) {
  return *std::find_if(kDTypes.begin(), kDTypes.end(),
                       [&](const DTypeEntry& e) { return e.dtype == dtype; });
}

// Parsing is recursive, so a header of a million brackets would overflow the stack.
bool too_deep(std::string_view json) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

// A value or name from the file as it may stand in a message: short, on one line, and without the
// control characters that could drive a terminal.
std::string shown(std::string text) {
  constexpr std::size_t kMaxShown = 160;
  if (text.size() > kMaxShown) {
    std::size_t n = kMaxShown;
    while ((static_cast<unsigned char>(text[n]) & 0xc0) == 0x80) --n;  // not inside a character
    text = text.substr(0, n) + "...";
  }
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return text;
}

std::string shown(const Json& json) {
  return shown(json.dump(-1, ' ', true, Json::error_handler_t::replace));
}

// nlohmann keeps the last of two equal keys: finds duplicate tensors, and fields of one. (Its
// parser with a callback would look at all tensors so far at the end of each.)
class DuplicateKeys final : public nlohmann::json_sax<Json> {
 public:
  std::string tensor, field;  // the last that was there twice

  bool key(string_t& name) override {
    if (depth_ == 1) {
      if (!tensors_.insert(name).second) tensor = name;
      fields_.clear();
    } else if (depth_ == 2 && !fields_.insert(name).second) {
      field = name;
    }
    return true;
  }
  bool start_object(std::size_t) override { return ++depth_ > 0; }
  bool start_array(std::size_t) override { return ++depth_ > 0; }
  bool end_object() override { return --depth_ >= 0; }
  bool end_array() override { return --depth_ >= 0; }
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool parse_error(std::size_t, const std::string&, const Json::exception&) override {
    return false;  // parsing says it again
  }

 private:
  int depth_ = 0;
  std::set<std::string> tensors_, fields_;
};

Result<Json> parse_header(std::string_view text, std::string_view source) {
  if (too_deep(text))
    return fail("{}: the header is nested deeper than {} levels, which no safetensors header is",
                source, kMaxDepth);
  // The JSON reader takes a zero byte for the end of the text and would not look at what follows.
  if (const auto at = text.find('\0'); at != std::string_view::npos)
    return fail("{}: the header is not valid JSON: a zero byte at {}", source, at);
  try {
    Json json = Json::parse(text.begin(), text.end());
    DuplicateKeys duplicates;
    Json::sax_parse(text.begin(), text.end(), &duplicates);
    if (!duplicates.tensor.empty())
      return fail("{}: the header names tensor {} twice", source, shown(duplicates.tensor));
    if (!duplicates.field.empty())
      return fail("{}: an entry of the header has {} twice", source, shown(duplicates.field));
    if (!json.is_object())
      return fail("{}: the header is not a JSON object. Is this a safetensors file?", source);
    return json;
  } catch (const nlohmann::json::exception& error) {
    return fail("{}: the header is not valid JSON at byte {}", source,
                dynamic_cast<const nlohmann::json::parse_error*>(&error) != nullptr
                    ? static_cast<const nlohmann::json::parse_error&>(error).byte
                    : 0);
  }
}

Result<std::uint64_t> unsigned_of(const Json& json, std::string_view source, std::string_view name,
                                  std::string_view what) {
  if (!json.is_number_unsigned())
    return fail("{}: tensor {}: {} holds {}, expected a non-negative integer", source, name, what,
                shown(json));
  return json.get<std::uint64_t>();
}

struct Entry {
  TensorView view;
  std::uint64_t begin, end;
};

Result<Entry> parse_entry(const std::string& full_name, const Json& json,
                          std::span<const std::byte> data, std::string_view source) {
  const std::string name = shown(full_name);  // in messages
  if (!json.is_object() || !json.contains("dtype") || !json.contains("shape") ||
      !json.contains("data_offsets"))
    return fail("{}: tensor {}: expected dtype, shape and data_offsets", source, name);
  const Json &dtype = json["dtype"], &shape = json["shape"], &offsets = json["data_offsets"];
  const auto* known = dtype.is_string()
                          ? std::find_if(kDTypes.begin(), kDTypes.end(),
                                         [&](const DTypeEntry& e) {
                                           return e.name == dtype.get_ref<const std::string&>();
                                         })
                          : kDTypes.end();
  if (known == kDTypes.end())
    return fail(
        "{}: tensor {}: unknown dtype {}, expected BF16, F16, F32, F64, F8_E4M3, an integer type "
        "or BOOL",
        source, name, shown(dtype));
  if (!shape.is_array() || shape.size() > 8)
    return fail("{}: tensor {}: shape is not a list of at most 8 sizes", source, name);
  if (!offsets.is_array() || offsets.size() != 2)
    return fail("{}: tensor {}: data_offsets is not [begin, end]", source, name);
  Entry entry{.view = {.name = full_name, .dtype = known->dtype, .shape = {}, .bytes = {}},
              .begin = 0,
              .end = 0};
  std::uint64_t n_bytes = known->bytes;
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  for (const Json& size : shape) {
    ASSAY_TRY(const std::uint64_t n, unsigned_of(size, source, name, "shape"));
    if (n > kMax || (n != 0 && n_bytes > kMax / n))  // a zero before it must not hide a huge size
      return fail("{}: tensor {}: shape {} is larger than any memory", source, name, shape.dump());
    n_bytes *= n;
    entry.view.shape.push_back(static_cast<std::int64_t>(n));
  }
  ASSAY_TRY(entry.begin, unsigned_of(offsets[0], source, name, "data_offsets"));
  ASSAY_TRY(entry.end, unsigned_of(offsets[1], source, name, "data_offsets"));
  if (entry.begin > entry.end || entry.end > data.size())
    return fail(
        "{}: tensor {}: its bytes are [{}, {}), but the file has {} bytes of data. The file is "
        "truncated or its header is damaged",
        source, name, entry.begin, entry.end, data.size());
  if (entry.end - entry.begin != n_bytes)
    return fail("{}: tensor {}: {} {} needs {} bytes, but the header gives it {}", source, name,
                known->name, shape.dump(), n_bytes, entry.end - entry.begin);
  entry.view.bytes = data.subspan(entry.begin, n_bytes);
  return entry;
}

}  // namespace

std::string_view name_of(DType dtype) { return entry_of(dtype).name; }
std::size_t bytes_of(DType dtype) { return entry_of(dtype).bytes; }

std::int64_t TensorView::n_elements() const {
  std::int64_t n = 1;
  for (const std::int64_t s : shape) n *= s;
  return n;
}

Result<std::vector<TensorView>> parse_safetensors(std::span<const std::byte> file,
                                                  std::string_view source) {
  const std::string_view whole(reinterpret_cast<const char*>(file.data()), file.size());
  if (whole.starts_with("version https://git-lfs"))
    return fail("{}: a Git LFS pointer, not the weights. Run `git lfs pull` in its repository.",
                source);
  if (file.size() < 8)
    return fail("{}: {} bytes long, expected at least the 8 bytes of the header's length", source,
                file.size());
  std::uint64_t n_header = 0;
  for (int i = 7; i >= 0; --i) n_header = n_header << 8 | static_cast<std::uint64_t>(file[i]);
  if (n_header > kMaxHeaderBytes)
    return fail(
        "{}: the header claims {} bytes, more than the format's limit of {}. This is not a "
        "safetensors file, or it is damaged",
        source, n_header, kMaxHeaderBytes);
  if (n_header > file.size() - 8)
    return fail(
        "{}: the header claims {} bytes, but the file has only {} after its first 8. The file is "
        "truncated",
        source, n_header, file.size() - 8);
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, n_header);
  const auto data = file.subspan(8 + n_header);
  ASSAY_TRY(const Json header, parse_header(text, source));

  std::vector<Entry> entries;
  for (const auto& [name, json] : header.items()) {
    if (name == "__metadata__") {
      if (!json.is_object() ||
          !std::all_of(json.begin(), json.end(), [](const Json& v) { return v.is_string(); }))
        return fail("{}: __metadata__ must map strings to strings", source);
      continue;
    }
    ASSAY_TRY(Entry entry, parse_entry(name, json, data, source));
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::uint64_t at = 0;
  const Entry* previous = nullptr;
  for (const Entry& e : entries) {
    if (e.begin < at)
      return fail("{}: tensors {} and {} overlap", source, shown(previous->view.name),
                  shown(e.view.name));
    if (e.begin > at)
      return fail("{}: {} bytes before tensor {} belong to no tensor", source, e.begin - at,
                  shown(e.view.name));
    at = e.end;
    previous = &e;
  }
  if (at != data.size())
    return fail("{}: the tensors need {} bytes of data, the file has {}", source, at, data.size());
  std::vector<TensorView> tensors;
  for (Entry& e : entries) tensors.push_back(std::move(e.view));
  return tensors;
}

Result<FileStamp> stamp_of(const std::filesystem::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0)
    return fail("cannot open {}: {}", path.string(), std::strerror(errno));
  return FileStamp{fmt::format("inode {} size {} mtime {}.{:09} ctime {}.{:09}", info.st_ino,
                               info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec,
                               info.st_ctim.tv_sec, info.st_ctim.tv_nsec),
                   std::max(info.st_mtim.tv_sec, info.st_ctim.tv_sec)};
}

Result<void> write_safetensors(const std::filesystem::path& path, std::vector<TensorView> tensors,
                               const Json& metadata) {
  std::sort(tensors.begin(), tensors.end(),
            [](const TensorView& a, const TensorView& b) { return a.name < b.name; });
  Json header = Json::object();
  if (!metadata.is_null()) header["__metadata__"] = metadata;
  std::size_t at = 0;
  for (const TensorView& t : tensors) {
    CHECK(t.bytes.size() == static_cast<std::size_t>(t.n_elements()) * bytes_of(t.dtype))
        << t.name << " has " << t.bytes.size() << " bytes";
    header[t.name] = {{"dtype", name_of(t.dtype)},
                      {"shape", t.shape},
                      {"data_offsets", {at, at + t.bytes.size()}}};
    at += t.bytes.size();
  }
  std::string json = header.dump();
  json.resize((json.size() + 7) / 8 * 8, ' ');  // so that data begins at a multiple of 8
  std::string length(8, '\0');
  for (std::size_t i = 0; i < 8; ++i)
    length[i] = static_cast<char>(static_cast<std::uint64_t>(json.size()) >> (8 * i) & 255);
  std::vector<std::string_view> pieces = {length, json};
  for (const TensorView& t : tensors)
    pieces.emplace_back(reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size());
  return write_file_atomic(path, pieces);
}

Result<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  SafetensorsFile f;
  f.path_ = path;
  ASSAY_TRY(FileStamp stamp, stamp_of(path));  // before the mapping: a race then shows later
  f.stamp_ = std::move(stamp.text);
  ASSAY_TRY(f.file_, MappedFile::open(path));
  ASSAY_TRY(f.tensors_, parse_safetensors(f.file_.bytes(), path.string()));
  return f;
}

}  // namespace assay::engine
