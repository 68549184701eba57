#include "src/train/config_write.h"

#include <cmath>

#include "kernels/base/error.h"
#include "src/io/json.h"
#include "src/io/s3.h"
#include "src/train/config_keys.h"

namespace ptrain {
namespace {

using KeyKind = Key::Kind;

std::string absolute(const std::string& path, const std::filesystem::path& working_directory) {
  return path.empty() || is_s3(path) ? path : (working_directory / path).lexically_normal().string();
}

Json number(double value) {
  const bool is_whole = value == std::floor(value) && std::abs(value) < 1e15;
  return is_whole ? Json(static_cast<int64_t>(value)) : Json(value);
}

void add_bounds(Json& schema, const Key& key) {
  if (std::isfinite(key.min)) schema[key.is_min_open ? "exclusiveMinimum" : "minimum"] = number(key.min);
  if (std::isfinite(key.max)) schema[key.is_max_open ? "exclusiveMaximum" : "maximum"] = number(key.max);
}

/// What the key accepts besides its word for no value.
Json type_schema(const Key& key) {
  Json schema = Json::object();
  switch (key.kind) {
    case KeyKind::text:
    case KeyKind::path:
      schema["type"] = "string";
      break;
    case KeyKind::integer:
    case KeyKind::number:
      schema["type"] = key.kind == KeyKind::integer ? "integer" : "number";
      add_bounds(schema, key);
      break;
    case KeyKind::boolean:
      schema["type"] = "boolean";
      break;
    case KeyKind::choice:
      schema["enum"] = Json::array();
      for (const std::string_view choice : key.choices) {
        const bool is_boolean = choice == "true" || choice == "false";
        schema["enum"].push_back(is_boolean ? Json(choice == "true") : Json(choice));
      }
      break;
    case KeyKind::paths: {
      schema["type"] = Json::array({"array", "string"});
      schema["items"] = {{"type", "string"}};
      if (key.is_required) schema["minItems"] = 1;
      break;
    }
    case KeyKind::two_numbers: {
      Json item = {{"type", "number"}};
      add_bounds(item, key);
      schema["type"] = "array";
      schema["items"] = item;
      schema["minItems"] = 2;
      schema["maxItems"] = 2;
      break;
    }
  }
  return schema;
}

struct DefaultWriter {
  const Key& key;
  Json operator()(std::monostate) const { return key.absent == "null" ? Json(nullptr) : Json(key.absent); }
  Json operator()(bool value) const { return value; }
  Json operator()(int64_t value) const {
    if (key.kind != KeyKind::choice) return value;
    const std::string_view word = key.choices[static_cast<size_t>(value)];
    return word == "true" || word == "false" ? Json(word == "true") : Json(word);
  }
  Json operator()(double value) const { return number(value); }
  Json operator()(const std::string& value) const { return value; }
  Json operator()(const std::vector<std::string>& value) const { return value; }
  Json operator()(const std::array<double, 2>& value) const { return value; }
};

Json key_schema(const Key& key) {
  Json schema = Json::object();
  if (!key.help.empty()) schema["description"] = key.help;
  if (!key.unit.empty()) schema["unit"] = key.unit;
  if (key.absent.empty()) {
    schema.update(type_schema(key));
  } else {
    const Json none = key.absent == "null" ? Json{{"type", "null"}} : Json{{"const", key.absent}};
    schema["anyOf"] = Json::array({type_schema(key), none});
  }
  if (!key.is_required) schema["default"] = std::visit(DefaultWriter{key}, key.get(Config{}));
  return schema;
}

Json empty_object_schema() {
  return {{"type", "object"}, {"additionalProperties", false}, {"properties", Json::object()}};
}

}  // namespace

Config with_absolute_paths(Config config, const std::filesystem::path& working_directory) {
  for (const Key& key : config_keys()) {
    if (key.kind != KeyKind::path && key.kind != KeyKind::paths) continue;
    Value value = key.get(config);
    if (auto* text = std::get_if<std::string>(&value)) *text = absolute(*text, working_directory);
    if (auto* list = std::get_if<std::vector<std::string>>(&value)) {
      for (std::string& text : *list) text = absolute(text, working_directory);
    }
    key.set(config, value);
  }
  return config;
}

std::string config_yaml(const Config& config, const std::filesystem::path& working_directory) {
  const Config resolved = with_absolute_paths(config, working_directory);
  std::string text;
  std::string_view section;
  for (const Key& key : config_keys()) {
    const size_t dot = key.path.find('.');
    const std::string_view parent = dot == std::string_view::npos ? "" : key.path.substr(0, dot);
    const std::string_view name = dot == std::string_view::npos ? key.path : key.path.substr(dot + 1);
    if (parent != section) text += fmt::format("\n{}:\n", parent);
    section = parent;
    text += fmt::format("{}{}: {}\n", parent.empty() ? "" : "  ", name, value_text(key, key.get(resolved)));
  }
  return text;
}

std::string settings_text(const Config& config) {
  std::string text;
  for (const Key& key : config_keys()) {
    if (key.kind == KeyKind::path || key.kind == KeyKind::paths) continue;
    text += fmt::format("{} {}\n", key.path, value_text(key, key.get(config)));
  }
  return text;
}

Json config_schema() {
  Json root = empty_object_schema();
  root["$schema"] = "https://json-schema.org/draft/2020-12/schema";
  root["title"] = "ptrain configuration";
  for (const Key& key : config_keys()) {
    const size_t dot = key.path.find('.');
    Json* object = &root;
    std::string name(key.path);
    if (dot != std::string_view::npos) {
      const std::string section(key.path.substr(0, dot));
      name = std::string(key.path.substr(dot + 1));
      Json& sections = root["properties"];
      if (!sections.contains(section)) sections[section] = empty_object_schema();
      object = &sections[section];
      if (key.is_required) root["required"].push_back(section);
    }
    (*object)["properties"][name] = key_schema(key);
    if (key.is_required) (*object)["required"].push_back(name);
  }
  return root;
}

}  // namespace ptrain
