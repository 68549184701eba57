// The one table of configuration keys: path, type, unit, help, choices and bounds. It drives the YAML reader,
// the overrides of the command line, `config-schema` and the resolved config.yaml.
// Not for defaults: those are in Config itself. A new key = a field there and a row here.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "src/train/config.h"

namespace ptrain {

/// A key's value outside of its field. monostate = no value (`auto` or `null`); a choice is its index.
using Value = std::variant<std::monostate, bool, int64_t, double, std::string, std::vector<std::string>,
                           std::array<double, 2>>;

struct Key {
  enum class Kind { text, path, integer, number, boolean, choice, paths, two_numbers };

  std::string_view path;                    // "parallel.tensor"
  std::string_view unit = {};               // "steps", "tokens", …; empty = none
  std::string_view help = {};               // one line
  std::vector<std::string_view> choices{};  // of a choice, in the order of its enum
  std::string_view absent = {};             // the word for no value, "auto" or "null"; empty = needs a value
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool is_min_open = false;  // the value must be larger than min
  bool is_max_open = false;  // the value must be smaller than max
  bool is_required = false;
  Kind kind = Kind::text;  // this and the next two come from the field's type
  Value (*get)(const Config&) = nullptr;
  void (*set)(Config&, const Value&) = nullptr;
};

/// All keys, in the order of the documentation.
std::span<const Key> config_keys();

/// The key of that dotted path, or null.
const Key* find_key(std::string_view path);

/// Whether keys lie below that path: "parallel".
bool is_section(std::string_view path);

/// The keys of a section by their last names: "tensor, pipeline, data".
std::string names_below(std::string_view section);

/// The valid key nearest to a mistyped or misplaced one; empty if none is near.
std::string_view nearest_key(std::string_view path);

/// The word of `words` nearest to a mistyped one; empty if none is near.
std::string_view nearest_word(std::string_view word, std::span<const std::string_view> words);

/// A key's value as it would stand in YAML: 1f1b, auto, 1.0e-05, ["a.jsonl", "b.jsonl"].
std::string value_text(const Key& key, const Value& value);

/// The value that a configuration has for that path, as it would stand in YAML.
std::string value_text(const Config& config, std::string_view path);

/// "an integer of at least 1", "one of gpipe, 1f1b": what a key accepts, for messages and help.
std::string expectation(const Key& key);

}  // namespace ptrain
