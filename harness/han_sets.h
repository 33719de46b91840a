// Which Han characters belong to which writing: from ICU's tables, not from a list of ours. Private
// to the language checks.
#pragma once

namespace assay::harness {

// Only one of the two Chinese scripts has the character: ICU's transliterators
// Simplified-Traditional and Traditional-Simplified change it in one direction and not in the
// other. (Japanese shares 国 with the simplified script and 東 with the traditional one.)
bool is_simplified_only(char32_t c);
bool is_traditional_only(char32_t c);

// Whether Japanese text can hold it: JIS X 0208 (ICU's Shift_JIS) does. 们 and 这 are not there.
bool is_in_jis(char32_t c);
// Whether Chinese text can: GB 2312 or Big5 does. 働 and 図 are in neither.
bool is_in_chinese_sets(char32_t c);

}  // namespace assay::harness
