#include "harness/han_sets.h"

#include <unicode/translit.h>
#include <unicode/ucnv.h>
#include <unicode/uniset.h>
#include <unicode/uset.h>

#include <memory>

#include "base/check.h"

namespace assay::harness {
namespace {

std::unique_ptr<icu::Transliterator> transliterator(const char* id) {
  UErrorCode status = U_ZERO_ERROR;
  std::unique_ptr<icu::Transliterator> made(
      icu::Transliterator::createInstance(id, UTRANS_FORWARD, status));
  CHECK(U_SUCCESS(status)) << "ICU has no transliterator " << id << ": " << u_errorName(status);
  return made;
}

icu::UnicodeSet set_of_converter(const char* name) {
  UErrorCode status = U_ZERO_ERROR;
  const std::unique_ptr<UConverter, void (*)(UConverter*)> converter(ucnv_open(name, &status),
                                                                     ucnv_close);
  icu::UnicodeSet set;
  if (U_SUCCESS(status))
    ucnv_getUnicodeSet(converter.get(), set.toUSet(), UCNV_ROUNDTRIP_SET, &status);
  CHECK(U_SUCCESS(status)) << "ICU has no converter " << name << ": " << u_errorName(status);
  set.freeze();
  return set;
}

struct ScriptSets {
  icu::UnicodeSet simplified, traditional;

  ScriptSets() {
    const auto to_traditional = transliterator("Simplified-Traditional");
    const auto to_simplified = transliterator("Traditional-Simplified");
    for (UChar32 c = 0x4E00; c <= 0x9FFF; ++c) {  // CJK Unified Ideographs, where all pairs are
      const icu::UnicodeString character(c);
      icu::UnicodeString traditional_form = character, simplified_form = character;
      to_traditional->transliterate(traditional_form);
      to_simplified->transliterate(simplified_form);
      if (traditional_form != character && simplified_form == character) simplified.add(c);
      if (simplified_form != character && traditional_form == character) traditional.add(c);
    }
    simplified.freeze();
    traditional.freeze();
  }
};

// About 100 ms, so not before the first Han character.
const ScriptSets& script_sets() {
  static const ScriptSets sets;
  return sets;
}

}  // namespace

bool is_simplified_only(char32_t c) {
  return script_sets().simplified.contains(static_cast<UChar32>(c));
}
bool is_traditional_only(char32_t c) {
  return script_sets().traditional.contains(static_cast<UChar32>(c));
}
bool is_in_jis(char32_t c) {
  static const icu::UnicodeSet set = set_of_converter("Shift_JIS");
  return set.contains(static_cast<UChar32>(c));
}
bool is_in_chinese_sets(char32_t c) {
  static const icu::UnicodeSet gb2312 = set_of_converter("GB2312"), big5 = set_of_converter("Big5");
  return gb2312.contains(static_cast<UChar32>(c)) || big5.contains(static_cast<UChar32>(c));
}

}  // namespace assay::harness
