#include "harness/divergence_base.h"

#include <bit>
#include <cmath>
#include <fstream>
#include <system_error>

#include "base/file.h"
#include "base/hash.h"

namespace assay::harness {
namespace {

constexpr std::string_view kMagic = "assay divergence base 1\n";
constexpr std::size_t kDigestBytes = 32;
constexpr int kIdBytes = 3;
constexpr std::size_t kPositionBytes = kIdBytes + 4 + 4 + BasePosition::kTop * (kIdBytes + 4);

void put(std::string& out, std::uint32_t value, int n_bytes) {
  for (int i = 0; i < n_bytes; ++i) out += static_cast<char>(value >> (8 * i) & 255);
}
void put_float(std::string& out, float value) { put(out, std::bit_cast<std::uint32_t>(value), 4); }

std::uint32_t get(std::string_view bytes, std::size_t& at, int n_bytes) {
  std::uint32_t value = 0;
  for (int i = 0; i < n_bytes; ++i)
    value |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[at++])) << (8 * i);
  return value;
}
float get_float(std::string_view bytes, std::size_t& at) {
  return std::bit_cast<float>(get(bytes, at, 4));
}

void put_position(std::string& out, const BasePosition& p) {
  put(out, static_cast<std::uint32_t>(p.next), kIdBytes);
  put_float(out, p.next_logprob);
  put_float(out, p.tail);
  for (int i = 0; i < BasePosition::kTop; ++i) {
    const bool is_there = i < static_cast<int>(p.top.size());
    put(out, is_there ? static_cast<std::uint32_t>(p.top[static_cast<std::size_t>(i)].first) : 0,
        kIdBytes);
    put_float(out, is_there ? p.top[static_cast<std::size_t>(i)].second
                            : -std::numeric_limits<float>::infinity());
  }
}

BasePosition get_position(std::string_view bytes, std::size_t& at) {
  BasePosition p;
  p.next = static_cast<int>(get(bytes, at, kIdBytes));
  p.next_logprob = get_float(bytes, at);
  p.tail = get_float(bytes, at);
  for (int i = 0; i < BasePosition::kTop; ++i) {
    const int id = static_cast<int>(get(bytes, at, kIdBytes));
    const float logprob = get_float(bytes, at);
    if (logprob > -std::numeric_limits<float>::infinity()) p.top.emplace_back(id, logprob);
  }
  return p;
}

bool is_sound(const BasePosition& p, int vocab) {
  const auto is_logprob = [](float x) { return x <= 1e-3f; };  // and no NaN
  if (p.next < 0 || p.next >= vocab || !is_logprob(p.next_logprob) || !(p.tail >= 0 && p.tail <= 1))
    return false;
  for (const auto& [id, logprob] : p.top)
    if (id >= vocab || !is_logprob(logprob)) return false;
  return !p.top.empty();
}

// Throws Json::exception where a key is missing or of another type.
Result<DivergenceBase::Text> text_of(const Json& json, int vocab, const std::string& where) {
  DivergenceBase::Text t = {.id = json.at("id").get<std::string>(),
                            .lang = json.at("lang").get<std::string>(),
                            .ids = json.at("ids").get<std::vector<int>>(),
                            .reply = json.at("reply").get<int>(),
                            .answer = json.at("answer").get<int>(),
                            .positions = {}};
  const int n = static_cast<int>(t.ids.size());
  if (t.reply < 1 || t.reply >= n || t.answer < t.reply || t.answer > n)
    return fail("{}: text {}: reply begins at {} and answer at {} of {} tokens", where, t.id,
                t.reply, t.answer, n);
  for (const int id : t.ids)
    if (id < 0 || id >= vocab)
      return fail("{}: text {}: token {}, expected 0 to {}", where, t.id, id, vocab - 1);
  return t;
}

