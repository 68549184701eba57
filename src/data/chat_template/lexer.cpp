#include "src/data/chat_template/lexer.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "src/data/chat_template/text.h"

namespace ptrain::jinja {
namespace {

bool is_digit_char(char c) {
  return c >= '0' && c <= '9';
}
bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit_char(c) || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}

/// \r\n and \r become \n, and one line end at the end goes.
std::string normalised(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text += source[i];
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

class Lexer {
 public:
  Lexer(std::string_view source, std::string_view where) : text_(normalised(source)), where_(where) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) lex_data();
    emit(TokenKind::end, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void raise(std::string_view message) const {
    fail(ExitCode::input, "{}:{}: {}", where_, line_, message);
  }

  bool looking_at(std::string_view what, size_t at) const {
    return text_.compare(at, what.size(), what) == 0;
  }

  void emit(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  /// Moves to `end` and counts the lines passed.
  void advance(size_t end) {
    line_ += static_cast<int>(std::count(text_.begin() + static_cast<ptrdiff_t>(at_),
                                         text_.begin() + static_cast<ptrdiff_t>(end), '\n'));
    at_ = end;
  }

  size_t skip_space(size_t at) const {
    while (at < text_.size()) {
      size_t next = at;
      if (!is_space(next_point(text_, next))) break;
      at = next;
    }
    return at;
  }

  /// The end of a closing mark at `at` ("%}" with its sign) with the white space that it eats; npos if there
  /// is none.
  size_t closing(std::string_view mark, size_t at) const {
    if (looking_at(mark, at)) {
      const size_t end = at + mark.size();
      const bool drops_line_end = mark != "}}" && end < text_.size() && text_[end] == '\n';
      return drops_line_end ? end + 1 : end;
    }
    if (at < text_.size() && looking_at(mark, at + 1)) {
      if (text_[at] == '-') return skip_space(at + 1 + mark.size());
      if (text_[at] == '+' && mark != "}}") return at + 1 + mark.size();
    }
    return std::string::npos;
  }

  /// Steps over a closing mark.
  void close(size_t end) {
    advance(end);
    is_line_start_ = text_[end - 1] == '\n';
  }

  /// The text before a tag as the tag's sign leaves it.
  std::string_view trimmed(std::string_view data, char sign, bool is_variable) const {
    if (sign == '-') return strip(data, Side::right);
    if (sign == '+' || is_variable) return data;
    const size_t newline = data.rfind('\n');
    const size_t start = newline == std::string_view::npos ? 0 : newline + 1;
    const bool is_from_line_start = start > 0 || is_line_start_;
    return is_from_line_start && strip(data.substr(start), Side::right).empty() ? data.substr(0, start)
                                                                                : data;
  }

  void lex_data() {
    size_t tag = at_;
    do {
      tag = text_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= text_.size()) {
        emit(TokenKind::data, text_.substr(at_));
        return advance(text_.size());
      }
    } while (text_[tag + 1] != '{' && text_[tag + 1] != '%' && text_[tag + 1] != '#' && ++tag > 0);

    const char type = text_[tag + 1];
    const char sign =
        tag + 2 < text_.size() && (text_[tag + 2] == '-' || text_[tag + 2] == '+') ? text_[tag + 2] : ' ';
    const std::string_view data = trimmed(std::string_view(text_).substr(at_, tag - at_), sign, type == '{');
    if (!data.empty()) emit(TokenKind::data, std::string(data));
    advance(tag + (sign == ' ' ? 2 : 3));
    is_line_start_ = false;

    if (type == '#') return lex_comment();
    if (type == '%' && lex_raw()) return;
    emit(type == '{' ? TokenKind::variable_begin : TokenKind::block_begin, "");
    lex_expression(type == '{' ? "}}" : "%}", type == '{' ? TokenKind::variable_end : TokenKind::block_end);
  }

  void lex_comment() {
    size_t end = text_.find("#}", at_);
    if (end == std::string::npos) raise("a comment {# is not closed by #}");
    if (end > at_ && (text_[end - 1] == '-' || text_[end - 1] == '+')) --end;
    close(closing("#}", end));
  }

  /// {% raw %} … {% endraw %} right behind "{%"; false if this is another block.
  bool lex_raw() {
    size_t at = skip_space(at_);
    if (!looking_at("raw", at)) return false;
    at = skip_space(at + 3);
    if (looking_at("-%}", at)) {
      advance(skip_space(at + 3));
    } else if (looking_at("%}", at)) {
      advance(at + 2);
    } else {
      return false;
    }
    for (size_t tag = text_.find("{%", at_); tag != std::string::npos; tag = text_.find("{%", tag + 2)) {
      const char after = tag + 2 < text_.size() ? text_[tag + 2] : ' ';
      const bool is_signed = after == '-' || after == '+';
      size_t end = skip_space(tag + (is_signed ? 3 : 2));
      if (!looking_at("endraw", end)) continue;
      end = closing("%}", skip_space(end + 6));
      if (end == std::string::npos) continue;
      const std::string_view data =
          trimmed(std::string_view(text_).substr(at_, tag - at_), is_signed ? after : ' ', false);
      if (!data.empty()) emit(TokenKind::data, std::string(data));
      close(end);
      return true;
    }
    raise("{% raw %} is not closed by {% endraw %}");
  }

  void lex_expression(std::string_view mark, TokenKind end_kind) {
    std::string brackets;  // those still open
    for (;;) {
      advance(skip_space(at_));
      if (at_ >= text_.size()) raise(mark == "}}" ? "{{ is not closed by }}" : "{% is not closed by %}");
      if (brackets.empty()) {
        if (const size_t end = closing(mark, at_); end != std::string::npos) {
          emit(end_kind, "");
          return close(end);
        }
      }
      const char c = text_[at_];
      if (is_digit_char(c)) {
        lex_number();
      } else if (is_name_char(c)) {
        const auto end =
            std::find_if_not(text_.begin() + static_cast<ptrdiff_t>(at_), text_.end(), is_name_char);
        const auto length = static_cast<size_t>(end - text_.begin()) - at_;
        emit(TokenKind::name, text_.substr(at_, length));
        at_ += length;
      } else if (c == '\'' || c == '"') {
        lex_string(c);
      } else {
        lex_symbol(brackets);
      }
    }
  }

  void lex_number() {
    size_t end = at_;
    const auto digits = [&] {
      while (end < text_.size() && (is_digit_char(text_[end]) || text_[end] == '_')) ++end;
    };
    const auto digit_at = [&](size_t at) { return at < text_.size() && is_digit_char(text_[at]); };
    digits();
    bool is_real = false;
    const bool follows_dot = at_ > 0 && text_[at_ - 1] == '.';  // foo.0.1 is two indices
    if (!follows_dot && end < text_.size() && text_[end] == '.' && digit_at(end + 1)) {
      is_real = true;
      ++end;
      digits();
    }
    if (!follows_dot && end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
      const bool is_signed = end + 1 < text_.size() && (text_[end + 1] == '+' || text_[end + 1] == '-');
      if (digit_at(end + (is_signed ? 2 : 1))) {
        is_real = true;
        end += is_signed ? 2 : 1;
        digits();
      }
    }
    std::string number = text_.substr(at_, end - at_);
    std::erase(number, '_');
    emit(is_real ? TokenKind::real : TokenKind::integer, number);
    at_ = end;
  }

  void lex_string(char mark) {
    size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != mark) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) raise("a string is not closed");
    emit(TokenKind::string, unescaped(std::string_view(text_).substr(at_ + 1, end - at_ - 1)));
    advance(end + 1);
  }

