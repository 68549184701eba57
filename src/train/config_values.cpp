// One YAML value for one key: the strict reading of scalars. Words like yes, on and 010 that YAML readers
// understand in different ways are refused.
#include <array>
#include <charconv>
#include <cmath>
#include <optional>

#include "kernels/base/error.h"
#include "src/train/config_load.h"

namespace ptrain {
namespace {

using YamlKind = YamlNode::Kind;

[[noreturn]] void wrong(const Key& key, const YamlNode& node, std::string_view where,
                        std::string_view hint = "") {
  fail(ExitCode::usage, "{}: {} must be {}, not {}{}", where, key.path, expectation(key), describe(node),
       hint);
}

bool is_plain_scalar(const YamlNode& node) {
  return node.kind == YamlKind::scalar && !node.is_quoted;
}

std::optional<bool> as_boolean(const YamlNode& node) {
  if (!is_plain_scalar(node)) return std::nullopt;
  if (node.text == "true" || node.text == "True" || node.text == "TRUE") return true;
  if (node.text == "false" || node.text == "False" || node.text == "FALSE") return false;
  return std::nullopt;
}

bool all_digits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

std::string_view without_sign(std::string_view text) {
  return text.starts_with('-') || text.starts_with('+') ? text.substr(1) : text;
}

/// Digits before a point or an exponent must not start with a 0 that is not alone: 010 is 8 to some readers.
bool has_leading_zero(std::string_view text) {
  const std::string_view digits = without_sign(text);
  return digits.size() > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9';
}

/// [sign] digits [. digits] [e [sign] digits], at least one digit before the exponent.
bool is_decimal(std::string_view text) {
  std::string_view rest = without_sign(text);
  const size_t e = rest.find_first_of("eE");
  if (e != std::string_view::npos) {
    if (!all_digits(without_sign(rest.substr(e + 1)))) return false;
    rest = rest.substr(0, e);
  }
  const size_t point = rest.find('.');
  if (point == std::string_view::npos) return all_digits(rest);
  const std::string_view before = rest.substr(0, point);
  const std::string_view after = rest.substr(point + 1);
  return (before.empty() || all_digits(before)) && (after.empty() || all_digits(after)) &&
         before.size() + after.size() > 0;
}

constexpr std::string_view zero_hint = "; some readers take a leading 0 for octal, write it without";
constexpr std::string_view quote_hint = "; leave the quotes out";

void check_bounds(const Key& key, double number, const YamlNode& node, std::string_view where) {
  const bool is_low = key.is_min_open ? number <= key.min : number < key.min;
  const bool is_high = key.is_max_open ? number >= key.max : number > key.max;
  if (is_low || !is_high) {
    if (is_low) wrong(key, node, where);
    return;
  }
  fail(ExitCode::usage, "{}: {} = {} is too large: it must be {} {:.16g}", where, key.path, node.text,
       key.is_max_open ? "below" : "at most", key.max);
}

int64_t read_integer(const Key& key, const YamlNode& node, std::string_view where) {
  if (node.kind == YamlKind::scalar && node.is_quoted) wrong(key, node, where, quote_hint);
  if (!is_plain_scalar(node)) wrong(key, node, where);
  if (has_leading_zero(node.text)) wrong(key, node, where, zero_hint);
  if (!all_digits(without_sign(node.text))) wrong(key, node, where);
  const std::string_view text = node.text.starts_with('+') ? without_sign(node.text) : node.text;
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size()) {
    wrong(key, node, where, "; it does not fit 64 bits");
  }
  check_bounds(key, static_cast<double>(number), node, where);
  return number;
}

double read_number(const Key& key, const YamlNode& node, std::string_view where) {
  if (node.kind == YamlKind::scalar && node.is_quoted) wrong(key, node, where, quote_hint);
  if (!is_plain_scalar(node)) wrong(key, node, where);
  if (has_leading_zero(node.text)) wrong(key, node, where, zero_hint);
  if (!is_decimal(node.text)) wrong(key, node, where);
  const std::string_view text = node.text.starts_with('+') ? without_sign(node.text) : node.text;
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(number)) {
    wrong(key, node, where, "; it does not fit a double");
  }
  check_bounds(key, number, node, where);
  return number;
}

/// Plain words that a YAML reader takes for something else than text.
bool looks_typed(const YamlNode& node) {
  return is_plain_scalar(node) && (as_boolean(node).has_value() || is_decimal(node.text));
}

std::string read_text_value(const Key& key, const YamlNode& node, std::string_view where) {
  if (node.kind != YamlKind::scalar) wrong(key, node, where);
  if (looks_typed(node)) wrong(key, node, where, "; put it in quotes if it is a name");
  check(!node.text.empty(), ExitCode::usage, "{}: {} is empty; it must be {}", where, key.path,
        expectation(key));
  return node.text;
}

int64_t read_choice(const Key& key, const YamlNode& node, std::string_view where) {
  if (node.kind != YamlKind::scalar) wrong(key, node, where);
  const std::optional<bool> boolean = as_boolean(node);
  const std::string word = boolean ? (*boolean ? "true" : "false") : node.text;
  for (size_t i = 0; i < key.choices.size(); ++i) {
    if (key.choices[i] == word) return static_cast<int64_t>(i);
  }
  const std::string_view nearest = nearest_word(word, key.choices);
  wrong(key, node, where, nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest));
}

std::vector<std::string> read_texts(const Key& key, const YamlNode& node, std::string_view where) {
  if (node.kind == YamlKind::scalar) return {read_text_value(key, node, where)};
  if (node.kind != YamlKind::list) wrong(key, node, where);
  std::vector<std::string> texts;
  for (const YamlNode& item : node.items) {
    check(item.kind == YamlKind::scalar, ExitCode::usage, "{}: entry {} of {} must be text, not {}", where,
          texts.size() + 1, key.path, describe(item));
    texts.push_back(read_text_value(key, item, where));
  }
  check(!texts.empty() || !key.is_required, ExitCode::usage,
        "{}: {} is an empty list; name at least one file", where, key.path);
  return texts;
}

std::array<double, 2> read_pair(const Key& key, const YamlNode& node, std::string_view where) {
  if (node.kind != YamlKind::list || node.items.size() != 2) {
    const std::string hint =
        node.kind == YamlKind::list ? fmt::format("; there are {}", node.items.size()) : std::string{};
    wrong(key, node, where, hint);
  }
  return {read_number(key, node.items[0], where), read_number(key, node.items[1], where)};
}

}  // namespace

Value read_value(const Key& key, const YamlNode& node, std::string_view where) {
  const bool is_null = node.kind == YamlKind::null;
  const bool is_absent_word = node.kind == YamlKind::scalar && node.text == key.absent;
  if (!key.absent.empty() && (is_absent_word || (is_null && key.absent == "null"))) return std::monostate{};
  switch (key.kind) {
    case Key::Kind::boolean: {
      const std::optional<bool> boolean = as_boolean(node);
      if (!boolean) wrong(key, node, where);
      return *boolean;
    }
    case Key::Kind::integer:
      return read_integer(key, node, where);
    case Key::Kind::number:
      return read_number(key, node, where);
    case Key::Kind::text:
    case Key::Kind::path:
      return read_text_value(key, node, where);
    case Key::Kind::choice:
      return read_choice(key, node, where);
    case Key::Kind::paths:
      return read_texts(key, node, where);
    case Key::Kind::two_numbers:
      return read_pair(key, node, where);
  }
  fail(ExitCode::defect, "{}: a key of an unknown kind", key.path);
}

}  // namespace ptrain
