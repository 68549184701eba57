// UTF-8 text as the template language sees it: counted, cut and cased by code points.
// Not a Unicode library: no normalisation, no locale; bytes that are not UTF-8 count as one code point each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace ptrain::jinja {

/// Reads the code point at `at` and moves `at` behind it; a byte that starts none is read as itself.
char32_t next_point(std::string_view text, size_t& at);
void append_point(std::string& out, char32_t point);

/// True if the text is UTF-8 throughout (no surrogates, no overlong forms).
bool is_utf8(std::string_view text);

/// Number of code points.
int64_t count_points(std::string_view text);

/// Byte offset of each code point, and the text's size as the last entry.
std::vector<size_t> point_offsets(std::string_view text);

/// What Python's str.isspace() says of one code point.
bool is_space(char32_t point);

enum class Side { both, left, right };

/// Without the code points at the chosen side(s) for which `drop` holds.
std::string_view strip_if(std::string_view text, Side side, const std::function<bool(char32_t)>& drop);
/// Without white space at the chosen side(s).
std::string_view strip(std::string_view text, Side side);
/// Without any of the code points of `chars` at the chosen side(s).
std::string_view strip_chars(std::string_view text, Side side, std::string_view chars);

char32_t upper_point(char32_t point);
char32_t lower_point(char32_t point);
bool is_alpha(char32_t point);
bool is_digit(char32_t point);
std::string upper(std::string_view text);
std::string lower(std::string_view text);
/// First letter in upper case, the rest in lower case.
std::string capitalize(std::string_view text);
/// Every letter that follows no letter in upper case, the others in lower case.
std::string title(std::string_view text);

/// Replaces at most `count` occurrences from the left; negative: all. An empty `old` matches between all code
/// points.
std::string replace(std::string_view text, std::string_view old, std::string_view by, int64_t count);

/// The lines without their ends; a final line end opens no empty line.
std::vector<std::string_view> split_lines(std::string_view text);

/// The words between runs of white space; with `limit` >= 0 at most that many cuts, from the left or the
/// right.
std::vector<std::string_view> split_words(std::string_view text, int64_t limit, Side from);
/// The parts between occurrences of `separator` (not empty).
std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t limit,
                                    Side from);

}  // namespace ptrain::jinja
