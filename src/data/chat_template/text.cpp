#include "src/data/chat_template/text.h"

#include <locale.h>
#include <wctype.h>

#include <algorithm>

namespace ptrain::jinja {
namespace {

/// Length of the well-formed sequence at `at`, 0 if there is none.
size_t sequence_length(std::string_view text, size_t at, char32_t& point) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) {
    point = first;
    return 1;
  }
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || at + length > text.size()) return 0;
  point = first & (0xffu >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    point = (point << 6) | (byte(i) & 0x3fu);
  }
  const char32_t least = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
  if (point < least || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) return 0;
  return length;
}

/// The C library's Unicode tables, independent of the process' locale.
locale_t unicode() {
  static const locale_t locale = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  return locale;
}

std::string map_points(std::string_view text, char32_t (*change)(char32_t)) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const char32_t point = next_point(text, at);
    if (point == 0xdf && change == upper_point) {
      out += "SS";  // sharp s has no upper case of one letter
    } else {
      append_point(out, change(point));
    }
  }
  return out;
}

}  // namespace

char32_t next_point(std::string_view text, size_t& at) {
  char32_t point = 0;
  const size_t length = sequence_length(text, at, point);
  if (length == 0) return static_cast<unsigned char>(text[at++]);
  at += length;
  return point;
}

void append_point(std::string& out, char32_t point) {
  const auto put = [&](char32_t byte) { out += static_cast<char>(static_cast<unsigned char>(byte)); };
  if (point < 0x80) {
    put(point);
  } else if (point < 0x800) {
    put(0xc0 | (point >> 6));
    put(0x80 | (point & 0x3f));
  } else if (point < 0x10000) {
    put(0xe0 | (point >> 12));
    put(0x80 | ((point >> 6) & 0x3f));
    put(0x80 | (point & 0x3f));
  } else {
    put(0xf0 | (point >> 18));
    put(0x80 | ((point >> 12) & 0x3f));
    put(0x80 | ((point >> 6) & 0x3f));
    put(0x80 | (point & 0x3f));
  }
}

bool is_utf8(std::string_view text) {
  char32_t point = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t length = sequence_length(text, at, point);
    if (length == 0) return false;
    at += length;
  }
  return true;
}

int64_t count_points(std::string_view text) {
  int64_t count = 0;
  for (size_t at = 0; at < text.size(); ++count) next_point(text, at);
  return count;
}

std::vector<size_t> point_offsets(std::string_view text) {
  std::vector<size_t> offsets;
  offsets.reserve(text.size() + 1);
  for (size_t at = 0; at < text.size();) {
    offsets.push_back(at);
    next_point(text, at);
  }
  offsets.push_back(text.size());
  return offsets;
}

bool is_space(char32_t point) {
  return (point >= 0x09 && point <= 0x0d) || (point >= 0x1c && point <= 0x20) || point == 0x85 ||
         point == 0xa0 || point == 0x1680 || (point >= 0x2000 && point <= 0x200a) || point == 0x2028 ||
         point == 0x2029 || point == 0x202f || point == 0x205f || point == 0x3000;
}

std::string_view strip_if(std::string_view text, Side side, const std::function<bool(char32_t)>& drop) {
  if (side != Side::right) {
    size_t at = 0;
    while (at < text.size()) {
      size_t next = at;
      if (!drop(next_point(text, next))) break;
      at = next;
    }
    text.remove_prefix(at);
  }
  if (side != Side::left) {
    while (!text.empty()) {
      size_t start = text.size() - 1;
      while (start > 0 && text.size() - start < 4 && (static_cast<unsigned char>(text[start]) & 0xc0) == 0x80)
        --start;
      size_t end = start;
      const char32_t point = next_point(text, end);
      if (end != text.size() || !drop(point)) break;
      text.remove_suffix(text.size() - start);
    }
  }
  return text;
}

std::string_view strip(std::string_view text, Side side) {
  return strip_if(text, side, is_space);
}

