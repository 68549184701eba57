// The only file that includes PCRE2.
#include "src/data/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8  // PCRE2's own way to say which of its libraries is meant
#include <pcre2.h>

#include <array>

#include "kernels/base/error.h"
#include "src/data/tokenizer/onig_pattern.h"

namespace ptrain {
namespace {

constexpr uint32_t match_limit = 20'000'000;  // steps inside one match; English needs tens
constexpr uint32_t heap_limit_kib = 64 << 10;
constexpr size_t jit_stack_first_bytes = 32 << 10;
constexpr size_t jit_stack_most_bytes = 16 << 20;

std::string reason_of(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  if (pcre2_get_error_message(code, text.data(), text.size()) < 0) return fmt::format("error {}", code);
  return reinterpret_cast<const char*>(text.data());
}

template <auto function>
struct FreeWith {
  template <class T>
  void operator()(T* handle) const {
    function(handle);
  }
};

using CompileContext = std::unique_ptr<pcre2_compile_context, FreeWith<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, FreeWith<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, FreeWith<pcre2_match_data_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, FreeWith<pcre2_jit_stack_free>>;
using Code = std::unique_ptr<pcre2_code, FreeWith<pcre2_code_free>>;

}  // namespace

struct RegexScratch::Parts {
  JitStack jit_stack;  // outlives the context that points at it
  MatchContext context;
  MatchData data;
};

RegexScratch::RegexScratch() : parts_(std::make_unique<Parts>()) {
  parts_->jit_stack.reset(pcre2_jit_stack_create(jit_stack_first_bytes, jit_stack_most_bytes, nullptr));
  parts_->context.reset(pcre2_match_context_create(nullptr));
  parts_->data.reset(pcre2_match_data_create(1, nullptr));
  check(parts_->jit_stack && parts_->context && parts_->data, ExitCode::resources,
        "PCRE2: no memory for its working space");
  pcre2_set_match_limit(parts_->context.get(), match_limit);
  pcre2_set_heap_limit(parts_->context.get(), heap_limit_kib);
  pcre2_jit_stack_assign(parts_->context.get(), nullptr, parts_->jit_stack.get());
}

RegexScratch::~RegexScratch() = default;

struct Regex::Parts {
  std::string pattern;  // as the file writes it, for messages
  std::string where;
  Code code;
};

Regex::Regex(std::string_view pattern, std::string_view where) : parts_(std::make_unique<Parts>()) {
  parts_->pattern = pattern;
  parts_->where = where;
  const std::string translated = translate_onig_pattern(pattern, where);
  const CompileContext context(pcre2_compile_context_create(nullptr));
  check(context != nullptr, ExitCode::resources, "PCRE2: no memory to compile a pattern");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 100);
  int error = 0;
  PCRE2_SIZE offset = 0;
  // MULTILINE: in Ruby's syntax ^ and $ always mean lines.
  parts_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                                   &offset, context.get()));
  check(parts_->code != nullptr, ExitCode::input,
        "{}: the pattern \"{}\" cannot be compiled: {} at {} of \"{}\"", where, pattern, reason_of(error),
        offset, translated);
  const int jit = pcre2_jit_compile(parts_->code.get(), PCRE2_JIT_COMPLETE);
  check(jit == 0 || jit == PCRE2_ERROR_JIT_BADOPTION || jit == PCRE2_ERROR_NOMEMORY,
        "PCRE2: JIT compilation: {}", reason_of(jit));  // a build without JIT still matches, slower
}

Regex::~Regex() = default;

std::optional<Match> Regex::find(std::string_view text, size_t from, RegexScratch& scratch) const {
  pcre2_match_data* data = scratch.parts_->data.get();
  const int count = pcre2_match(parts_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                from, PCRE2_NO_UTF_CHECK, data, scratch.parts_->context.get());
  if (count == PCRE2_ERROR_NOMATCH) return std::nullopt;
  check(count >= 0, ExitCode::input,
        "{}: the pattern \"{}\" cannot be matched within its limits on a text of {} bytes: {}", parts_->where,
        parts_->pattern, text.size(), reason_of(count));
  const PCRE2_SIZE* match = pcre2_get_ovector_pointer(data);
  check(match[0] <= match[1], ExitCode::input,
        "{}: the pattern \"{}\" makes a match end before its beginning", parts_->where, parts_->pattern);
  return Match{match[0], match[1]};
}

}  // namespace ptrain
