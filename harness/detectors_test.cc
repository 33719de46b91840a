// The controls of suites/detectors: honest texts that no detector may name, loops that one must.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <random>
#include <sstream>

#include "base/csv.h"
#include "base/file.h"
#include "engine/text/tokenizer.h"
#include "harness/language_check.h"
#include "harness/near_loop.h"
#include "harness/outcome.h"

namespace assay::harness {
namespace {

using Ids = std::vector<int>;

const fs::path kControls = fs::path(ASSAY_SOURCE_DIR) / "suites" / "detectors";

struct Control {
  std::string name, language, kind, text;
};

// <language>-<kind>[-…].txt
std::vector<Control> texts_of(const char* folder) {
  std::vector<Control> controls;
  for (const auto& entry : fs::directory_iterator(kControls / folder)) {
    const std::string name = entry.path().stem().string();
    const auto dash = name.find('-');
    controls.push_back({name, name.substr(0, dash),
                        name.substr(dash + 1, name.find('-', dash + 1) - dash - 1),
                        read_file(entry.path()).value()});
  }
  std::sort(controls.begin(), controls.end(),
            [](const Control& a, const Control& b) { return a.name < b.name; });
  return controls;
}

// How a text becomes ids. The bundled vocabulary is small, so its tokens are short; a second way
// with a word or a number a token shows that the verdict is not one of the vocabulary.
class Vocabulary {
 public:
  virtual ~Vocabulary() = default;
  virtual Ids encode(std::string_view text) = 0;
  virtual std::string decode(std::span<const int> ids) = 0;
  DecodeIds decoder() {
    return [this](std::span<const int> ids) { return decode(ids); };
  }
};

class MicroGlm : public Vocabulary {
 public:
  Ids encode(std::string_view text) override { return tokenizer_.encode(text, false).value(); }
  std::string decode(std::span<const int> ids) override { return tokenizer_.decode(ids).value(); }

 private:
  text::Tokenizer tokenizer_ =
      text::Tokenizer::load(fs::path(ASSAY_SOURCE_DIR) / "golden/micro-glm/model/tokenizer.json")
          .value();
};

// An ASCII word with the blank before it, up to three digits, two characters of anything else.
class Words : public Vocabulary {
 public:
  Ids encode(std::string_view text) override {
    Ids ids;
    for (std::size_t i = 0; i < text.size();) {
      const std::size_t end = token_end(text, i);
      const auto [at, added] =
          id_of_.emplace(std::string(text.substr(i, end - i)), static_cast<int>(words_.size()));
      if (added) words_.push_back(at->first);
      ids.push_back(at->second);
      i = end;
    }
    return ids;
  }
  std::string decode(std::span<const int> ids) override {
    std::string text;
    for (const int id : ids) text += words_[static_cast<std::size_t>(id)];
    return text;
  }

 private:
  static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  static std::size_t token_end(std::string_view text, std::size_t i) {
    std::size_t end = i;
    const auto high = [&](std::size_t at) {
      return at < text.size() && static_cast<unsigned char>(text[at]) >= 0x80;
    };
    if (high(i)) {
      for (int n = 0; n < 2 && high(end); ++n) do
          ++end;
        while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
      return end;
    }
    if (is_digit(text[i])) {
      while (end < text.size() && end < i + 3 && is_digit(text[end])) ++end;
      return end;
    }
    if (text[i] == ' ' && i + 1 < text.size() && is_letter(text[i + 1])) ++end;
    if (!is_letter(text[end])) return end + 1;
    while (end < text.size() && is_letter(text[end])) ++end;
    return end;
  }

