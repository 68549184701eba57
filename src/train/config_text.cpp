// Keys and values of the configuration as words for people: sections, suggestions, what a key accepts.
#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/base/error.h"
#include "src/io/json.h"
#include "src/train/config_keys.h"

namespace ptrain {
namespace {

/// Fewest insertions, deletions, replacements and swaps of neighbours that turn a into b.
int edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<int>> cost(a.size() + 1, std::vector<int>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) cost[i][0] = static_cast<int>(i);
  for (size_t j = 0; j <= b.size(); ++j) cost[0][j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const int replaced = cost[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      cost[i][j] = std::min({replaced, cost[i - 1][j] + 1, cost[i][j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

constexpr size_t longest_word = 64;  // longer ones are no typing errors, and cost the square

/// A word is near when about a third of it or less is wrong.
bool is_near(int distance, std::string_view word) {
  return distance <= std::max(1, static_cast<int>(word.size()) / 3);
}

std::string_view last_name(std::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

std::string bounds(const Key& key) {
  const std::string_view at_least = key.is_min_open ? "larger than" : "at least";
  const std::string_view at_most = key.is_max_open ? "below" : "at most";
  const bool has_max = std::isfinite(key.max) && key.max < 1e6;
  if (std::isfinite(key.min) && has_max) {
    return fmt::format(" of {} {:g} and {} {:g}", at_least, key.min, at_most, key.max);
  }
  if (std::isfinite(key.min))
    return fmt::format(" {} {:g}", key.is_min_open ? "larger than" : "of at least", key.min);
  return "";
}

}  // namespace

bool is_section(std::string_view path) {
  return std::ranges::any_of(config_keys(), [&](const Key& key) {
    return key.path.size() > path.size() && key.path.starts_with(path) && key.path[path.size()] == '.';
  });
}

std::string names_below(std::string_view section) {
  std::vector<std::string_view> names;
  for (const Key& key : config_keys()) {
    const bool is_top = key.path.find('.') == std::string_view::npos;
    if (section.empty()) {
      const std::string_view first = key.path.substr(0, key.path.find('.'));
      if (names.empty() || names.back() != first) names.push_back(first);
    } else if (!is_top && key.path.substr(0, key.path.rfind('.')) == section) {
      names.push_back(last_name(key.path));
    }
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string_view nearest_key(std::string_view path) {
  if (path.size() > longest_word) return {};
  std::string_view best;
  int least = 1 << 20;
  const auto consider = [&](std::string_view key) {
    // A right name in the wrong place is as near as one wrong letter.
    const int whole = edit_distance(path, key);
    const int name = edit_distance(last_name(path), last_name(key));
    const bool is_misplaced = is_near(name, last_name(path)) && last_name(path).size() > 2;
    const int distance = is_misplaced ? std::min(whole, name + 1) : whole;
    if (distance < least && (is_near(whole, path) || is_misplaced)) {
      least = distance;
      best = key;
    }
  };
  for (const Key& key : config_keys()) consider(key.path);
  for (const Key& key : config_keys()) consider(key.path.substr(0, key.path.find('.')));
  return best;
}

std::string_view nearest_word(std::string_view word, std::span<const std::string_view> words) {
  if (word.size() > longest_word) return {};
  std::string_view best;
  int least = 1 << 20;
  for (const std::string_view candidate : words) {
    const int distance = edit_distance(word, candidate);
    if (distance < least && is_near(distance, word)) {
      least = distance;
      best = candidate;
    }
  }
  return best;
}

std::string value_text(const Key& key, const Value& value) {
  struct Writer {
    const Key& key;
    std::string operator()(std::monostate) const { return std::string(key.absent); }
    std::string operator()(bool is_true) const { return is_true ? "true" : "false"; }
    std::string operator()(int64_t number) const {
      return key.kind == Key::Kind::choice ? std::string(key.choices[static_cast<size_t>(number)])
                                           : fmt::format("{}", number);
    }
    std::string operator()(double number) const { return fmt::format("{}", number); }
    std::string operator()(const std::string& text) const { return Json(text).dump(); }
    std::string operator()(const std::vector<std::string>& list) const {
      std::vector<std::string> quoted;
      for (const std::string& text : list) quoted.push_back((*this)(text));
      return fmt::format("[{}]", fmt::join(quoted, ", "));
    }
    std::string operator()(const std::array<double, 2>& pair) const {
      return fmt::format("[{}, {}]", pair[0], pair[1]);
    }
  };
  return std::visit(Writer{key}, value);
}

std::string value_text(const Config& config, std::string_view path) {
  const Key* key = find_key(path);
  check(key != nullptr, "no configuration key {}", path);
  return value_text(*key, key->get(config));
}

std::string expectation(const Key& key) {
  std::string text;
  switch (key.kind) {
    case Key::Kind::text:
    case Key::Kind::path:
      text = key.kind == Key::Kind::path ? "a path" : "a text";
      break;
    case Key::Kind::paths:
      text = "a list of files or patterns";
      break;
    case Key::Kind::integer:
      text = "an integer" + bounds(key);
      break;
    case Key::Kind::number:
      text = "a number" + bounds(key);
      break;
    case Key::Kind::two_numbers:
      text = "two numbers" + bounds(key) + ", as [0.9, 0.95]";
      break;
    case Key::Kind::boolean:
      text = "true or false";
      break;
    case Key::Kind::choice:
      text = fmt::format("one of {}", fmt::join(key.choices, ", "));
      break;
  }
  if (!key.absent.empty()) text += fmt::format(", or {}", key.absent);
  return text;
}

}  // namespace ptrain
