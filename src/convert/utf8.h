// Whether bytes are text. Not for turning text into characters: the tokenizer has its own reader.
#pragma once

#include <string_view>

namespace ptrain {

/// True for well-formed UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text);

}  // namespace ptrain