// What the header says, without positions.
Result<DivergenceBase> base_of(const Json& header, const std::string& where) {
  DivergenceBase base;
  try {
    const int n_top = header.at("n_top").get<int>();
    if (n_top != BasePosition::kTop)
      return fail("{}: {} tokens a position, expected {}", where, n_top, BasePosition::kTop);
    base.vocab = header.at("vocab").get<int>();
    base.model = header.at("model");
    base.noise_floor = header.at("noise_floor");
    static_cast<void>(base.model.at("tokenizer").get<std::string>());
    static_cast<void>(base.model.value("dir", ""));
    if (!base.noise_floor.is_null()) {
      static_cast<void>(base.noise_floor.at("between").at(0).get<std::string>());
      static_cast<void>(base.noise_floor.at("between").at(1).get<std::string>());
      static_cast<void>(base.noise_floor.at("kld").at("mean").at("value").get<double>());
      static_cast<void>(base.noise_floor.at("top1_agreement").at("value").get<double>());
    }
    if (header.at("texts").empty()) return fail("{}: no text in it", where);
    for (const Json& json : header.at("texts")) {
      ASSAY_TRY(DivergenceBase::Text t, text_of(json, base.vocab, where));
      base.texts.push_back(std::move(t));
    }
  } catch (const Json::exception& e) {
    return fail("{}: its header is not that of a captured base: {}", where, e.what());
  }
  return base;
}

}  // namespace

Result<void> write_base(const std::filesystem::path& path, const DivergenceBase& base) {
  if (base.vocab > 1 << (8 * kIdBytes))
    return fail(
        "{}: a vocabulary of {} tokens, but a captured base holds ids of {} bytes: {} at most",
        path.string(), base.vocab, kIdBytes, 1 << (8 * kIdBytes));
  Json header = {{"vocab", base.vocab},
                 {"model", base.model},
                 {"noise_floor", base.noise_floor},
                 {"n_top", BasePosition::kTop},
                 {"texts", Json::array()}};
  std::string positions;
  for (const DivergenceBase::Text& t : base.texts) {
    header["texts"].push_back(
        {{"id", t.id}, {"lang", t.lang}, {"ids", t.ids}, {"reply", t.reply}, {"answer", t.answer}});
    for (const BasePosition& p : t.positions) put_position(positions, p);
  }
  const std::string json = header.dump();
  std::string out(kMagic);
  put(out, static_cast<std::uint32_t>(json.size()), 4);
  out += json + positions;
  return write_file_atomic(path, out + hash_hex(out));
}

Result<void> check_no_other_file(const std::filesystem::path& path) {
  std::error_code none;
  if (!std::filesystem::is_regular_file(path, none) || std::filesystem::file_size(path, none) == 0)
    return {};
  std::ifstream file(path, std::ios::binary);
  std::string begin(kMagic.size(), '\0');
  file.read(begin.data(), static_cast<std::streamsize>(begin.size()));
  if (file && begin == kMagic) return {};
  return fail(
      "{}: is there already and is no captured base: nothing is overwritten. Choose another file",
      path.string());
}

Result<DivergenceBase> read_base(const std::filesystem::path& path) {
  ASSAY_TRY(const std::string bytes, read_file(path));
  const std::string where = path.string();
  if (!bytes.starts_with(kMagic))
    return fail("{}: not a captured base. Make one with assay diverge BASE --save-base NEW.div",
                where);
  const std::size_t n_digested = bytes.size() - std::min(bytes.size(), kDigestBytes);
  const std::string_view file = std::string_view(bytes).substr(0, n_digested);
  if (file.size() < kMagic.size() + 4 || hash_hex(file) != bytes.substr(n_digested))
    return fail(
        "{}: truncated or damaged: its last {} bytes are not the digest of the {} before. Capture "
        "the base again",
        where, kDigestBytes, n_digested);
  std::size_t at = kMagic.size();
  const std::size_t n_json = get(file, at, 4);
  if (n_json > file.size() - at)
    return fail("{}: its header has {} bytes, the file only {} more", where, n_json,
                file.size() - at);
  ASSAY_TRY(const Json header, parse_json(file.substr(at, n_json), where));
  at += n_json;
  ASSAY_TRY(DivergenceBase base, base_of(header, where));
  std::size_t n_positions = 0;
  for (const DivergenceBase::Text& t : base.texts)
    n_positions += t.ids.size() - static_cast<std::size_t>(t.reply);
  if (file.size() - at != n_positions * kPositionBytes)
    return fail("{}: {} bytes of distributions, expected {} ({} positions of {} bytes)", where,
                file.size() - at, n_positions * kPositionBytes, n_positions, kPositionBytes);
  for (DivergenceBase::Text& t : base.texts)
    for (int i = t.reply; i < static_cast<int>(t.ids.size()); ++i) {
      t.positions.push_back(get_position(file, at));
      const BasePosition& p = t.positions.back();
      if (!is_sound(p, base.vocab) || p.next != t.ids[static_cast<std::size_t>(i)])
        return fail(
            "{}: text {}: what is said of token {} is no distribution. Capture the base again",
            where, t.id, i);
    }
  return base;
}

}  // namespace assay::harness
