// What every part of a rendering shares: the heap, the limits, errors with their line, and Python's rules for
// truth, equality, order and text of values.
// Not the meaning of statements and expressions: that is the interpreter's.
#pragma once

#include <fmt/format.h>

#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/data/chat_template/value.h"
#include "src/io/json_fwd.h"

namespace ptrain::jinja {

/// No template of use comes near these; one that does is broken or hostile.
struct Limits {
  int64_t steps = 20'000'000;
  int64_t heap_bytes = int64_t{256} << 20;  // all that one rendering ever makes
  int64_t output_bytes = int64_t{64} << 20;
  int depth = 400;  // of nested statements, expressions, macro calls and values
};

class Machine {
 public:
  Machine(std::string_view where, std::optional<std::tm> now) : where_(where), now_(now) {}

  /// Throws ExitCode::input: "<where>:<line>: <message>".
  [[noreturn]] void raise(std::string_view message) const;
  template <class... Args>
  [[noreturn]] void raise(fmt::format_string<Args...> text, Args&&... args) const {
    raise(std::string_view(fmt::format(text, std::forward<Args>(args)...)));
  }
  /// For an undefined value that is used as if it were there.
  [[noreturn]] void raise_undefined(const Value& value) const;

  /// Counts work; work that grows with a text's length counts that too.
  void step(int64_t count = 1);
  void step_text(size_t bytes) { step(1 + static_cast<int64_t>(bytes / 64)); }
  /// Refuses a text of that many bytes before it is made, if it would pass the heap's limit.
  void expect_bytes(size_t bytes) const;

  Value string(std::string text);
  Value string(std::string_view text) { return string(std::string(text)); }
  Value string(const char* text) { return string(std::string(text)); }
  Value list(std::vector<Value> items, Sequence type = Sequence::list);
  Value dict(std::vector<std::pair<Value, Value>> items);
  Value undefined(std::string why);
  Value method(const Value& self, std::string_view name);
  Namespace* name_space();
  Loop* loop();
  Scope* scope(const Scope* parent);
  Callable* callable(Callable callable);
  /// A view of JSON, whose strings must outlive the rendering.
  Value from_json(const Json& json);

  bool truth(const Value& value) const;
  bool equal(const Value& a, const Value& b);
  /// a < b. Errors: kinds without an order among them.
  bool less(const Value& a, const Value& b);
  bool contains(const Value& container, const Value& item);

  /// Python's str(), with nothing for what is undefined.
  std::string text(const Value& value);
  /// Python's repr().
  void repr(const Value& value, std::string& out);
  /// What a loop goes over: items, keys, or characters; nothing for what is undefined.
  std::vector<Value> iterate(const Value& value);
  int64_t length(const Value& value);

  /// object[key]: the entry, the item, else the attribute; undefined where there is none.
  Value item(const Value& object, const Value& key);
  /// object.name: a method, else the entry; undefined where there is none.
  Value attribute(const Value& object, std::string_view name);
  /// The entry of a dict, or null.
  const Value* find(const Dict& dict, const Value& key);
  const Value* find(const Dict& dict, std::string_view key);

  const std::optional<std::tm>& now() const { return now_; }
  const Limits& limits() const { return limits_; }

  /// Counts nesting while it lives.
  class Depth {
   public:
    explicit Depth(Machine& machine);
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;
    ~Depth() { --machine_.depth_; }

   private:
    Machine& machine_;
  };

  int line = 0;  // of the template, for messages

 private:
  void check_heap() const;
  Value own_attribute(const Value& object, std::string_view name);

  std::string_view where_;
  std::optional<std::tm> now_;
  Limits limits_;
  Heap heap_;
  int64_t steps_ = 0;
  int depth_ = 0;
};

/// "str", "int", …: Python's name of the kind, for messages.
std::string_view type_name(const Value& value);

/// Python's repr of a number.
std::string real_text(double value);

/// json.dumps(value, ensure_ascii=False, indent=indent); indent < 0: on one line.
std::string to_json(Machine& machine, const Value& value, int64_t indent);

}  // namespace ptrain::jinja
