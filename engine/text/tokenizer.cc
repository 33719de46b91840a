#include "engine/text/tokenizer.h"

#include <algorithm>
#include <array>
#include <map>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "engine/text/bpe.h"
#include "engine/text/pre_tokenizer.h"
#include "engine/text/unicode.h"

namespace assay::text {
namespace {

constexpr int kMaxId =
    16'777'215;  // no vocabulary comes near; a hostile file must not make us allocate more

// GPT-2 writes each byte as one printable character: itself where it is printable, else U+0100 and
// up.
std::map<std::string, unsigned char> byte_of_character() {
  std::map<std::string, unsigned char> out;
  int n_shifted = 0;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    const int code = printable ? b : 256 + n_shifted++;
    std::string utf8;
    if (code < 0x80)
      utf8 = static_cast<char>(code);
    else
      utf8 = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
    out[utf8] = static_cast<unsigned char>(b);
  }
  return out;
}

// A vocabulary entry's bytes; empty where it is not written in byte characters.
std::string to_bytes(std::string_view written) {
  static const auto kBytes = byte_of_character();
  std::string bytes;
  for (std::size_t i = 0; i < written.size();) {
    const std::size_t n = static_cast<unsigned char>(written[i]) < 0x80 ? 1 : 2;
    const auto it = kBytes.find(std::string(written.substr(i, n)));
    if (it == kBytes.end()) return "";
    bytes += static_cast<char>(it->second);
    i += n;
  }
  return bytes;
}

struct Token {
  bool exists = false, added = false, special = false;
  std::string bytes;
};

Result<int> id_in(const Json& json, std::string_view source, std::string_view what) {
  if (!json.is_number_integer() || json.get<double>() < 0 || json.get<double>() > kMaxId)
    return fail("{}: {}: id is not an integer from 0 to {}", source, what, kMaxId);
  return json.get<int>();
}

}  // namespace

struct Tokenizer::Impl {
  std::vector<Token> tokens;                        // by id
  std::map<std::string, int, std::less<>> by_text;  // vocabulary as written in the file
  std::map<std::string, int, std::less<>> added;    // added tokens by their text
  std::array<std::vector<std::pair<std::string, int>>, 256> added_by_first_byte;  // longest first
  Bpe bpe;
  PreTokenizer pre_tokenizer;
  bool ignore_merges = false;
  std::map<std::string, int, std::less<>> by_bytes;  // for ignore_merges
  std::string fingerprint;

  Result<void> put(int id, Token token, std::string_view source) {
    if (static_cast<std::size_t>(id) >= tokens.size())
      tokens.resize(static_cast<std::size_t>(id) + 1);
    if (tokens[id].exists && tokens[id].bytes != token.bytes)
      return fail("{}: id {} belongs to two different tokens", source, id);
    tokens[id] = std::move(token);
    return {};
  }

  Result<void> read_vocabulary(const Json& vocab, std::string_view source) {
    for (const auto& [written, json] : vocab.items()) {
      ASSAY_TRY(
          const int id,
          id_in(json, source,
                fmt::format("vocab entry {}",
                            Json(written).dump(-1, ' ', true, Json::error_handler_t::replace))));
      std::string bytes = to_bytes(written);
      if (bytes.empty())
        bytes = written;  // a token that is not byte-level text, as special ones are
      by_text[written] = id;
      by_bytes[bytes] = id;
      ASSAY_TRY_VOID(
          put(id, {.exists = true, .added = false, .special = false, .bytes = std::move(bytes)},
              source));
    }
    for (int b = 0; b < 256; ++b) {
      const auto it = by_bytes.find(std::string(1, static_cast<char>(b)));
      if (it == by_bytes.end())
        return fail("{}: the vocabulary has no token for byte 0x{:02X}: not a byte-level BPE",
                    source, b);
      bpe.byte_id[b] = it->second;
    }
    return {};
  }

