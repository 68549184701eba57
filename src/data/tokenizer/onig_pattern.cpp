// A recursive reader of Oniguruma patterns (Ruby syntax, its default) that writes PCRE2 patterns as it goes.
#include "src/data/tokenizer/onig_pattern.h"

#include <array>
#include <cctype>
#include <optional>
#include <vector>

#include "kernels/base/error.h"
#include "src/data/tokenizer/onig_sets.h"
#include "src/data/tokenizer/utf8.h"

namespace ptrain {
namespace {

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view where) : pattern_(pattern), where_(where) {}

  std::string translate() {
    while (!at_end()) translate_one();
    if (!open_groups_.empty()) refuse("a ( without its )");
    return std::move(out_);
  }

 private:
  bool at_end() const { return at_ >= pattern_.size(); }
  char peek(size_t ahead = 0) const { return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0'; }
  bool take(std::string_view text) {
    if (!pattern_.substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }
  uint32_t take_code() {
    if (at_end()) refuse("an end in the middle");
    const CodePoint code = decode_utf8(pattern_.data() + at_);
    at_ += code.size_bytes;
    return code.value;
  }
  [[noreturn]] void refuse(std::string_view what) const {
    fail(ExitCode::input, "{}: the pattern \"{}\" has {} at byte {}, which is not supported", where_,
         pattern_, what, std::min(at_, pattern_.size()));
  }

  void atom(std::string_view text) {
    atom_begin_ = out_.size();
    out_ += text;
  }

  void translate_one() {
    switch (peek()) {
      case '\\':
        return translate_escape();
      case '[':
        ++at_;
        return atom(expression_of(read_class(0)));
      case '(':
        return open_group();
      case ')':
        if (open_groups_.empty()) refuse("a ) without its (");
        atom_begin_ = open_groups_.back();
        open_groups_.pop_back();
        out_ += ')';
        ++at_;
        return;
      case '{':
        return translate_interval();
      case '?':
      case '*':
      case '+':
        out_ += peek();
        ++at_;
        return;
      case '|':
      case '^':
      case '$':
      case '.': {
        const char c = peek();
        ++at_;
        return atom(std::string_view(&c, 1));
      }
      default: {
        const uint32_t code = take_code();
        return atom(escaped(code));
      }
    }
  }

  /// x{m,n} with the suffixes as Ruby reads them.
  void translate_interval() {
    size_t end = at_ + 1;
    const auto number = [&] {
      const size_t begin = end;
      while (end < pattern_.size() && std::isdigit(static_cast<unsigned char>(pattern_[end]))) ++end;
      return pattern_.substr(begin, end - begin);
    };
    const std::string_view low = number();
    const bool has_comma = end < pattern_.size() && pattern_[end] == ',';
    if (has_comma) ++end;
    const std::string_view high = has_comma ? number() : low;
    const bool is_interval = end < pattern_.size() && pattern_[end] == '}' && !(low.empty() && high.empty());
    if (!is_interval) {  // then { is a letter like others
      ++at_;
      return atom(escaped('{'));
    }
    at_ = end + 1;
    out_ += '{';
    out_ += low.empty() ? "0" : low;
    if (has_comma) {
      out_ += ',';
      out_ += high;
    }
    out_ += '}';
    if (peek() == '?' && !has_comma) refuse("{n}?");
    if (peek() == '+') {
      out_.insert(atom_begin_, "(?:");
      out_ += ')';
    }
  }

  void open_group() {
    const size_t begin = out_.size();
    static constexpr std::array<std::string_view, 6> plain = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
    for (std::string_view head : plain) {
      if (take(head)) {
        out_ += head;
        open_groups_.push_back(begin);
        return;
      }
    }
    if (take("(?#")) {
      while (!at_end() && peek() != ')') ++at_;
      if (!take(")")) refuse("a comment without its end");
      return;
    }
    if (peek(1) == '*') refuse("(*");
    if (peek(1) != '?') {
      ++at_;
      out_ += '(';
      open_groups_.push_back(begin);
      return;
    }
    open_flags(begin);
  }

  /// (?im-im: and, at the very beginning, (?im). Ruby's m is PCRE2's s.
  void open_flags(size_t begin) {
    const bool is_first = at_ == 0;
    at_ += 2;
    std::string flags;
    for (; peek() == 'i' || peek() == 'm' || peek() == '-'; ++at_) flags += peek() == 'm' ? 's' : peek();
    if (flags.empty() || (peek() != ':' && !(peek() == ')' && is_first))) refuse("this kind of group");
    out_ += "(?" + flags + peek();
    if (peek() == ':') open_groups_.push_back(begin);
    ++at_;
  }

  void translate_escape() {
    switch (peek(1)) {
      case 'A':
      case 'z':
      case 'Z':
      case 'G':
      case 'R':
      case 'X':
        atom(pattern_.substr(at_, 2));
        at_ += 2;
        return;
      case 'b':
      case 'B': {
        const bool is_edge = peek(1) == 'b';
        at_ += 2;
        const std::string word = "[" + std::string(word_items).append(latin1_word_items) + "]";
        const std::string before = "(?<=" + word + ")";
        const std::string not_before = "(?<!" + word + ")";
        const std::string after = "(?=" + word + ")";
        const std::string not_after = "(?!" + word + ")";
        return atom(is_edge ? "(?:" + before + not_after + "|" + not_before + after + ")"
                            : "(?:" + before + after + "|" + not_before + not_after + ")");
      }
      default:
        break;
    }
    if (peek(1) >= '1' && peek(1) <= '9') {
      atom(pattern_.substr(at_, 2));
      at_ += 2;
      return;
    }
    CharacterSet set;
    if (const std::optional<uint32_t> code = read_escape(set)) return atom(escaped(*code));
    if (set.items == word_items) set.items += latin1_word_items;
    atom(expression_of(set));
  }

  /// After a backslash: a code point, or none with the set that was named in `set`.
  std::optional<uint32_t> read_escape(CharacterSet& set) {
    ++at_;
    const uint32_t code = take_code();
    const auto named = [&](std::string_view items, bool is_negated) {
      set.items = items;
      set.is_negated = is_negated;
      return std::nullopt;
    };
    switch (code) {
      case 's':
      case 'S':
        return named(space_items, code == 'S');
      case 'w':
      case 'W':
        return named(word_items, code == 'W');
      case 'd':
      case 'D':
        return named(R"(\p{Nd})", code == 'D');
      case 'h':
      case 'H':
        return named(hex_items, code == 'H');
      case 'p':
      case 'P':
        return read_property(set, code == 'P');
      case 't':
        return '\t';
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 'f':
        return '\f';
      case 'v':
        return '\v';
      case 'a':
        return '\a';
      case 'e':
        return 0x1B;
      case '0':
        return 0;
      case 'x':
        return take("{") ? read_hex(1, 8, true) : read_hex(1, 2, false);
      case 'u':
        return read_hex(4, 4, false);
      default:
        if (code < 0x80 && std::isalnum(static_cast<int>(code))) refuse(fmt::format("\\{}", char(code)));
        return code;
    }
  }

  uint32_t read_hex(size_t fewest, size_t most, bool is_braced) {
    uint32_t code = 0;
    size_t count = 0;
    while (count < most && std::isxdigit(static_cast<unsigned char>(peek()))) {
      code = code * 16 + static_cast<uint32_t>(std::stoi(std::string(1, peek()), nullptr, 16));
      ++at_;
      ++count;
    }
    if (count < fewest || (is_braced && !take("}"))) refuse("a broken number");
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) refuse("a number that is no character");
    return code;
  }

  std::optional<uint32_t> read_property(CharacterSet& set, bool is_negated) {
    if (!take("{")) refuse("a property without {");
    if (take("^")) is_negated = !is_negated;
    const size_t end = pattern_.find('}', at_);
    if (end == std::string_view::npos) refuse("a property without }");
    const std::string_view name = pattern_.substr(at_, end - at_);
    for (char c : name) {
      if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_' && c != '-' && c != ' ') {
        refuse("a strange property name");
      }
    }
    at_ = end + 1;
    set.items = property_items(name);
    set.is_negated = is_negated;
    return std::nullopt;
  }