std::string_view strip_chars(std::string_view text, Side side, std::string_view chars) {
  std::vector<char32_t> points;
  for (size_t at = 0; at < chars.size();) points.push_back(next_point(chars, at));
  return strip_if(text, side, [&](char32_t point) {
    return std::find(points.begin(), points.end(), point) != points.end();
  });
}

char32_t upper_point(char32_t point) {
  return static_cast<char32_t>(::towupper_l(point, unicode()));
}
char32_t lower_point(char32_t point) {
  return static_cast<char32_t>(::towlower_l(point, unicode()));
}
bool is_digit(char32_t point) {
  return point >= '0' && point <= '9';
}
bool is_alpha(char32_t point) {
  return ::iswalpha_l(point, unicode()) != 0 && !is_digit(point);
}

std::string upper(std::string_view text) {
  return map_points(text, upper_point);
}
std::string lower(std::string_view text) {
  return map_points(text, lower_point);
}

std::string capitalize(std::string_view text) {
  size_t first = 0;
  if (!text.empty()) next_point(text, first);
  return upper(text.substr(0, first)) + lower(text.substr(first));
}

std::string title(std::string_view text) {
  std::string out;
  bool is_inside = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t point = next_point(text, at);
    append_point(out, is_inside ? lower_point(point) : upper_point(point));
    is_inside = is_alpha(point);
  }
  return out;
}

std::string replace(std::string_view text, std::string_view old, std::string_view by, int64_t count) {
  std::string out;
  size_t at = 0;
  int64_t done = 0;
  if (old.empty()) {
    const std::vector<size_t> offsets = point_offsets(text);
    for (size_t i = 0; i < offsets.size(); ++i, ++done) {
      if (count < 0 || done < count) out += by;
      if (i + 1 < offsets.size()) out += text.substr(offsets[i], offsets[i + 1] - offsets[i]);
    }
    return out;
  }
  for (; count < 0 || done < count; ++done) {
    const size_t found = text.find(old, at);
    if (found == std::string_view::npos) break;
    out += text.substr(at, found - at);
    out += by;
    at = found + old.size();
  }
  out += text.substr(at);
  return out;
}

std::vector<std::string_view> split_lines(std::string_view text) {
  const auto ends_line = [](char32_t p) {
    return (p >= 0x0a && p <= 0x0d) || (p >= 0x1c && p <= 0x1e) || p == 0x85 || p == 0x2028 || p == 0x2029;
  };
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = at;
    const char32_t point = next_point(text, at);
    if (!ends_line(point)) continue;
    if (point == '\r' && at < text.size() && text[at] == '\n') ++at;
    lines.push_back(text.substr(start, end - start));
    start = at;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

std::vector<std::string_view> split_words(std::string_view text, int64_t limit, Side from) {
  std::vector<std::string_view> words;
  const auto is_word_point = [](char32_t point) { return !is_space(point); };
  const bool is_right = from == Side::right;
  for (text = strip(text, from); !text.empty(); text = strip(text, from)) {
    if (limit >= 0 && static_cast<int64_t>(words.size()) == limit) {
      words.push_back(text);  // the rest keeps its white space at the far end
      break;
    }
    const std::string_view rest = strip_if(text, from, is_word_point);
    const size_t length = text.size() - rest.size();
    words.push_back(is_right ? text.substr(rest.size()) : text.substr(0, length));
    text = rest;
  }
  if (is_right) std::reverse(words.begin(), words.end());
  return words;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t limit,
                                    Side from) {
  std::vector<std::string_view> parts;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t found = from == Side::right ? text.rfind(separator) : text.find(separator);
    if (found == std::string_view::npos) break;
    if (from == Side::right) {
      parts.push_back(text.substr(found + separator.size()));
      text = text.substr(0, found);
    } else {
      parts.push_back(text.substr(0, found));
      text = text.substr(found + separator.size());
    }
  }
  parts.push_back(text);
  if (from == Side::right) std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace ptrain::jinja
