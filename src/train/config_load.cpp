#include "src/train/config_load.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/base/error.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "src/train/foreign_keys.h"

namespace ptrain {
namespace {

constexpr int64_t max_file_bytes = 1 << 20;

std::string place_of(std::string_view file, int line, int column) {
  return fmt::format("{}:{}:{}", file, line, column);
}

/// A name of another trainer's, where none of our keys ends in it.
void refuse_foreign(std::string_view place, std::string_view path) {
  const ForeignKey* foreign = find_foreign(path);
  if (foreign == nullptr) return;
  const std::string last = fmt::format(".{}", path.substr(path.rfind('.') + 1));
  if (std::ranges::any_of(config_keys(), [&](const Key& key) { return key.path.ends_with(last); })) return;
  if (foreign->ours.empty()) {
    fail(ExitCode::usage, "{}: unknown key {}; {} has it, here there is none: {}", place, path,
         foreign->whose, foreign->note);
  }
  fail(ExitCode::usage, "{}: unknown key {}; what {} calls so is {} here{}{}", place, path, foreign->whose,
       foreign->ours, foreign->note.empty() ? "" : ": ", foreign->note);
}

[[noreturn]] void unknown_key(std::string_view place, std::string_view path) {
  refuse_foreign(place, path);
  const std::string_view nearest = nearest_key(path);
  if (!nearest.empty()) {
    const bool is_map = is_section(nearest);
    fail(ExitCode::usage, "{}: unknown key {}; did you mean {}{}?", place, path, nearest,
         is_map ? ", a section" : "");
  }
  const size_t dot = path.rfind('.');
  const std::string_view section = dot == std::string_view::npos ? "" : path.substr(0, dot);
  if (!section.empty() && is_section(section)) {
    fail(ExitCode::usage, "{}: unknown key {}; the keys of {} are {}", place, path, section,
         names_below(section));
  }
  fail(ExitCode::usage, "{}: unknown key {}; there are {} (ptrain config-schema lists every key)", place,
       path, names_below(""));
}

/// ~/x is x in the home directory; the shell does that only where ~ starts a word.
std::string without_tilde(const std::string& path, const std::string& home, std::string_view place,
                          std::string_view key) {
  if (path != "~" && !path.starts_with("~/")) return path;
  check(!home.empty(), ExitCode::usage,
        "{}: {} = {}: the home directory is not known (HOME is not set); write the whole path", place, key,
        path);
  return home + path.substr(1);
}

class Loader {
 public:
  Loader(LoadedConfig& loaded, const LoadRequest& request) : loaded_(loaded), request_(request) {}

  void read_map(const YamlNode& map, const std::string& section, std::string_view file) {
    for (const YamlNode& node : map.items) {
      const std::string path = section.empty() ? node.key : section + "." + node.key;
      const std::string key_place = place_of(file, node.key_line, node.key_column);
      if (const size_t dot = node.key.find('.'); dot != std::string::npos && find_key(path) != nullptr) {
        fail(ExitCode::usage, "{}: {}: dotted keys are for the command line; in the file put {} below {}",
             key_place, path, node.key.substr(dot + 1), node.key.substr(0, dot));
      }
      if (const Key* key = find_key(path)) {
        const std::string place =
            node.kind == YamlNode::Kind::null ? key_place : place_of(file, node.line, node.column);
        set(*key, read_value(*key, node, place), place);
      } else if (is_section(path)) {
        read_section(node, path, key_place, file);
      } else {
        unknown_key(key_place, path);
      }
    }
  }

  void read_override(const Override& option) {
    std::string path = option.key;
    std::ranges::replace(path, '-', '_');
    const Key* key = find_key(path);
    if (key == nullptr && is_section(path)) {
      fail(ExitCode::usage, "{}: {} is a section; set its keys, for example --{}.{}", option.option, path,
           path, names_below(path).substr(0, names_below(path).find(',')));
    }
    if (key == nullptr) unknown_key(option.option, path);
    set(*key, read_value(*key, node_of(option, *key), option.option), option.option);
  }

 private:
  void read_section(const YamlNode& node, const std::string& path, std::string_view key_place,
                    std::string_view file) {
    if (node.kind == YamlNode::Kind::null) return;  // every key below is commented out
    if (node.kind != YamlNode::Kind::map) {
      fail(ExitCode::usage, "{}: {} must be a map of keys ({}), not {}", key_place, path, names_below(path),
           describe(node));
    }
    read_map(node, path, file);
  }