  // "a b" or ["a", "b"]: both spellings occur in the wild.
  Result<void> read_merges(const Json& merges, std::string_view source) {
    int rank = 0;
    for (const Json& json : merges) {
      std::string left, right;
      if (json.is_array() && json.size() == 2 && json[0].is_string() && json[1].is_string()) {
        left = json[0];
        right = json[1];
      } else if (json.is_string()) {
        const std::string pair = json;
        const auto space = pair.find(' ');
        if (space == std::string::npos)
          return fail("{}: merge {} is not two tokens with a space between", source, rank);
        left = pair.substr(0, space);
        right = pair.substr(space + 1);
      } else {
        return fail("{}: merge {} is neither \"a b\" nor [\"a\", \"b\"]", source, rank);
      }
      const auto l = by_text.find(left), r = by_text.find(right), both = by_text.find(left + right);
      if (l == by_text.end() || r == by_text.end() || both == by_text.end())
        return fail(
            "{}: merge {} joins {} and {}, but the vocabulary lacks one of them or their union",
            source, rank, Json(left).dump(-1, ' ', true, Json::error_handler_t::replace),
            Json(right).dump(-1, ' ', true, Json::error_handler_t::replace));
      bpe.merges.emplace(Bpe::key(l->second, r->second), Bpe::Merge{rank, both->second});
      ++rank;
    }
    return {};
  }