  std::map<std::string, int> id_of_;
  std::vector<std::string> words_;
};

struct NamedVocabulary {
  const char* name;
  std::unique_ptr<Vocabulary> vocabulary;
};
const std::vector<NamedVocabulary>& vocabularies() {
  static const std::vector<NamedVocabulary> both = [] {
    std::vector<NamedVocabulary> made;
    made.push_back({"micro-glm", std::make_unique<MicroGlm>()});
    made.push_back({"words", std::make_unique<Words>()});
    return made;
  }();
  return both;
}

// ---- loops

// Fills a block of loops.csv: {n} counts, {d} wanders, {a|b} is one of them.
class LoopWriter {
 public:
  LoopWriter(const std::string& block, unsigned seed) : random_(seed) {
    for (std::size_t at = 0, end = 0; at <= block.size(); at = end + 2) {  // "¦" is two bytes
      end = std::min(block.find("¦", at), block.size());
      variants_.push_back(block.substr(at, end - at));
    }
  }
  std::string copy() {
    ++n_;
    std::string text, variant = variants_[random_() % variants_.size()];
    for (std::size_t at = 0; at < variant.size();) {
      const auto close = variant[at] == '{' ? variant.find('}', at) : std::string::npos;
      if (close == std::string::npos) {
        text += variant[at++];
        continue;
      }
      const std::string slot = variant.substr(at + 1, close - at - 1);
      if (slot != "n" && slot != "d" && slot.find('|') == std::string::npos) {  // LaTeX
        text += variant[at++];
        continue;
      }
      text += filled(slot);
      at = close + 1;
    }
    return text;
  }

 private:
  std::string filled(const std::string& slot) {
    if (slot == "n") return std::to_string(n_);
    if (slot == "d") return std::to_string(value_ += static_cast<int>(random_() % 41) - 17);
    std::vector<std::string> choices;
    std::stringstream stream(slot);
    for (std::string choice; std::getline(stream, choice, '|');) choices.push_back(choice);
    return choices[random_() % choices.size()];
  }

