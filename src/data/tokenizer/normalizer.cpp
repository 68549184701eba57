// Each kind of normalizer is a small function from text to text; a sequence is a list of them.
#include "src/data/tokenizer/normalizer.h"

#include <functional>

#include "kernels/base/error.h"
#include "src/data/tokenizer/byte_level.h"
#include "src/data/tokenizer/unicode.h"
#include "src/data/tokenizer/utf8.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

/// Writes the new text to `out` and returns true, or returns false where the text stays as it is.
using Transform = std::function<bool(std::string_view text, std::string& out, RegexScratch&)>;

Transform normal_form(NormalForm form) {
  return [form](std::string_view text, std::string& out, RegexScratch&) {
    return normalize_text(form, text, out);
  };
}

/// Calls change(code, out) for every character.
template <class Change>
Transform each_character(Change change) {
  return [change](std::string_view text, std::string& out, RegexScratch&) {
    out.clear();
    for (size_t i = 0; i < text.size();) {
      const CodePoint code = decode_utf8(text.data() + i);
      change(code.value, out);
      i += code.size_bytes;
    }
    return true;
  };
}

Transform prepend(std::string prefix) {
  return [prefix = std::move(prefix)](std::string_view text, std::string& out, RegexScratch&) {
    if (text.empty()) return false;
    out.assign(prefix).append(text);
    return true;
  };
}

Transform replace(const Json& settings, const std::string& where) {
  const TextPattern pattern(member(settings, "pattern", where), where + ".pattern");
  const auto content = required<std::string>(settings, "content", where);
  return [pattern, content](std::string_view text, std::string& out, RegexScratch& scratch) {
    out.clear();
    append_replaced(pattern, content, text, scratch, out);
    return true;
  };
}

Transform strip(bool is_left, bool is_right) {
  return [=](std::string_view text, std::string& out, RegexScratch&) {
    while (is_left && !text.empty()) {
      const CodePoint code = decode_utf8(text.data());
      if (!is_space(code.value)) break;
      text.remove_prefix(code.size_bytes);
    }
    while (is_right && !text.empty()) {
      const size_t last = previous_utf8(text, text.size());
      if (!is_space(decode_utf8(text.data() + last).value)) break;
      text = text.substr(0, last);
    }
    out = text;
    return true;
  };
}

/// The clean-up of neural machine translation corpora that SentencePiece calls nmt.
void append_nmt(uint32_t code, std::string& out) {
  const bool is_dropped = (code >= 0x1 && code <= 0x8) || code == 0xB || (code >= 0xE && code <= 0x1F) ||
                          code == 0x7F || code == 0x8F || code == 0x9F;
  const bool is_blank = code == 0x9 || code == 0xA || code == 0xC || code == 0xD || code == 0x1680 ||
                        (code >= 0x200B && code <= 0x200F) || code == 0x2028 || code == 0x2029 ||
                        code == 0x2581 || code == 0xFEFF || code == 0xFFFD;
  if (!is_dropped) append_utf8(out, is_blank ? ' ' : code);
}

Transform transform_of(const Json& settings, const std::string& where) {
  const auto type = required<std::string>(settings, "type", where);
  if (type == "NFC") return normal_form(NormalForm::nfc);
  if (type == "NFD") return normal_form(NormalForm::nfd);
  if (type == "NFKC") return normal_form(NormalForm::nfkc);
  if (type == "NFKD") return normal_form(NormalForm::nfkd);
  if (type == "Lowercase") {
    return each_character([](uint32_t code, std::string& out) { append_lowercase(out, code); });
  }
  if (type == "StripAccents") {
    return each_character([](uint32_t code, std::string& out) {
      if (!is_mark(code)) append_utf8(out, code);
    });
  }
  if (type == "Nmt") return each_character(append_nmt);
  if (type == "Prepend") return prepend(required<std::string>(settings, "prepend", where));
  if (type == "Replace") return replace(settings, where);
  if (type == "Strip") {
    return strip(optional_or<bool>(settings, "strip_left", true, where),
                 optional_or<bool>(settings, "strip_right", true, where));
  }
  if (type == "ByteLevel") {
    return [](std::string_view text, std::string& out, RegexScratch&) {
      out.clear();
      append_byte_level(out, text);
      return true;
    };
  }
  fail(ExitCode::input,
       "{}: the normalizer \"{}\" is not supported (supported: NFC, NFD, NFKC, NFKD, Lowercase, "
       "StripAccents, Nmt, "
       "Prepend, Replace, Strip, ByteLevel, Sequence)",
       where, type);
}

}  // namespace

TextPattern::TextPattern(const Json& settings, const std::string& where) {
  check(settings.is_object() && settings.size() == 1, ExitCode::input,
        "{}: is {}, expected {{\"String\": …}} or {{\"Regex\": …}}", where, kind_of(settings));
  if (settings.contains("Regex")) {
    regex = std::make_shared<const Regex>(required<std::string>(settings, "Regex", where), where);
    return;
  }
  literal = required<std::string>(settings, "String", where);
  check(!literal.empty(), ExitCode::input, "{}: the pattern is empty", where);
}

void append_replaced(const TextPattern& pattern, std::string_view content, std::string_view text,
                     RegexScratch& scratch, std::string& out) {
  size_t done = 0;
  pattern.for_each(text, scratch, [&](Match match) {
    out.append(text, done, match.begin - done).append(content);
    done = match.end;
  });
  out.append(text, done);
}

struct Normalizer::Step {
  Transform transform;
};

Normalizer::Normalizer(const Json& settings, const std::string& where) {
  if (!settings.is_null()) read(settings, where);
}

Normalizer::~Normalizer() = default;
Normalizer::Normalizer(Normalizer&&) noexcept = default;

void Normalizer::read(const Json& settings, const std::string& where) {
  check(settings.is_object(), ExitCode::input, "{}: is {}, expected an object", where, kind_of(settings));
  if (required<std::string>(settings, "type", where) != "Sequence") {
    steps_.push_back({transform_of(settings, where)});
    return;
  }
  const Json& members = member(settings, "normalizers", where);
  check(members.is_array(), ExitCode::input, "{}: \"normalizers\" is {}, expected an array", where,
        kind_of(members));
  for (size_t i = 0; i < members.size(); ++i) read(members[i], fmt::format("{}.normalizers[{}]", where, i));
}

std::string_view Normalizer::apply(std::string_view text, NormalizerScratch& scratch) const {
  for (const Step& step : steps_) {
    if (!step.transform(text, scratch.next, scratch.regex)) continue;
    scratch.current.swap(scratch.next);
    text = scratch.current;
  }
  return text;
}

}  // namespace ptrain