  /// A code point of `count` hexadecimal digits at `at`.
  char32_t hex_point(std::string_view text, size_t at, size_t count) const {
    char32_t point = 0;
    for (size_t i = at; i < at + count; ++i) {
      const char c = i < text.size() ? text[i] : ' ';
      const int digit = is_digit_char(c)       ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) raise("a string has a broken \\x, \\u or \\U escape");
      point = point * 16 + static_cast<char32_t>(digit);
    }
    if (point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
      raise("a string escapes what is no character");
    return point;
  }

  std::string unescaped(std::string_view text) const {
    constexpr std::string_view names = "abfnrtv\\'\"", values = "\a\b\f\n\r\t\v\\'\"";
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\') {
        out += text[i];
        continue;
      }
      const char c = text[++i];
      if (const size_t found = names.find(c); found != std::string_view::npos) {
        out += values[found];
      } else if (c == '\n') {
        continue;  // a line that goes on
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t count = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        append_point(out, hex_point(text, i + 1, count));
        i += count;
      } else if (c >= '0' && c <= '7') {
        char32_t point = 0;
        size_t end = i;
        while (end < i + 3 && end < text.size() && text[end] >= '0' && text[end] <= '7') {
          point = point * 8 + static_cast<char32_t>(text[end++] - '0');
        }
        append_point(out, point);
        i = end - 1;
      } else {
        out += '\\';
        out += c;
      }
    }
    return out;
  }

  void lex_symbol(std::string& brackets) {
    constexpr std::string_view pairs[] = {"//", "**", "==", "!=", ">=", "<="};
    constexpr std::string_view singles = "+-/*%~[](){}><=.:|,;";
    for (const std::string_view pair : pairs) {
      if (looking_at(pair, at_)) {
        emit(TokenKind::symbol, std::string(pair));
        at_ += 2;
        return;
      }
    }
    const char c = text_[at_];
    if (singles.find(c) == std::string_view::npos)
      raise(fmt::format("'{}' means nothing in a template expression", c));
    if (c == '(' || c == '[' || c == '{') brackets += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (brackets.empty() || brackets.back() != c) raise(fmt::format("'{}' closes nothing", c));
      brackets.pop_back();
    }
    emit(TokenKind::symbol, std::string(1, c));
    ++at_;
  }

  std::string text_;
  std::string_view where_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int line_ = 1;
  bool is_line_start_ = true;  // the text that follows begins a line
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, std::string_view where) {
  return Lexer(source, where).run();
}

}  // namespace ptrain::jinja
