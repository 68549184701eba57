// Oniguruma's pattern syntax told in PCRE2's: a pure function on strings.
// Not a full translation: what is not understood is refused by name rather than guessed.
#pragma once

#include <string>
#include <string_view>

namespace ptrain {

/// The same pattern for PCRE2 with UTF and UCP. What differs between the two and is rewritten here:
/// nested and intersected classes ([^(\s|[.,!])], [a-z&&[^b]]), \s \w \d \h and their opposites, \v,
/// \uHHHH, long property names, x{m,n}+ (a repeat of a repeat, not a possessive one), (?m) as "dot is all".
/// Errors: ExitCode::input naming `where`, the pattern, the place, and what is not supported.
std::string translate_onig_pattern(std::string_view pattern, std::string_view where);

}  // namespace ptrain
