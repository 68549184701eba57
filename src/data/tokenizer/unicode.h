// The door to ICU: normal forms and properties of characters.
// Patterns are regex.h's; counting bytes of UTF-8 is utf8.h's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ptrain {

enum class NormalForm { nfc, nfd, nfkc, nfkd };

/// Brings valid UTF-8 into a normal form. Returns false, with `out` untouched, where the text has it already.
/// Errors: ExitCode::defect with ICU's reason.
bool normalize_text(NormalForm form, std::string_view text, std::string& out);

/// Appends the lower case of one code point, without regard to its neighbours.
void append_lowercase(std::string& out, uint32_t code);

bool is_numeric(uint32_t code);      // categories Nd, Nl, No
bool is_space(uint32_t code);        // White_Space
bool is_word(uint32_t code);         // letters, marks, decimal digits, connectors, joiners: regex \w
bool is_mark(uint32_t code);         // categories Mn, Mc, Me
bool is_punctuation(uint32_t code);  // category P, or an ASCII punctuation mark or symbol

}  // namespace ptrain
