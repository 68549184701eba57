// Filters that make text or numbers of a value.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "src/data/chat_template/filters.h"
#include "src/data/chat_template/text.h"

namespace ptrain::jinja {
namespace {

Value filter_trim(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "trim", arguments, {"chars"});
  const std::string text = m.text(input);
  if (!bound.has(0) || bound.need(0).is(Kind::none)) return m.string(strip(text, Side::both));
  return m.string(strip_chars(text, Side::both, bound.text(0)));
}

template <std::string (*change)(std::string_view)>
Value filter_case(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "this filter", arguments, {});
  return m.string(change(m.text(input)));
}

/// Unlike the method, the filter begins words only behind blanks, hyphens and opening brackets.
Value filter_title(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "title", arguments, {});
  const std::string text = m.text(input);
  std::string out;
  bool is_inside = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t point = next_point(text, at);
    append_point(out, is_inside ? lower_point(point) : upper_point(point));
    is_inside =
        !(is_space(point) || point == '-' || point == '(' || point == '{' || point == '[' || point == '<');
  }
  return m.string(std::move(out));
}

Value filter_tojson(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "tojson", arguments, {"indent", "ensure_ascii", "sort_keys", "separators"});
  if (bound.truth(1, false) || bound.truth(2, false) || bound.truth(3, false)) {
    m.raise("tojson() is supported with \"indent\" only");
  }
  int64_t indent = -1;
  if (bound.has(0) && !bound.need(0).is(Kind::none)) indent = bound.integer(0);
  if (indent > 64) m.raise("tojson(): an indent of {} is too large", indent);
  return m.string(to_json(m, input, indent));
}

Value filter_string(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "string", arguments, {});
  return input.is(Kind::string) ? input : m.string(m.text(input));
}

Value filter_replace(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "replace", arguments, {"old", "new", "count"});
  const int64_t count = bound.has(2) && !bound.need(2).is(Kind::none) ? bound.integer(2) : -1;
  return replaced(m, m.text(input), m.text(bound.need(0)), m.text(bound.need(1)), count);
}

Value filter_indent(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "indent", arguments, {"width", "first", "blank"});
  const std::string text = m.text(input);
  std::string margin;
  if (bound.has(0) && bound.need(0).is(Kind::string)) {
    margin = bound.text(0);
  } else {
    const int64_t width = bound.integer(0, 4);
    if (width > 1000) m.raise("indent(): a width of {} is too large", width);
    margin.assign(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
  }
  const bool indents_blank = bound.truth(2, false);
  const std::string closed = text + "\n";  // so that a final line end opens a last, empty line
  std::string out;
  bool is_first = true;
  for (const std::string_view line : split_lines(closed)) {
    m.expect_bytes(out.size() + margin.size() + line.size());
    if (!is_first) out += '\n';
    if (is_first ? bound.truth(1, false) : indents_blank || !line.empty()) out += margin;
    out += line;
    is_first = false;
  }
  return m.string(std::move(out));
}

/// A whole text as a number of the type, blanks around it allowed.
template <class T>
bool parse_number(std::string_view text, T& number) {
  text = strip(text, Side::both);
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

Value filter_int(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "int", arguments, {"default", "base"});
  if (bound.integer(1, 10) != 10) m.raise("int() is supported with base 10 only");
  if (input.is_undefined()) m.raise_undefined(input);
  if (input.is_integral()) return Value::of(input.integer());
  const Value otherwise = bound.get(0, Value::of(int64_t{0}));
  int64_t integer = 0;
  double real = 0;
  if (input.is(Kind::string)) {
    if (parse_number(input.string(), integer)) return Value::of(integer);
    if (!parse_number(input.string(), real)) return otherwise;
  } else if (input.is(Kind::real)) {
    real = input.real();
  } else {
    return otherwise;
  }
  if (!(std::fabs(real) < 9e18)) return otherwise;
  return Value::of(static_cast<int64_t>(real));
}

Value filter_float(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "float", arguments, {"default"});
  if (input.is_undefined()) m.raise_undefined(input);
  if (input.is_number()) return Value::of(input.real());
  double real = 0;
  if (input.is(Kind::string) && parse_number(input.string(), real)) return Value::of(real);
  return bound.get(0, Value::of(0.0));
}

Value filter_round(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "round", arguments, {"precision", "method"});
  const int64_t precision = bound.integer(0, 0);
  const std::string_view method = bound.text(1, "common");
  if (!input.is_number()) m.raise("round() is for numbers, not for a {}", type_name(input));
  if (precision < 0 || precision > 100) m.raise("round(): a precision of {} is not supported", precision);
  if (method == "common") {
    if (input.is_integral()) return Value::of(input.integer());
    const std::string digits = fmt::format("{:.{}f}", input.real(), precision);
    double rounded = 0;
    parse_number(digits, rounded);
    return Value::of(rounded);
  }
  if (method != "ceil" && method != "floor") m.raise("round(): the method \"{}\" is unknown", method);
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = input.real() * scale;
  return Value::of((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Value filter_abs(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "abs", arguments, {});
  if (input.is(Kind::real)) return Value::of(std::fabs(input.real()));
  if (!input.is_integral()) m.raise("abs() is for numbers, not for a {}", type_name(input));
  return input.integer() < 0 ? arithmetic(m, "-", Value::of(int64_t{0}), input) : Value::of(input.integer());
}

Value filter_default(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "default", arguments, {"default_value", "boolean"});
  const bool is_missing = input.is_undefined() || (bound.truth(1, false) && !m.truth(input));
  if (!is_missing) return input;
  return bound.has(0) ? bound.need(0) : m.string("");
}

Value filter_safe(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "safe", arguments, {});
  return input;
}

}  // namespace

const FilterTable& text_filters() {
  static const FilterTable table = {{"trim", filter_trim},         {"upper", filter_case<upper>},
                                    {"lower", filter_case<lower>}, {"capitalize", filter_case<capitalize>},
                                    {"title", filter_title},       {"tojson", filter_tojson},
                                    {"string", filter_string},     {"replace", filter_replace},
                                    {"indent", filter_indent},     {"int", filter_int},
                                    {"float", filter_float},       {"round", filter_round},
                                    {"abs", filter_abs},           {"default", filter_default},
                                    {"d", filter_default},         {"safe", filter_safe}};
  return table;
}

}  // namespace ptrain::jinja