  /// A value as typed is read as YAML. For names of files it is taken as it stands unless it is a list or in
  /// quotes: a pattern like *.jsonl or a name like 2024 needs no quotes behind a shell.
  static YamlNode node_of(const Override& option, const Key& key) {
    const bool takes_text =
        key.kind == Key::Kind::path || key.kind == Key::Kind::paths || key.kind == Key::Kind::text;
    if (!option.value) {
      check(key.kind == Key::Kind::boolean || key.kind == Key::Kind::choice, ExitCode::usage,
            "{}: a value is missing: {}", option.option, expectation(key));
      return parse_yaml("true", option.option, Places::none);
    }
    const std::string& text = *option.value;
    const bool is_yaml =
        text.empty() || text[0] == '[' || text[0] == '"' || text[0] == '\'' || text == "null" || text == "~";
    if (!takes_text || is_yaml) return parse_yaml(text, option.option, Places::none);
    YamlNode node;
    node.kind = YamlNode::Kind::scalar;
    node.is_quoted = true;
    node.text = text;
    return node;
  }

  void set(const Key& key, Value value, const std::string& place) {
    if (key.kind == Key::Kind::path || key.kind == Key::Kind::paths) {
      if (auto* text = std::get_if<std::string>(&value)) {
        *text = without_tilde(*text, request_.home, place, key.path);
      } else if (auto* list = std::get_if<std::vector<std::string>>(&value)) {
        for (std::string& text : *list) text = without_tilde(text, request_.home, place, key.path);
      }
    }
    key.set(loaded_.config, value);
    loaded_.places.insert_or_assign(std::string(key.path), place);
  }

  LoadedConfig& loaded_;
  const LoadRequest& request_;
};

void check_required(const LoadedConfig& loaded, const LoadRequest& request) {
  std::vector<std::string> missing;
  for (const std::string_view key : request.required) {
    if (!loaded.is_set(key)) missing.push_back(std::string(key));
  }
  if (missing.empty()) return;
  fail(ExitCode::usage, "{}{} missing; set {} in the file, or on the command line as --{} …",
       loaded.file.empty() ? "" : loaded.file + ": ",
       fmt::format("{} {}", fmt::join(missing, " and "), missing.size() == 1 ? "is" : "are"),
       missing.size() == 1 ? "it" : "them", missing.front());
}

std::string read_config_file(const std::filesystem::path& path) {
  try {
    return read_text(path, max_file_bytes);
  } catch (const Error& error) {
    throw Error(ExitCode::usage, fmt::format("{} (the configuration file)", error.what()), error.where());
  }
}

}  // namespace

std::string LoadedConfig::where(std::string_view key) const {
  const auto it = places.find(key);
  if (it == places.end()) return file.empty() ? std::string(key) : fmt::format("{}: {}", file, key);
  if (it->second.starts_with("--")) return it->second;
  return fmt::format("{}: {}", it->second, key);
}

std::vector<std::string_view> required_keys() {
  std::vector<std::string_view> paths;
  for (const Key& key : config_keys()) {
    if (key.is_required) paths.push_back(key.path);
  }
  return paths;
}

LoadedConfig load_config_text(std::string_view text, std::string_view where, const LoadRequest& request) {
  LoadedConfig loaded;
  loaded.file = where;
  Loader loader(loaded, request);
  if (!where.empty()) {
    const YamlNode root = parse_yaml(text, where);
    const bool is_map = root.kind == YamlNode::Kind::map || root.kind == YamlNode::Kind::null;
    check(is_map, ExitCode::usage,
          "{}:{}:{}: a configuration is a map of keys such as `output: runs/demo`, not {}", where, root.line,
          root.column, describe(root));
    loader.read_map(root, "", where);
  }
  for (const Override& option : request.overrides) loader.read_override(option);
  check_required(loaded, request);
  return loaded;
}

LoadedConfig load_config(const LoadRequest& request) {
  if (!request.file) return load_config_text("", "", request);
  return load_config_text(read_config_file(*request.file), request.file->string(), request);
}

}  // namespace ptrain
