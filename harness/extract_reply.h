// A folded reply with its numbers found and questions that every rule asks about them. Private to
// the extractor.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "harness/extract_numbers.h"
#include "harness/extract_text.h"

namespace assay::harness {

class Reply {
 public:
  Reply(std::string_view utf8, std::string_view language);

  std::u32string_view text() const { return folded_.chars; }
  const FoldedText& folded() const { return folded_; }

  // Numbers that can be an answer, in order. Without a sure one, single kanji numerals
  // count too; without any other number, a lone list mark ("18. …") does.
  const std::vector<Literal>& candidates() const { return candidates_; }
  // Every number, also kanji numerals and labels: for places where a number must stand.
  const std::vector<Literal>& all() const { return all_; }

  // The number that begins at i after fillers such as "は", ":", "約", "is"; none if there is none.
  const Literal* number_after(std::size_t i) const;
  // The next number behind this one that is neither label nor list mark, in words or kanji too.
  const Literal* next_number(const Literal& literal) const;
  std::vector<Literal> candidates_in(std::size_t begin, std::size_t end) const;

  bool operator_before(const Literal& literal) const;
  bool operator_after(const Literal& literal) const;
  // "3、5", "3個と5個", "3 and 5", "3~5", "2時間30分": neither is the answer.
  bool joined(const Literal& first, const Literal& second) const;
  // "10歳、花子は8歳", "甲有12个，乙有15个": one is said of this, the other of that.
  bool parallel(const Literal& first, const Literal& second) const;
  // "70,000 (35% more)": in brackets behind another number.
  bool in_brackets(const Literal& literal) const;
  // Behind the mark of an item: "(1) 12", "a) 12", "Q1: 12", "①12".
  bool enumerated(const Literal& literal) const;
  // "170余り4", "170 remainder 4", "170...4"
  bool with_remainder(const Literal& quotient) const;
  // "17ではなく", "not 17", "不是17", "rather than 17"
  bool negated(const Literal& literal) const;

  // In brackets that hold a calculation, behind a number: "1016 (127 × 8)", "18 (since 9×2=18)".
  bool aside(std::size_t i) const;

  // Clauses end at 。 ! ? a line break or a full stop.
  std::size_t clause_begin(std::size_t i) const;
  std::size_t clause_end(std::size_t i) const;

 private:
  bool marks_an_item(const Literal& literal) const;

  FoldedText folded_;
  std::vector<Literal> all_, candidates_;
};

std::u32string_view trimmed(std::u32string_view text);

}  // namespace assay::harness
