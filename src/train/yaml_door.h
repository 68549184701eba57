// The door to YAML: text becomes a small tree of plain values with their places, strictly.
// Not for meaning: whether a scalar is a number or a word is decided by who reads the tree (config_load.h).
// Refused with file:line:column: malformed text, duplicate keys, aliases, tags, several documents, keys that
// are not words, control characters, nesting deeper than 16, more than 20,000 values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ptrain {

struct YamlNode {
  enum class Kind { null, scalar, list, map };

  Kind kind = Kind::null;
  std::string text;             // of a scalar, as it stands
  bool is_quoted = false;       // a scalar in quotes or a block: always text
  int line = 1;                 // from 1
  int column = 1;               // from 1
  std::vector<YamlNode> items;  // of a list; of a map its values, in the order of the file

  std::string key;  // the key it stands under, in a map
  int key_line = 1;
  int key_column = 1;
};

/// Parses one document; empty text is a null. `where` names the source in messages; `has_lines` says whether
/// a line and a column mean something there (a file) or not (a value on the command line).
/// Errors: ExitCode::usage.
enum class Places { lines, none };
YamlNode parse_yaml(std::string_view text, std::string_view where, Places places = Places::lines);

/// "an integer", "a list", … of what stands there, with its text: for messages.
std::string describe(const YamlNode& node);

}  // namespace ptrain
