// The only file that includes ICU.
#include "src/data/tokenizer/unicode.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>

#include "kernels/base/error.h"
#include "src/data/tokenizer/utf8.h"

namespace ptrain {
namespace {

void check_icu(UErrorCode status, const char* what) {
  check(U_SUCCESS(status), "ICU: {}: {}", what, u_errorName(status));
}

/// ICU's own object, which lives as long as the process.
const icu::Normalizer2& normalizer(NormalForm form) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* found = nullptr;
  switch (form) {
    case NormalForm::nfc:
      found = icu::Normalizer2::getNFCInstance(status);
      break;
    case NormalForm::nfd:
      found = icu::Normalizer2::getNFDInstance(status);
      break;
    case NormalForm::nfkc:
      found = icu::Normalizer2::getNFKCInstance(status);
      break;
    case NormalForm::nfkd:
      found = icu::Normalizer2::getNFKDInstance(status);
      break;
  }
  check_icu(status, "the normal form's data");
  return *found;
}

bool is_in(uint32_t code, uint32_t mask) {
  return (U_MASK(u_charType(static_cast<UChar32>(code))) & mask) != 0;
}

}  // namespace

bool normalize_text(NormalForm form, std::string_view text, std::string& out) {
  if (ascii_prefix(text) == text.size()) return false;  // ASCII has every normal form
  check(text.size() < (size_t{1} << 30), ExitCode::resources, "a text of {} bytes is too long to normalise",
        text.size());
  const icu::Normalizer2& with = normalizer(form);
  const icu::StringPiece piece(text.data(), static_cast<int32_t>(text.size()));
  UErrorCode status = U_ZERO_ERROR;
  if (with.isNormalizedUTF8(piece, status) && U_SUCCESS(status)) return false;
  status = U_ZERO_ERROR;
  std::string result;
  icu::StringByteSink<std::string> sink(&result, static_cast<int32_t>(text.size()));
  with.normalizeUTF8(0, piece, sink, nullptr, status);
  check_icu(status, "normalising");
  out = std::move(result);
  return true;
}

void append_lowercase(std::string& out, uint32_t code) {
  if (code == 0x130) {  // the one letter whose lower case is two characters everywhere
    append_utf8(out, 'i');
    append_utf8(out, 0x307);
    return;
  }
  append_utf8(out, static_cast<uint32_t>(u_tolower(static_cast<UChar32>(code))));
}

bool is_numeric(uint32_t code) {
  return is_in(code, U_GC_N_MASK);
}

bool is_space(uint32_t code) {
  return u_isUWhiteSpace(static_cast<UChar32>(code));
}

bool is_word(uint32_t code) {
  return u_isUAlphabetic(static_cast<UChar32>(code)) ||
         is_in(code, U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK) ||
         u_hasBinaryProperty(static_cast<UChar32>(code), UCHAR_JOIN_CONTROL);
}

bool is_mark(uint32_t code) {
  return is_in(code, U_GC_M_MASK);
}

bool is_punctuation(uint32_t code) {
  if (code < 0x80) return (code > 0x20 && code < 0x7F) && !u_isalnum(static_cast<UChar32>(code));
  return is_in(code, U_GC_P_MASK);
}

}  // namespace ptrain
