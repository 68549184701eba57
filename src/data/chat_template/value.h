// The values of the template language and the heap that owns them while one template is rendered.
// Values are small views: nothing here is freed before the whole heap is, so cycles and deep nesting cost
// nothing.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ptrain::jinja {

struct Statement;
struct List;
struct Dict;
struct Namespace;
struct Loop;
struct Callable;

enum class Kind : uint8_t {
  undefined,  // prints as nothing; an attribute of it, or arithmetic with it, is an error
  none,
  boolean,
  integer,
  real,
  string,
  list,  // also tuples
  dict,
  name_space,
  loop,
  callable,
};

class Value {
 public:
  Value() : kind_(Kind::undefined) { data_.string = nullptr; }

  /// `why` (may be null) says in an error what was not there.
  static Value undefined(const std::string* why) {
    return make(Kind::undefined, [&](Data& d) { d.string = why; });
  }
  static Value none() {
    return make(Kind::none, [](Data& d) { d.integer = 0; });
  }
  static Value of(bool value) {
    return make(Kind::boolean, [&](Data& d) { d.boolean = value; });
  }
  static Value of(int64_t value) {
    return make(Kind::integer, [&](Data& d) { d.integer = value; });
  }
  static Value of(double value) {
    return make(Kind::real, [&](Data& d) { d.real = value; });
  }
  static Value of(const std::string* value) {
    return make(Kind::string, [&](Data& d) { d.string = value; });
  }
  static Value of(const List* value) {
    return make(Kind::list, [&](Data& d) { d.list = value; });
  }
  static Value of(const Dict* value) {
    return make(Kind::dict, [&](Data& d) { d.dict = value; });
  }
  static Value of(Namespace* value) {
    return make(Kind::name_space, [&](Data& d) { d.name_space = value; });
  }
  static Value of(const Loop* value) {
    return make(Kind::loop, [&](Data& d) { d.loop = value; });
  }
  static Value of(const Callable* value) {
    return make(Kind::callable, [&](Data& d) { d.callable = value; });
  }

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_undefined() const { return kind_ == Kind::undefined; }
  /// Booleans count as the integers 0 and 1, as in Python.
  bool is_integral() const { return kind_ == Kind::integer || kind_ == Kind::boolean; }
  bool is_number() const { return is_integral() || kind_ == Kind::real; }

  const std::string* why() const { return data_.string; }
  bool boolean() const { return data_.boolean; }
  int64_t integer() const { return kind_ == Kind::boolean ? int64_t{data_.boolean} : data_.integer; }
  double real() const { return kind_ == Kind::real ? data_.real : static_cast<double>(integer()); }
  const std::string& string() const { return *data_.string; }
  const List& list() const { return *data_.list; }
  const Dict& dict() const { return *data_.dict; }
  Namespace& name_space() const { return *data_.name_space; }
  const Loop& loop() const { return *data_.loop; }
  const Callable& callable() const { return *data_.callable; }
  /// Same object (for what has an identity).
  bool same_object(const Value& other) const {
    return kind_ == other.kind_ && data_.string == other.data_.string;
  }

 private:
  union Data {
    bool boolean;
    int64_t integer;
    double real;
    const std::string* string;
    const List* list;
    const Dict* dict;
    Namespace* name_space;
    const Loop* loop;
    const Callable* callable;
  };
  template <class Fill>
  static Value make(Kind kind, Fill fill) {
    Value value;
    value.kind_ = kind;
    fill(value.data_);
    return value;
  }

  Kind kind_;
  Data data_;
};

enum class Sequence : uint8_t { list, tuple };

struct List {
  std::vector<Value> items;
  Sequence type = Sequence::list;
};

/// Entries in order of insertion; keys are unique.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
};

struct Variable {
  std::string_view name;
  Value value;
};

struct Namespace {
  std::vector<std::pair<const std::string*, Value>> items;
};

/// What a `for` loop shows as `loop`.
struct Loop {
  const std::vector<Value>* items = nullptr;
  int64_t index0 = 0;
  mutable std::optional<Value> seen;  // what changed() was asked last
};

/// The names that a block sees: its own, then those around it.
struct Scope {
  const Scope* parent = nullptr;
  std::vector<Variable> variables;
};

/// A macro, a global function, or a method bound to its object.
struct Callable {
  enum class Type : uint8_t { macro, global, method };
  Type type = Type::global;
  std::string_view name;
  const Statement* macro = nullptr;
  const Scope* scope = nullptr;  // where the macro stands
  Value self;                    // the method's object
};

/// Everything that one rendering makes. Counts bytes; the limit is the machine's business.
class Heap {
 public:
  std::string* string(std::string text) {
    bytes_ += static_cast<int64_t>(sizeof(std::string) + text.capacity());
    return &strings_.emplace_back(std::move(text));
  }
  List* list(std::vector<Value> items, Sequence type) {
    bytes_ += static_cast<int64_t>(sizeof(List) + items.capacity() * sizeof(Value));
    return &lists_.emplace_back(List{std::move(items), type});
  }
  Dict* dict(std::vector<std::pair<Value, Value>> items) {
    bytes_ += static_cast<int64_t>(sizeof(Dict) + items.capacity() * 2 * sizeof(Value));
    return &dicts_.emplace_back(Dict{std::move(items)});
  }
  Namespace* name_space() { return count(namespaces_.emplace_back()); }
  Loop* loop() { return count(loops_.emplace_back()); }
  Callable* callable(Callable callable) { return count(callables_.emplace_back(std::move(callable))); }
  Scope* scope(const Scope* parent) {
    Scope* made = count(scopes_.emplace_back());
    made->parent = parent;
    return made;
  }
  int64_t bytes() const { return bytes_; }

 private:
  template <class T>
  T* count(T& made) {
    bytes_ += static_cast<int64_t>(2 * sizeof(T));
    return &made;
  }

  int64_t bytes_ = 0;
  std::deque<std::string> strings_;
  std::deque<List> lists_;
  std::deque<Dict> dicts_;
  std::deque<Namespace> namespaces_;
  std::deque<Loop> loops_;
  std::deque<Callable> callables_;
  std::deque<Scope> scopes_;
};

}  // namespace ptrain::jinja