  Result<void> read_added(const Json& list, std::string_view source) {
    for (const Json& json : list) {
      if (!json.is_object() || !json.contains("content") || !json["content"].is_string() ||
          !json.contains("id"))
        return fail("{}: added_tokens: expected objects with id and content", source);
      const std::string content = json["content"];
      if (content.empty()) return fail("{}: added_tokens: an added token is empty", source);
      for (const char* flag : {"lstrip", "rstrip", "single_word"})
        if (json.value(flag, Json(false)) != false)
          return fail("{}: added token {} has {}, which is not supported", source, content, flag);
      ASSAY_TRY(const int id, id_in(json["id"], source, "added token " + content));
      if (!added.emplace(content, id).second)
        return fail("{}: added token {} is listed twice", source, content);
      added_by_first_byte[static_cast<unsigned char>(content[0])].emplace_back(content, id);
      ASSAY_TRY_VOID(put(id,
                         {.exists = true,
                          .added = true,
                          .special = json.value("special", Json(false)) == true,
                          .bytes = content},
                         source));
    }
    for (auto& tokens_of_byte : added_by_first_byte)
      std::sort(tokens_of_byte.begin(), tokens_of_byte.end(),
                [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
    return {};
  }

  // The longest added token at the start of `text`.
  std::optional<std::pair<std::size_t, int>> added_at(std::string_view text) const {
    for (const auto& [content, id] : added_by_first_byte[static_cast<unsigned char>(text[0])])
      if (text.starts_with(content)) return std::pair(content.size(), id);
    return std::nullopt;
  }

  Result<void> encode_plain(std::string_view text, std::vector<int>* ids) const {
    if (text.empty()) return {};
    return pre_tokenizer.split(text, [&](std::string_view piece) {
      if (ignore_merges) {
        if (const auto it = by_bytes.find(piece); it != by_bytes.end()) {
          ids->push_back(it->second);
          return;
        }
      }
      bpe.encode(piece, ids);
    });
  }
};

Result<Tokenizer> Tokenizer::load(const std::filesystem::path& path) {
  ASSAY_TRY_VOID(check_link(path));
  if (!is_there(path))
    return fail(
        "{} is missing, expected in the checkpoint's folder. Name that folder, download the file "
        "again, or copy it from the model that this one was made of.",
        path.string());
  ASSAY_TRY(const std::string text, read_file(path));
  return parse(text, path.string());
}

Result<Tokenizer> Tokenizer::parse(std::string_view text, std::string_view source) {
  ASSAY_TRY(const Json json, parse_json(text, source));
  if (!json.is_object() || !json.contains("model") || !json["model"].is_object())
    return fail("{}: expected an object with a model", source);
  const Json& model = json["model"];
  if (model.value("type", Json("BPE")) != "BPE")
    return fail("{}: model type is {}, expected \"BPE\"", source,
                model["type"].dump(-1, ' ', true, Json::error_handler_t::replace));
  if (json.contains("normalizer") && !json["normalizer"].is_null())
    return fail("{}: a normalizer is not supported, expected null", source);
  for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"})
    if (model.contains(key) && !model[key].is_null() &&
        !(model[key].is_string() && model[key].get_ref<const std::string&>().empty()))
      return fail("{}: model.{} is not supported, expected null", source, key);
  if (model.value("byte_fallback", Json(false)) != false)
    return fail("{}: model.byte_fallback is not supported", source);
  if (!model.contains("vocab") || !model["vocab"].is_object())
    return fail("{}: model.vocab is not an object", source);
  if (!model.contains("merges") || !model["merges"].is_array())
    return fail("{}: model.merges is not a list", source);
  if (!json.contains("pre_tokenizer")) return fail("{}: pre_tokenizer is missing", source);

  auto impl = std::make_shared<Impl>();
  impl->ignore_merges = model.value("ignore_merges", Json(false)) == true;
  ASSAY_TRY_VOID(impl->read_vocabulary(model["vocab"], source));
  ASSAY_TRY_VOID(impl->read_merges(model["merges"], source));
  if (json.contains("added_tokens")) {
    if (!json["added_tokens"].is_array()) return fail("{}: added_tokens is not a list", source);
    ASSAY_TRY_VOID(impl->read_added(json["added_tokens"], source));
  }
  ASSAY_TRY(impl->pre_tokenizer, PreTokenizer::parse(json["pre_tokenizer"], source));
  impl->fingerprint = hash_hex(text);
  Tokenizer tokenizer;
  tokenizer.impl_ = std::move(impl);
  return tokenizer;
}

Result<std::vector<int>> Tokenizer::encode(std::string_view utf8, bool split_added) const {
  if (const auto at = first_invalid_utf8(utf8))
    return fail("the text is not valid UTF-8 at byte {} (0x{:02X}). Convert it to UTF-8 first.",
                *at, static_cast<unsigned char>(utf8[*at]));
  std::vector<int> ids;
  std::size_t plain_from = 0;
  for (std::size_t i = 0; split_added && i < utf8.size();) {
    const auto match = impl_->added_at(utf8.substr(i));
    if (!match) {
      ++i;
      continue;
    }
    ASSAY_TRY_VOID(impl_->encode_plain(utf8.substr(plain_from, i - plain_from), &ids));
    ids.push_back(match->second);
    i += match->first;
    plain_from = i;
  }
  ASSAY_TRY_VOID(impl_->encode_plain(utf8.substr(plain_from), &ids));
  return ids;
}

Result<std::string> Tokenizer::decode(std::span<const int> ids, bool skip_special) const {
  std::string out;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (!has(ids[i])) return fail("token {} has id {}, which is not in the vocabulary", i, ids[i]);
    if (!skip_special || !is_special(ids[i])) out += bytes(ids[i]);
  }
  return to_valid_utf8(out);
}

int Tokenizer::vocab_size() const { return static_cast<int>(impl_->tokens.size()); }
bool Tokenizer::has(int id) const {
  return id >= 0 && id < vocab_size() && impl_->tokens[id].exists;
}
std::string_view Tokenizer::bytes(int id) const {
  return has(id) ? std::string_view(impl_->tokens[id].bytes) : std::string_view();
}
bool Tokenizer::is_special(int id) const { return has(id) && impl_->tokens[id].special; }
const std::string& Tokenizer::fingerprint() const { return impl_->fingerprint; }

std::optional<int> Tokenizer::id_of(std::string_view content) const {
  if (const auto it = impl_->added.find(content); it != impl_->added.end()) return it->second;
  if (const auto it = impl_->by_text.find(content); it != impl_->by_text.end()) return it->second;
  return std::nullopt;
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
    : tokenizer_(tokenizer), skip_special_(skip_special) {}

std::string StreamDecoder::push(int id) {
  if (!(skip_special_ && tokenizer_.is_special(id))) pending_ += tokenizer_.bytes(id);
  const std::size_t n = complete_utf8_prefix(pending_);
  std::string out = to_valid_utf8(std::string_view(pending_).substr(0, n));
  pending_.erase(0, n);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out = to_valid_utf8(pending_);
  pending_.clear();
  return out;
}

}  // namespace assay::text
