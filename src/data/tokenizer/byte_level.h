// The 256 characters by which byte-level vocabularies spell bytes (GPT-2: Radford et al. 2019).
// Not a pre-tokenizer or a decoder itself; both use it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "src/data/tokenizer/utf8.h"

namespace ptrain {

/// The code point that stands for a byte: printable Latin-1 for itself, the 68 others from U+0100 on, in
/// order.
constexpr std::array<uint16_t, 256> byte_level_codes = [] {
  std::array<uint16_t, 256> codes{};
  uint16_t next = 256;
  for (uint16_t b = 0; b < 256; ++b) {
    const bool is_printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b != 0xAD);
    codes[b] = is_printable ? b : next++;
  }
  return codes;
}();

/// The byte of a code point, -1 where it stands for none.
constexpr std::array<int16_t, 256 + 68> byte_level_bytes = [] {
  std::array<int16_t, 256 + 68> bytes{};
  for (int16_t& byte : bytes) byte = -1;
  for (int16_t b = 0; b < 256; ++b) bytes[byte_level_codes[static_cast<size_t>(b)]] = b;
  return bytes;
}();

/// Spells bytes as characters.
inline void append_byte_level(std::string& out, std::string_view bytes) {
  for (char c : bytes) append_utf8(out, byte_level_codes[static_cast<unsigned char>(c)]);
}

/// The reverse of one token; false, with `out` untouched, where a character stands for no byte.
inline bool append_bytes(std::string& out, std::string_view token) {
  const size_t before = out.size();
  for (size_t i = 0; i < token.size();) {
    const CodePoint code = decode_utf8(token.data() + i);
    const int byte = code.value < byte_level_bytes.size() ? byte_level_bytes[code.value] : -1;
    if (byte < 0) {
      out.resize(before);
      return false;
    }
    out += static_cast<char>(byte);
    i += code.size_bytes;
  }
  return true;
}

}  // namespace ptrain