  std::mt19937 random_;
  std::vector<std::string> variants_;
  int n_ = 0, value_ = 1016;
};

struct Verdicts {
  bool token = false, exact = false, near = false;
  int start = -1;
  bool any() const { return token || exact || near; }
};

Verdicts judge(std::span<const int> ids, const DecodeIds& decode) {
  Verdicts v;
  if (const auto loop = find_suffix_loop(ids)) {
    (loop->period == 1 ? v.token : v.exact) = true;
    v.start = loop->start;
  } else if (const auto near = find_near_loop(ids, decode)) {
    v.near = true;
    v.start = near->start;
  }
  return v;
}

struct Row {
  int n = 0, n_token = 0, n_exact = 0, n_near = 0;
  void add(const Verdicts& v) {
    ++n;
    n_token += v.token ? 1 : 0;
    n_exact += v.exact ? 1 : 0;
    n_near += v.near ? 1 : 0;
  }
};

void print(const char* title, const std::map<std::string, Row>& rows) {
  fmt::print("{:40} {:>6} {:>9} {:>11} {:>10} {:>9}\n", title, "texts", "no loop", "loop_exact",
             "loop_near", "one token");
  for (const auto& [name, r] : rows)
    fmt::print("{:40} {:6} {:9} {:11} {:10} {:9}\n", name, r.n,
               r.n - r.n_token - r.n_exact - r.n_near, r.n_exact, r.n_near, r.n_token);
}

// Positive control, exact: a block of ids that has no period of its own.
TEST(Detectors, EveryPeriodUpTo1024IsCaughtWithItsStart) {
  std::mt19937 random(1);
  std::map<std::string, Row> rows;
  for (int period = 1; period <= kMaxPeriod; ++period) {
    for (const int lead : {0, 37}) {
      for (const double copies : {4.0, 4.5, 9.0}) {
        Ids ids;
        for (int i = 0; i < lead; ++i) ids.push_back(3000 + i);
        Ids block;
        for (int i = 0; i < period; ++i)
          block.push_back(i == 0 ? 2999 : static_cast<int>(random() % 2900));
        const int n = std::max(static_cast<int>(copies * period), kMinLoopTokens);
        for (int i = 0; i < n; ++i) ids.push_back(block[static_cast<std::size_t>(i % period)]);
        const auto loop = find_suffix_loop(ids);
        ASSERT_TRUE(loop) << period;
        EXPECT_EQ(loop->period, period);
        EXPECT_EQ(loop->start, lead);
        Verdicts v;
        (period == 1 ? v.token : v.exact) = true;
        rows["exact, period 1 to 1024"].add(v);
      }
    }
  }
  print("loops of token ids", rows);
}

// ---- near loops: every row of loops.csv, alone and behind an honest text, short and long

struct NearCase {
  std::string id, kind;
  Ids ids;
  int start = 0, block = 0;
};

std::vector<NearCase> near_cases(Vocabulary& vocabulary) {
  const auto table = parse_csv(read_file(kControls / "loops.csv").value(), "loops.csv").value();
  std::map<std::string, std::string> lead_of;
  for (const Control& c : texts_of("honest"))
    if (c.kind == "thinking" || c.name == "none-code-cpp") lead_of[c.language] = c.text;
  std::vector<NearCase> cases;
  for (const CsvRow& row : table.rows) {
    const std::string &id = row.fields[0], &language = row.fields[1], &kind = row.fields[2];
    for (const bool behind : {false, true}) {
      for (const std::size_t min_tokens : {512U, 4096U}) {
        LoopWriter writer(row.fields[3], static_cast<unsigned>(cases.size()));
        const std::string lead = behind ? lead_of.at(language) : "";
        std::string text;
        Ids loop;
        int n = 0;
        for (; n < 12 || loop.size() < min_tokens; ++n) {
          const Ids copy = vocabulary.encode(writer.copy());
          loop.insert(loop.end(), copy.begin(), copy.end());
        }
        NearCase c{id, kind, vocabulary.encode(lead), 0, static_cast<int>(loop.size()) / n};
        c.start = static_cast<int>(c.ids.size());
        c.ids.insert(c.ids.end(), loop.begin(), loop.end());
        cases.push_back(std::move(c));
      }
    }
  }
  return cases;
}

TEST(Detectors, EveryNearLoopIsCaughtNearItsStart) {
  std::map<std::string, Row> rows;
  for (const auto& [name, vocabulary] : vocabularies()) {
    for (const NearCase& c : near_cases(*vocabulary)) {
      const Verdicts v = judge(c.ids, vocabulary->decoder());
      rows[c.id.substr(0, c.id.find('-')) + " " + c.kind + ", " + name].add(v);
      EXPECT_TRUE(v.any()) << name << " " << c.id << " of " << c.ids.size() << " tokens";
      if (!v.near) continue;
      EXPECT_GE(v.start, c.start - 8) << name << " " << c.id;
      // A sentence that takes turns or changes its words may have come four times only later.
      EXPECT_LE(v.start, c.start + 6 * c.block) << name << " " << c.id;
    }
  }
  print("near loops", rows);
}

// A reply may be cut anywhere, so every beginning of an honest text is one.
TEST(Detectors, NoBeginningOfAnHonestTextIsALoop) {
  constexpr std::size_t kStep = 64;
  std::map<std::string, Row> rows;
  for (const auto& [name, vocabulary] : vocabularies()) {
    std::map<std::string, std::string> together;
    for (const Control& c : texts_of("honest")) {
      together[c.language] += c.text;
      const Ids ids = vocabulary->encode(c.text);
      for (std::size_t n = ids.size(); n > 0; n = n > kStep ? n - kStep : 0) {
        const Verdicts v = judge(std::span(ids).first(n), vocabulary->decoder());
        rows[c.language + " " + c.kind + ", " + name].add(v);
        EXPECT_FALSE(v.any()) << name << " " << c.name << " at " << n << " of " << ids.size();
      }
    }
    for (const auto& [language, text] : together) {  // long replies repeat themselves more
      const Verdicts v = judge(vocabulary->encode(text), vocabulary->decoder());
      rows[language + " all in a row, " + name].add(v);
      EXPECT_FALSE(v.any()) << name << " all of " << language;
    }
  }
  print("beginnings of honest texts", rows);
}

TEST(Detectors, HonestTextsAreInTheirLanguageAndStayThere) {
  for (const Control& c : texts_of("honest")) {
    const Language found = detect_language(c.text).language;
    if (c.language != "none" && c.kind != "table") {
      EXPECT_EQ(name_of(found), c.language) << c.name;
    }
    for (const Language expected : {Language::kJapanese, Language::kEnglish, Language::kChinese}) {
      if (c.language != "none" && name_of(expected) != c.language) continue;
      const auto drift = find_drift(c.text, expected);
      EXPECT_FALSE(drift) << c.name << " as " << name_of(expected) << ": "
                          << c.text.substr(drift->begin, drift->end - drift->begin);
    }
  }
}

// Drift: an honest text of one language goes on in another.
TEST(Detectors, EveryChangeOfLanguageIsCaughtWhereItHappens) {
  std::map<std::string, std::vector<std::string>> prose;
  for (const Control& c : texts_of("honest"))
    if (c.language != "none" && c.kind != "table") prose[c.language].push_back(c.text);
  int n = 0;
  for (const auto& [from, first] : prose) {
    for (const auto& [to, second] : prose) {
      if (from == to) continue;
      for (const std::string& a : first) {
        for (const std::string& b : second) {
          const auto drift = find_drift(a + b, *parse_language(from));
          ++n;
          ASSERT_TRUE(drift) << from << " to " << to;
          EXPECT_EQ(name_of(drift->language), to);
          EXPECT_GE(drift->begin, a.size());
          EXPECT_LE(drift->begin, a.size() + 400);
        }
      }
    }
  }
  fmt::print("changes of language: {} of {} caught\n", n, n);
}

// What cannot be told by form: a counting song is a near loop, a hundred zeros are an exact one.
// They are found; that they end by themselves is what saves them (class_of).
TEST(Detectors, ASongThatCountsDownIsALoopByFormAndAnAnswerByItsEnd) {
  for (const Control& c : texts_of("limits")) {
    int n_found = 0;  // of the song, only where the vocabulary is small
    for (const auto& [name, vocabulary] : vocabularies()) {
      const Verdicts v = judge(vocabulary->encode(c.text), vocabulary->decoder());
      if (!v.any()) continue;
      ++n_found;
      Outcome o;
      o.degeneration = v.near ? Degeneration::kLoopNear : Degeneration::kLoopExact;
      EXPECT_EQ(class_of(o), "answered");
    }
    EXPECT_GT(n_found, 0) << c.name;
  }
}

// The thresholds are the geometric means between the honest text that packs best and the loop that
// packs worst, in each language: whoever adds a control that moves one must move both. A text of no
// language counts if it repeats as much as a loop must (identity matrices do).
TEST(Detectors, TheCompressionThresholdsLieMidwayBetweenTheControls) {
  std::map<std::string, double> honest, loop;
  const double no_language_share = near_loop_thresholds(Language::kNone).repeated_share;
  for (const auto& [name, vocabulary] : vocabularies()) {
    for (const Control& c : texts_of("honest")) {
      const auto tail = measure_tail(vocabulary->encode(c.text), vocabulary->decoder());
      const bool counts = c.language == "none" ? tail && tail->repeated_share >= no_language_share
                                               : c.kind != "table";
      if (counts) honest[c.language] = std::max(honest[c.language], compression_ratio(c.text));
    }
    for (const NearCase& c : near_cases(*vocabulary)) {
      const auto tail = measure_tail(c.ids, vocabulary->decoder());
      ASSERT_TRUE(tail) << c.id;
      const auto [at, first] = loop.emplace(c.id.substr(0, c.id.find('-')), 1e9);
      at->second = std::min(at->second, tail->compression_ratio);
    }
  }
  for (const auto& [language, ratio] : honest) {
    fmt::print("compression, {}: honest at most {:.2f}, loops at least {:.2f}\n", language, ratio,
               loop.at(language));
    EXPECT_NEAR(near_loop_thresholds(*parse_language(language)).compression_ratio,
                std::sqrt(ratio * loop.at(language)), 0.1)
        << language;
  }
}

// The numbers behind docs/design/detectors.md:
//   build/ci/harness/detect_test --gtest_also_run_disabled_tests --gtest_filter='*Calibration*'
TEST(Detectors, DISABLED_Calibration) {
  for (const NamedVocabulary& named : vocabularies()) {
    Vocabulary* const vocabulary = named.vocabulary.get();
    const auto line = [vocabulary, where = named.name](const char* what, const std::string& id,
                                                       const Ids& ids) {
      const auto tail = measure_tail(ids, vocabulary->decoder());
      fmt::print("{} {} {} tokens {} whole {:.2f} share {:.3f} ratio {:.2f} start {} lang {}\n",
                 where, what, id, ids.size(), compression_ratio(vocabulary->decode(ids)),
                 tail ? tail->repeated_share : 0.0, tail ? tail->compression_ratio : 0.0,
                 tail ? tail->start : -1, tail ? name_of(tail->language) : "-");
    };
    for (const Control& c : texts_of("honest")) line("honest", c.name, vocabulary->encode(c.text));
    for (const Control& c : texts_of("limits")) line("limit", c.name, vocabulary->encode(c.text));
    for (const NearCase& c : near_cases(*vocabulary)) line("loop", c.id, c.ids);
  }
}

}  // namespace
}  // namespace assay::harness
