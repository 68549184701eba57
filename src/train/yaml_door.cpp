#include "src/train/yaml_door.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <cctype>
#include <optional>
#include <sstream>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

constexpr size_t max_depth = 16;
constexpr int64_t max_nodes = 20'000;
constexpr size_t max_keys = 1'000;  // of one map: finding duplicates is quadratic
constexpr size_t max_scalar = 200;  // characters of a strange value shown in a message

std::string place(std::string_view where, Places places, int line, int column) {
  return places == Places::lines ? fmt::format("{}:{}:{}", where, line, column) : std::string(where);
}

/// Builds the tree from the parser's events; the parser itself never sees an alias resolved or a second key.
class Builder : public YAML::EventHandler {
 public:
  Builder(std::string_view where, Places places) : where_(where), places_(places) {}

  YamlNode take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (has_document_) refuse(mark, "a second document; one file holds one configuration");
    has_document_ = true;
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    if (is_key_next()) refuse(mark, "a key is missing before ':'");
    add({}, mark);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse(mark, "YAML aliases (*name) are not accepted; a pattern that starts with * needs quotes");
  }
  void OnAnchor(const YAML::Mark& mark, const std::string& name) override {
    refuse(mark, "YAML anchors (&" + name + ") are not accepted; write the value out, or put it in quotes");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                const std::string& value) override {
    if (tag != "?" && tag != "!") refuse(mark, "YAML tags (" + tag + ") are not accepted");
    if (is_key_next()) {
      name_next(mark, value);
      return;
    }
    YamlNode node;
    node.kind = YamlNode::Kind::scalar;
    node.text = value;
    node.is_quoted = tag == "!";
    add(std::move(node), mark);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, YamlNode::Kind::list);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, YamlNode::Kind::map);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Key {
    std::string name;
    int line;
    int column;
  };
  struct Level {
    YamlNode node;
    std::optional<Key> key;  // of the map's value that comes next
  };

  bool is_key_next() const {
    return !levels_.empty() && levels_.back().node.kind == YamlNode::Kind::map && !levels_.back().key;
  }

  void name_next(const YAML::Mark& mark, const std::string& name) {
    for (const YamlNode& other : levels_.back().node.items) {
      if (other.key == name) {
        refuse(mark, fmt::format("the key \"{}\" appears twice, first in line {}; keep one of them", name,
                                 other.key_line));
      }
    }
    if (levels_.back().node.items.size() >= max_keys)
      refuse(mark, fmt::format("more than {} keys", max_keys));
    count(mark);
    levels_.back().key = Key{name, mark.line + 1, mark.column + 1};
  }

  void open(const YAML::Mark& mark, const std::string& tag, YamlNode::Kind kind) {
    if (is_key_next()) refuse(mark, "a list or a map stands where a key was expected; is a bracket open?");
    if (tag != "?" && tag != "!" && !tag.empty()) refuse(mark, "YAML tags (" + tag + ") are not accepted");
    if (levels_.size() >= max_depth) refuse(mark, fmt::format("nested deeper than {} levels", max_depth));
    count(mark);
    Level level;
    level.node.kind = kind;
    level.node.line = mark.line + 1;
    level.node.column = mark.column + 1;
    levels_.push_back(std::move(level));
  }

  void close() {
    YamlNode node = std::move(levels_.back().node);
    levels_.pop_back();
    attach(std::move(node));
  }

  void add(YamlNode node, const YAML::Mark& mark) {
    count(mark);
    node.line = mark.line + 1;
    node.column = mark.column + 1;
    attach(std::move(node));
  }

  void attach(YamlNode node) {
    if (levels_.empty()) {
      root_ = std::move(node);
      return;
    }
    Level& parent = levels_.back();
    if (parent.key) {
      node.key = parent.key->name;
      node.key_line = parent.key->line;
      node.key_column = parent.key->column;
      parent.key.reset();
    }
    parent.node.items.push_back(std::move(node));
  }

  void count(const YAML::Mark& mark) {
    if (++nodes_ > max_nodes) refuse(mark, fmt::format("more than {} values", max_nodes));
  }

  [[noreturn]] void refuse(const YAML::Mark& mark, const std::string& why) const {
    fail(ExitCode::usage, "{}: {}", place(where_, places_, mark.line + 1, mark.column + 1), why);
  }

  std::string_view where_;
  Places places_;
  std::vector<Level> levels_;
  YamlNode root_;
  int64_t nodes_ = 0;
  bool has_document_ = false;
};

/// The parser takes a control character for the end of the file, or passes it on: both are traps.
void refuse_control_characters(std::string_view text, std::string_view where, Places places) {
  int line = 1;
  int column = 1;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool is_control = (byte < 0x20 && c != '\t' && c != '\n' && c != '\r') || byte == 0x7f;
    check(!is_control, ExitCode::usage,
          "{}: the control character 0x{:02x} is not accepted; is this a text file?",
          place(where, places, line, column), byte);
    column = c == '\n' ? 1 : column + 1;
    if (c == '\n') ++line;
  }
}

}  // namespace

YamlNode parse_yaml(std::string_view text, std::string_view where, Places places) {
  refuse_control_characters(text, where, places);
  std::istringstream stream{std::string(text)};
  Builder builder(where, places);
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    // An alias without an anchor is refused by the parser before we see it.
    const bool is_alias = error.msg.find("anchor") != std::string::npos;
    fail(ExitCode::usage, "{}: not valid YAML: {}{}",
         place(where, places, error.mark.line + 1, error.mark.column + 1), error.msg,
         is_alias ? "; a pattern that starts with * needs quotes" : "");
  }
  return builder.take();
}

std::string describe(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::null:
      return "nothing (null)";
    case YamlNode::Kind::list:
      return "a list";
    case YamlNode::Kind::map:
      return "a map of keys";
    case YamlNode::Kind::scalar:
      break;
  }
  const bool is_long = node.text.size() > max_scalar;
  const std::string shown = is_long ? node.text.substr(0, max_scalar) + "…" : node.text;
  return node.is_quoted ? fmt::format("the text \"{}\" in quotes", shown) : fmt::format("\"{}\"", shown);
}

}  // namespace ptrain
