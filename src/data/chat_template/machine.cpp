#include "src/data/chat_template/machine.h"

#include <algorithm>

#include "src/data/chat_template/text.h"
#include "src/io/json.h"

namespace ptrain::jinja {
namespace {

constexpr std::string_view string_methods[] = {
    "strip",   "lstrip",  "rstrip",     "split",     "rsplit",     "splitlines",   "upper",
    "lower",   "title",   "capitalize", "replace",   "startswith", "endswith",     "find",
    "rfind",   "count",   "join",       "isdigit",   "isalpha",    "isspace",      "isupper",
    "islower", "isalnum", "isnumeric",  "partition", "rpartition", "removeprefix", "removesuffix",
    "zfill",   "ljust",   "rjust",      "center",    "index",      "swapcase",     "casefold"};
constexpr std::string_view dict_methods[] = {"items", "keys", "values", "get", "copy"};
constexpr std::string_view list_methods[] = {"index", "count", "copy"};
constexpr std::string_view changing_methods[] = {"append",     "extend",  "insert", "pop",
                                                 "remove",     "clear",   "update", "sort",
                                                 "setdefault", "popitem", "reverse"};
constexpr std::string_view loop_methods[] = {"cycle", "changed"};

template <size_t N>
bool has(const std::string_view (&names)[N], std::string_view name) {
  return std::find(names, names + N, name) != names + N;
}

/// "'dict object' has no attribute 'x'".
std::string missing(const Value& object, std::string_view name) {
  return fmt::format("'{} object' has no attribute '{}'", type_name(object), name);
}

}  // namespace

void Machine::raise(std::string_view message) const {
  fail(ExitCode::input, "{}:{}: {}", where_, line, message);
}

void Machine::raise_undefined(const Value& value) const {
  raise(value.why() != nullptr ? std::string_view(*value.why())
                               : std::string_view("an undefined value is used"));
}

void Machine::step(int64_t count) {
  steps_ += count;
  if (steps_ > limits_.steps) [[unlikely]] {
    raise("the chat template takes more than {} steps: it does not end, or it is hostile", limits_.steps);
  }
}

void Machine::check_heap() const {
  if (heap_.bytes() > limits_.heap_bytes) [[unlikely]] {
    raise("the chat template makes more than {} MiB of values", limits_.heap_bytes >> 20);
  }
}

void Machine::expect_bytes(size_t bytes) const {
  if (bytes > static_cast<size_t>(limits_.heap_bytes - std::min(heap_.bytes(), limits_.heap_bytes)))
      [[unlikely]] {
    raise("the chat template makes more than {} MiB of values", limits_.heap_bytes >> 20);
  }
}

Machine::Depth::Depth(Machine& machine) : machine_(machine) {
  if (machine.depth_ >= machine.limits_.depth) [[unlikely]] {
    machine.raise("the chat template nests deeper than {} levels", machine.limits_.depth);
  }
  ++machine.depth_;
}

Value Machine::string(std::string text) {
  step_text(text.size());
  const Value value = Value::of(static_cast<const std::string*>(heap_.string(std::move(text))));
  check_heap();
  return value;
}

Value Machine::list(std::vector<Value> items, Sequence type) {
  step(1 + static_cast<int64_t>(items.size() / 8));
  const Value value = Value::of(static_cast<const List*>(heap_.list(std::move(items), type)));
  check_heap();
  return value;
}

Value Machine::dict(std::vector<std::pair<Value, Value>> items) {
  step(1 + static_cast<int64_t>(items.size() / 8));
  const Value value = Value::of(static_cast<const Dict*>(heap_.dict(std::move(items))));
  check_heap();
  return value;
}

Value Machine::undefined(std::string why) {
  const std::string* kept = heap_.string(std::move(why));
  check_heap();
  return Value::undefined(kept);
}

Callable* Machine::callable(Callable callable) {
  check_heap();
  return heap_.callable(std::move(callable));
}

Value Machine::method(const Value& self, std::string_view name) {
  Callable made;
  made.type = Callable::Type::method;
  made.name = name;
  made.self = self;
  return Value::of(static_cast<const Callable*>(callable(std::move(made))));
}

Namespace* Machine::name_space() {
  check_heap();
  return heap_.name_space();
}

Loop* Machine::loop() {
  check_heap();
  return heap_.loop();
}

Scope* Machine::scope(const Scope* parent) {
  check_heap();
  return heap_.scope(parent);
}

Value Machine::from_json(const Json& json) {
  const Depth depth(*this);
  switch (json.type()) {
    case Json::value_t::null:
      return Value::none();
    case Json::value_t::boolean:
      return Value::of(json.get<bool>());
    case Json::value_t::number_integer:
      return Value::of(json.get<int64_t>());
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
        raise("the integer {} is too large", json.dump());
      return Value::of(json.get<int64_t>());
    case Json::value_t::number_float:
      return Value::of(json.get<double>());
    case Json::value_t::string:
      return Value::of(json.get_ptr<const std::string*>());
    case Json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const Json& entry : json) items.push_back(from_json(entry));
      return list(std::move(items));
    }
    case Json::value_t::object: {
      std::vector<std::pair<Value, Value>> items;
      items.reserve(json.size());
      for (auto it = json.begin(); it != json.end(); ++it) {
        items.emplace_back(Value::of(&it.key()), from_json(it.value()));
      }
      return dict(std::move(items));
    }
    default:
      raise("a JSON value of an unknown kind");
  }
}