  /// A class whose [ was taken, up to and with its ].
  CharacterSet read_class(int depth) {
    if (depth > 20) refuse("a class nested this deep");
    CharacterSet whole;
    whole.is_negated = take("^");
    std::vector<CharacterSet> operands(1);
    bool is_first = true;
    while (is_first || peek() != ']') {
      if (at_end()) refuse("a [ without its ]");
      if (take("&&")) {
        operands.emplace_back();
      } else if (take("[:")) {
        join(operands.back(), read_posix());
      } else if (take("[")) {
        join(operands.back(), read_class(depth + 1));
      } else {
        read_member(operands.back());
      }
      is_first = false;
    }
    ++at_;
    if (operands.size() == 1) {
      operands[0].is_negated = whole.is_negated;
      return std::move(operands[0]);
    }
    whole.nested.push_back(std::move(operands[0]));
    for (size_t i = 1; i < operands.size(); ++i) whole.cuts.push_back(std::move(operands[i]));
    return whole;
  }

  CharacterSet read_posix() {
    CharacterSet set;
    set.is_negated = take("^");
    const size_t end = pattern_.find(":]", at_);
    if (end == std::string_view::npos) refuse("a [: without its :]");
    const std::string_view name = pattern_.substr(at_, end - at_);
    const std::string items = name == "punct" ? R"(\p{P}\p{S})" : property_items(name);  // \p{Punct} is less
    if (items.starts_with("\\p{sc:") || name.size() < 4) refuse("an unknown [: :] class");
    set.items = items;
    at_ = end + 2;
    return set;
  }

  /// A character, a range or a named set inside a class.
  void read_member(CharacterSet& set) {
    const auto one = [&](CharacterSet& named) -> std::optional<uint32_t> {
      if (peek() == '\\') {
        if (peek(1) == 'b') {  // a backspace here
          at_ += 2;
          return 8;
        }
        return read_escape(named);
      }
      return take_code();
    };
    CharacterSet named;
    const std::optional<uint32_t> first = one(named);
    if (!first) return join(set, std::move(named));
    set.items += escaped(*first);
    if (peek() != '-' || peek(1) == ']' || peek(1) == '\0' || peek(1) == '[') return;
    ++at_;
    CharacterSet ignored;
    const std::optional<uint32_t> last = one(ignored);
    if (!last || *last < *first) refuse("a range without a proper end");
    set.items += "-" + escaped(*last);
  }

  std::string_view pattern_;
  std::string_view where_;
  size_t at_ = 0;
  std::string out_;
  size_t atom_begin_ = 0;            // where in out_ the latest atom begins: what a quantifier repeats
  std::vector<size_t> open_groups_;  // where in out_ each open group begins
};

}  // namespace

std::string translate_onig_pattern(std::string_view pattern, std::string_view where) {
  return Translator(pattern, where).translate();
}

}  // namespace ptrain
