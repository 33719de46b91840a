#include "harness/needle_fit.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <numeric>
#include <unordered_map>
#include <utility>

#include "base/plural.h"

namespace assay::harness {
namespace {

constexpr int kLengthRounds = 12;    // to find the number of sentences
constexpr int kExchangeRounds = 8;   // to become exact
constexpr std::size_t kPlaces = 16;  // sentences that a round may exchange
constexpr int kChoices = 12;         // for each

class Fitter {
 public:
  Fitter(const HaystackParts& parts, int n_tokens, const CountContent& count)
      : parts_(parts), n_tokens_(n_tokens), count_(count), order_(parts.needles.size()) {
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::stable_sort(order_.begin(), order_.end(), [&](std::size_t a, std::size_t b) {
      return parts_.depths[a] < parts_.depths[b];
    });
    borders_.resize(order_.size());
    shares_.resize(order_.size());
  }

  Result<FittedHaystack> fit() {
    ASSAY_TRY(empty_, count_(""));
    for (const std::string& needle : parts_.needles) {
      ASSAY_TRY(const int tokens, tokens_of(needle));
      needle_tokens_.push_back(tokens);
    }
    place_needles();
    ASSAY_TRY(frame_, count_whole());
    if (frame_ > n_tokens_)
      return fail(
          "a prompt of {} tokens is too short: introduction, needles and question alone take {}",
          n_tokens_, frame_);
    ASSAY_TRY(int lack, find_length());
    for (int round = 0; lack != 0; ++round) {
      if (round == kExchangeRounds)
        return fail(
            "the prompt could not be made exactly {} tokens long: {} are the nearest, after {} "
            "rounds of exchanging sentences. Try another length or seed, or a longer text.",
            n_tokens_, n_tokens_ - lack, kExchangeRounds);
      ASSAY_TRY(lack, exchange(lack, round));
    }
    return FittedHaystack{text(), shares_};
  }

 private:
  struct Piece {
    const std::string* text;
    std::string gap;
    std::size_t sentence;  // index, or npos for a needle
  };

  // A sentence's tokens on its own; in place it may have one more or less.
  Result<int> tokens_of(const std::string& text) {
    const auto known = tokens_.find(text);
    if (known != tokens_.end()) return known->second;
    ASSAY_TRY(const int tokens, count_(text));
    return tokens_[text] = tokens - empty_;
  }

  Result<int> count_whole() { return count_(parts_.before + text() + parts_.after); }

  // Every needle at the sentence border whose share of the tokens is nearest to its depth, in
  // order.
  void place_needles() {
    const int total = std::accumulate(sentence_tokens_.begin(), sentence_tokens_.end(), 0) +
                      std::accumulate(needle_tokens_.begin(), needle_tokens_.end(), 0);
    std::size_t border = 0;
    int before = 0;  // tokens before the border, needles included
    for (const std::size_t needle : order_) {
      const int own = needle_tokens_[needle];
      const double target = parts_.depths[needle] * (total - own);
      while (border < sentences_.size() &&
             std::abs(before + sentence_tokens_[border] - target) <= std::abs(before - target))
        before += sentence_tokens_[border++];
      borders_[needle] = border;
      shares_[needle] = total == 0 ? 0 : static_cast<double>(before) / total;
      before += own;
    }
  }

  std::vector<Piece> pieces() const {
    std::vector<Piece> out;
    auto next = order_.begin();
    for (std::size_t i = 0; i <= sentences_.size(); ++i) {
      for (; next != order_.end() && borders_[*next] == i; ++next) {
        std::string gap = parts_.join;
        if (!out.empty()) std::swap(gap, out.back().gap);
        out.push_back({&parts_.needles[*next], gap, std::string::npos});
      }
      if (i < sentences_.size()) out.push_back({&sentences_[i].text, sentences_[i].gap, i});
    }
    if (!out.empty()) out.back().gap.clear();
    return out;
  }

  std::string text() const {
    std::string out;
    for (const Piece& piece : pieces()) out += *piece.text + piece.gap;
    return out;
  }

  // True if there was one more.
  Result<bool> append() {
    auto sentence = parts_.sentence(sentences_.size());
    if (!sentence) return false;
    ASSAY_TRY(const int tokens, tokens_of(sentence->text));
    sentence_tokens_.push_back(tokens);
    sentences_.push_back(*std::move(sentence));
    return true;
  }