const Value* Machine::find(const Dict& dict, const Value& key) {
  step(1 + static_cast<int64_t>(dict.items.size() / 16));
  for (const auto& [name, value] : dict.items) {
    if (equal(name, key)) return &value;
  }
  return nullptr;
}

const Value* Machine::find(const Dict& dict, std::string_view key) {
  step(1 + static_cast<int64_t>(dict.items.size() / 16));
  for (const auto& [name, value] : dict.items) {
    if (name.is(Kind::string) && name.string() == key) return &value;
  }
  return nullptr;
}

Value Machine::own_attribute(const Value& object, std::string_view name) {
  switch (object.kind()) {
    case Kind::string:
      if (has(string_methods, name)) return method(object, name);
      break;
    case Kind::list:
      if (has(list_methods, name)) return method(object, name);
      break;
    case Kind::dict:
      if (has(dict_methods, name)) return method(object, name);
      break;
    case Kind::name_space:
      for (const auto& [key, value] : object.name_space().items) {
        if (*key == name) return value;
      }
      break;
    case Kind::loop: {
      const Loop& loop = object.loop();
      const auto size = static_cast<int64_t>(loop.items->size());
      const auto neighbour = [&](int64_t at) {
        if (at >= 0 && at < size) return (*loop.items)[static_cast<size_t>(at)];
        return undefined(fmt::format("there is no loop.{}", name));
      };
      if (name == "index") return Value::of(loop.index0 + 1);
      if (name == "index0") return Value::of(loop.index0);
      if (name == "revindex") return Value::of(size - loop.index0);
      if (name == "revindex0") return Value::of(size - loop.index0 - 1);
      if (name == "first") return Value::of(loop.index0 == 0);
      if (name == "last") return Value::of(loop.index0 + 1 == size);
      if (name == "length") return Value::of(size);
      if (name == "depth") return Value::of(int64_t{1});  // only recursive loops go deeper
      if (name == "depth0") return Value::of(int64_t{0});
      if (name == "previtem") return neighbour(loop.index0 - 1);
      if (name == "nextitem") return neighbour(loop.index0 + 1);
      if (has(loop_methods, name)) return method(object, name);
      break;
    }
    default:
      break;
  }
  const bool is_container = object.is(Kind::list) || object.is(Kind::dict);
  if (is_container && has(changing_methods, name)) {
    raise("{}() would change a {}; a chat template may not", name, type_name(object));
  }
  return undefined(missing(object, name));
}

Value Machine::attribute(const Value& object, std::string_view name) {
  step();
  if (object.is_undefined()) raise_undefined(object);
  if (object.is(Kind::dict)) {
    if (has(dict_methods, name)) return method(object, name);
    if (const Value* found = find(object.dict(), name)) return *found;
  }
  return own_attribute(object, name);
}

Value Machine::item(const Value& object, const Value& key) {
  step();
  if (object.is_undefined()) raise_undefined(object);
  if (object.is(Kind::dict)) {
    if (const Value* found = find(object.dict(), key)) return *found;
    if (!key.is(Kind::string)) {
      std::string shown;
      repr(key, shown);
      return undefined(missing(object, shown));
    }
  }
  const bool is_text = object.is(Kind::string);
  if (key.is_integral() && (is_text || object.is(Kind::list))) {
    const int64_t size = length(object);
    const int64_t at = key.integer() < 0 ? key.integer() + size : key.integer();
    if (at < 0 || at >= size) {
      return undefined(fmt::format("{} object has no element {}", type_name(object), key.integer()));
    }
    if (!is_text) return object.list().items[static_cast<size_t>(at)];
    const std::string& whole = object.string();
    step_text(whole.size());
    size_t start = 0;
    for (int64_t i = 0; i < at; ++i) next_point(whole, start);
    size_t end = start;
    next_point(whole, end);
    return string(whole.substr(start, end - start));
  }
  if (key.is(Kind::string)) return own_attribute(object, key.string());
  return undefined(fmt::format("a value of kind {} has no such item", type_name(object)));
}

}  // namespace ptrain::jinja
