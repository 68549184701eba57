// From a YAML file and the command line's overrides to a Config, strictly: unknown keys, wrong types and
// values out of their bounds are refused with file:line:column (or the option), what was expected and the
// nearest valid key. Not for judging values against each other or the world: see config_check.h.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/train/config.h"
#include "src/train/config_keys.h"
#include "src/train/yaml_door.h"

namespace ptrain {

/// One `--key value` of the command line. Without a value it stands for true.
struct Override {
  std::string key;  // dotted path without the dashes in front, as typed; - and _ are equal
  std::optional<std::string> value;
  std::string option = "--" + key;  // how the user wrote it, for messages: "--model"
};

struct LoadedConfig {
  Config config;
  std::map<std::string, std::string, std::less<>> places;  // key -> "run.yaml:3:5" or "--train.seed"

  bool is_set(std::string_view key) const { return places.contains(key); }

  /// Where a key got its value, for messages: "run.yaml:3:5: batch.micro" or "--batch.micro"; for a default
  /// the file's name, or nothing, and the key.
  std::string where(std::string_view key) const;

  std::string file;  // empty without one
};

struct LoadRequest {
  std::optional<std::filesystem::path> file;
  std::vector<Override> overrides;         // the later wins
  std::vector<std::string_view> required;  // keys that must be set; see required_keys()
  std::string home;                        // what ~ in front of a path stands for; empty = ~ is refused
};

/// output, model.path and data.train: what training needs.
std::vector<std::string_view> required_keys();

/// Errors: ExitCode::usage.
LoadedConfig load_config(const LoadRequest& request);

/// The same from YAML text; `where` names it in messages.
LoadedConfig load_config_text(std::string_view text, std::string_view where, const LoadRequest& request);

/// One value for one key. `where` is the place in front of the message. Errors: ExitCode::usage.
Value read_value(const Key& key, const YamlNode& node, std::string_view where);

}  // namespace ptrain