  // The number of sentences that comes nearest; returns how many tokens are lacking (or, negative,
  // too many).
  Result<int> find_length() {
    int lack = n_tokens_ - frame_;
    double mean = 0;  // tokens of a sentence in place, once there is one
    for (int round = 0; round < kLengthRounds; ++round) {
      if (mean > 0 && std::abs(lack) <= mean * 0.6) break;
      const auto wanted = mean > 0 ? std::lround(lack / mean) : 0;
      if (wanted < 0) {
        const std::size_t n = sentences_.size() - std::min<std::size_t>(-wanted, sentences_.size());
        sentences_.resize(n);
        sentence_tokens_.resize(n);
      }
      // The first round knows no mean and goes by the sentences' own counts.
      for (int sum = 0; mean > 0                   ? sum < wanted
                        : sum<lack; sum += mean> 0 ? 1
                                                   : sentence_tokens_.back()) {
        ASSAY_TRY(const bool more, append());
        if (!more) return too_short();
      }
      place_needles();
      ASSAY_TRY(const int whole, count_whole());
      lack = n_tokens_ - whole;
      if (sentences_.empty()) break;
      mean = std::max(1.0,
                      static_cast<double>(whole - frame_) / static_cast<double>(sentences_.size()));
    }
    next_choice_ = sentences_.size();
    return lack;
  }

  Result<int> too_short() {
    place_needles();
    ASSAY_TRY(const int whole, count_whole());
    return fail(
        "the haystack text is too short: it has {} in {}, and a prompt of {} "
        "tokens needs {}. A text is never repeated: take a longer one, or a smaller length.",
        counted(whole - frame_, "token"), counted(sentences_.size(), "sentence"), n_tokens_,
        n_tokens_ - frame_);
  }

  // Exchanges sentences for others that are together `lack` tokens longer; returns what is lacking
  // then. A change is measured between its neighbours, because tokens may reach over a border.
  Result<int> exchange(int lack, int round) {
    const std::vector<Piece> all = pieces();
    struct Choice {
      std::size_t sentence;
      NeedleSentence replacement;
      int tokens;
    };
    std::vector<Choice> choices;
    std::map<int, std::vector<std::size_t>> reached = {{0, {}}};  // change → choices that make it
    const int limit = std::abs(lack) + 64;
    const std::size_t places = std::min(kPlaces, all.size() / 3);
    for (std::size_t place = 0; place < places && !reached.contains(lack); ++place) {
      // Spread evenly, shifted by the round, never neighbours and never at an end.
      const std::size_t at = 1 + (3 * place + static_cast<std::size_t>(round)) * (all.size() - 2) /
                                     (3 * places + kExchangeRounds);
      const std::size_t sentence = all[at].sentence;
      if (at + 1 >= all.size() || sentence == std::string::npos) continue;
      const std::string left = *all[at - 1].text + all[at - 1].gap;
      const std::string right = all[at].gap + *all[at + 1].text;
      ASSAY_TRY(const int now, count_(left + sentences_[sentence].text + right));
      const auto from = reached;
      for (int k = 0; k < kChoices; ++k) {
        auto other = parts_.sentence(next_choice_);
        if (!other) break;
        ++next_choice_;
        ASSAY_TRY(const int then, count_(left + other->text + right));
        ASSAY_TRY(const int tokens, tokens_of(other->text));
        choices.push_back({sentence, *std::move(other), tokens});
        for (const auto& [change, made_by] : from) {
          const int sum = change + then - now;
          if (std::abs(sum) > limit || reached.contains(sum)) continue;
          reached[sum] = made_by;
          reached[sum].push_back(choices.size() - 1);
        }
      }
    }
    // Where `lack` is out of reach, the nearest: the next round begins from there.
    const auto best = std::min_element(reached.begin(), reached.end(), [&](auto& a, auto& b) {
      return std::abs(a.first - lack) < std::abs(b.first - lack);
    });
    for (const std::size_t each : best->second) {
      sentences_[choices[each].sentence].text = choices[each].replacement.text;
      sentence_tokens_[choices[each].sentence] = choices[each].tokens;
    }
    place_needles();
    ASSAY_TRY(const int whole, count_whole());
    return n_tokens_ - whole;
  }

  const HaystackParts& parts_;
  const int n_tokens_;
  const CountContent& count_;
  std::vector<std::size_t> order_;    // needles by depth
  std::vector<std::size_t> borders_;  // of each needle: sentences before it
  std::vector<double> shares_;
  std::vector<int> needle_tokens_, sentence_tokens_;
  std::vector<NeedleSentence> sentences_;
  std::unordered_map<std::string, int> tokens_;
  int empty_ = 0, frame_ = 0;    // tokens of an empty message; of the prompt without sentences
  std::size_t next_choice_ = 0;  // the first sentence that no prompt of this fit has used
};

}  // namespace

Result<FittedHaystack> fit_haystack(const HaystackParts& parts, int n_tokens,
                                    const CountContent& count) {
  return Fitter(parts, n_tokens, count).fit();
}

}  // namespace assay::harness
