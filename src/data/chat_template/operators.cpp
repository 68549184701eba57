// Arithmetic with Python's results, global functions, and the binding of arguments to names.
#include <algorithm>
#include <cmath>

#include "src/data/chat_template/builtins.h"
#include "src/data/chat_template/text.h"

namespace ptrain::jinja {
namespace {

constexpr int64_t max_range = 100'000;

Value integer_arithmetic(Machine& machine, std::string_view symbol, int64_t a, int64_t b) {
  int64_t result = 0;
  bool is_too_large = false;
  if (symbol == "+") {
    is_too_large = __builtin_add_overflow(a, b, &result);
  } else if (symbol == "-") {
    is_too_large = __builtin_sub_overflow(a, b, &result);
  } else if (symbol == "*") {
    is_too_large = __builtin_mul_overflow(a, b, &result);
  } else if (symbol == "/") {
    if (b == 0) machine.raise("division by zero");
    return Value::of(static_cast<double>(a) / static_cast<double>(b));
  } else if (symbol == "//" || symbol == "%") {
    if (b == 0) machine.raise("division by zero");
    is_too_large = a == INT64_MIN && b == -1;
    if (!is_too_large) {
      const int64_t rest = a % b;
      const bool is_below = rest != 0 && (rest < 0) != (b < 0);  // C++ rounds to zero, Python down
      result = symbol == "%" ? rest + (is_below ? b : 0) : a / b - (is_below ? 1 : 0);
    }
  } else {
    if (b < 0) return Value::of(std::pow(static_cast<double>(a), static_cast<double>(b)));
    result = 1;
    for (int64_t i = 0; i < b && !is_too_large && result != 0; ++i) {
      machine.step();
      is_too_large = __builtin_mul_overflow(result, a, &result);
    }
  }
  if (is_too_large) machine.raise("{} {} {} is too large for an integer here", a, symbol, b);
  return Value::of(result);
}

Value real_arithmetic(Machine& machine, std::string_view symbol, double a, double b) {
  if (symbol == "+") return Value::of(a + b);
  if (symbol == "-") return Value::of(a - b);
  if (symbol == "*") return Value::of(a * b);
  if (symbol == "**") return Value::of(std::pow(a, b));
  if (b == 0) machine.raise("division by zero");
  if (symbol == "/") return Value::of(a / b);
  double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  return Value::of(symbol == "%" ? rest : std::floor((a - rest) / b + 0.5));
}

/// A string or a list, several times over.
Value repeated(Machine& machine, const Value& value, int64_t count) {
  count = std::max<int64_t>(count, 0);
  const bool is_text = value.is(Kind::string);
  const size_t size = is_text ? value.string().size() : value.list().items.size() * sizeof(Value);
  size_t bytes = 0;
  if (__builtin_mul_overflow(size, static_cast<size_t>(count), &bytes)) bytes = SIZE_MAX;
  machine.expect_bytes(bytes);
  if (size == 0) count = 0;
  if (is_text) {
    std::string text;
    for (int64_t i = 0; i < count; ++i) text += value.string();
    return machine.string(std::move(text));
  }
  std::vector<Value> items;
  for (int64_t i = 0; i < count; ++i) {
    items.insert(items.end(), value.list().items.begin(), value.list().items.end());
  }
  return machine.list(std::move(items), value.list().type);
}

Value call_range(Machine& machine, const Arguments& arguments) {
  const Bound bound(machine, "range", arguments, {"start", "stop", "step"});
  int64_t start = 0, stop = bound.integer(0);
  const int64_t step = bound.integer(2, 1);
  if (bound.has(1)) {
    start = stop;
    stop = bound.integer(1);
  }
  if (step == 0) machine.raise("range(): the step is 0");
  const bool is_up = step > 0;
  if (is_up ? start >= stop : start <= stop) return machine.list({});
  const uint64_t distance = is_up ? static_cast<uint64_t>(stop) - static_cast<uint64_t>(start)
                                  : static_cast<uint64_t>(start) - static_cast<uint64_t>(stop);
  const uint64_t stride = is_up ? static_cast<uint64_t>(step) : uint64_t{0} - static_cast<uint64_t>(step);
  const uint64_t count = (distance - 1) / stride + 1;
  if (count > static_cast<uint64_t>(max_range))
    machine.raise("range() of {} numbers; at most {} are allowed", count, max_range);
  std::vector<Value> items;
  for (uint64_t i = 0; i < count; ++i) items.push_back(Value::of(start + static_cast<int64_t>(i) * step));
  return machine.list(std::move(items));
}

Value call_strftime(Machine& machine, const Arguments& arguments) {
  const Bound bound(machine, "strftime_now", arguments, {"format"});
  const std::string& format = bound.text(0);
  if (format.size() > 200) machine.raise("strftime_now(): the format is longer than 200 bytes");
  std::string text(format.size() * 64 + 64, '\0');
  text.resize(std::strftime(text.data(), text.size(), format.c_str(), &*machine.now()));
  return machine.string(std::move(text));
}

/// The entries that dict() and namespace() start with.
std::vector<std::pair<Value, Value>> entries(Machine& machine, std::string_view what,
                                             const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> items;
  if (arguments.positional.size() > 1) machine.raise("{}() takes at most one positional argument", what);
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional.front();
    if (!source.is(Kind::dict)) machine.raise("{}() takes a dict, not a {}", what, type_name(source));
    items = source.dict().items;
  }
  for (const auto& [name, value] : arguments.named) {
    const auto same = std::find_if(items.begin(), items.end(), [&, key = name](const auto& entry) {
      return entry.first.is(Kind::string) && entry.first.string() == key;
    });
    if (same != items.end()) {
      same->second = value;
    } else {
      items.emplace_back(machine.string(name), value);
    }
  }
  return items;
}

}  // namespace

Value arithmetic(Machine& machine, std::string_view symbol, const Value& a, const Value& b) {
  machine.step();
  if (a.is_undefined()) machine.raise_undefined(a);
  if (b.is_undefined()) machine.raise_undefined(b);
  if (a.is_integral() && b.is_integral())
    return integer_arithmetic(machine, symbol, a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return real_arithmetic(machine, symbol, a.real(), b.real());
  if (symbol == "+" && a.is(Kind::string) && b.is(Kind::string)) {
    machine.expect_bytes(a.string().size() + b.string().size());
    return machine.string(a.string() + b.string());
  }
  if (symbol == "+" && a.is(Kind::list) && b.is(Kind::list) && a.list().type == b.list().type) {
    machine.expect_bytes((a.list().items.size() + b.list().items.size()) * sizeof(Value));
    std::vector<Value> items = a.list().items;
    items.insert(items.end(), b.list().items.begin(), b.list().items.end());
    return machine.list(std::move(items), a.list().type);
  }
  const auto is_sequence = [](const Value& value) { return value.is(Kind::string) || value.is(Kind::list); };
  if (symbol == "*" && is_sequence(a) && b.is_integral()) return repeated(machine, a, b.integer());
  if (symbol == "*" && is_sequence(b) && a.is_integral()) return repeated(machine, b, a.integer());
  machine.raise("'{}' is not defined between {} and {}", symbol, type_name(a), type_name(b));
}

Value replaced(Machine& machine, std::string_view text, std::string_view old, std::string_view by,
               int64_t count) {
  machine.step_text(text.size());
  size_t found = 0;
  if (old.empty()) {
    found = text.size() + 1;
  } else {
    for (size_t at = text.find(old); at != std::string_view::npos; at = text.find(old, at + old.size()))
      ++found;
  }
  if (count >= 0) found = std::min(found, static_cast<size_t>(count));
  size_t bytes = 0;
  if (__builtin_mul_overflow(found, by.size(), &bytes)) bytes = SIZE_MAX / 2;
  machine.expect_bytes(text.size() + bytes);
  return machine.string(replace(text, old, by, count));
}

std::optional<Value> global_function(Machine& machine, std::string_view name) {
  for (const std::string_view known : {"range", "dict", "namespace", "raise_exception", "strftime_now"}) {
    if (name != known || (known == "strftime_now" && !machine.now())) continue;
    Callable made;
    made.name = known;
    return Value::of(static_cast<const Callable*>(machine.callable(made)));
  }
  return std::nullopt;
}

Value call_global(Machine& machine, std::string_view name, const Arguments& arguments) {
  if (name == "range") return call_range(machine, arguments);
  if (name == "strftime_now") return call_strftime(machine, arguments);
  if (name == "dict") return machine.dict(entries(machine, name, arguments));
  if (name == "namespace") {
    Namespace* made = machine.name_space();
    for (const auto& [key, value] : entries(machine, name, arguments)) {
      if (!key.is(Kind::string))
        machine.raise("namespace(): the name of an attribute is a {}", type_name(key));
      made->items.emplace_back(&key.string(), value);
    }
    return Value::of(made);
  }
  const Bound bound(machine, name, arguments, {"message"});
  machine.raise(std::string_view(machine.text(bound.need(0))));
}

Bound::Bound(Machine& machine, std::string_view what, const Arguments& arguments,
             std::initializer_list<std::string_view> names)
    : machine_(machine), what_(what), names_(names), values_(names.size()) {
  if (arguments.positional.size() > names_.size()) {
    machine.raise("{}() takes at most {} arguments, {} are given", what, names_.size(),
                  arguments.positional.size());
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto at = static_cast<size_t>(std::find(names_.begin(), names_.end(), name) - names_.begin());
    if (at == names_.size()) machine.raise("{}() has no argument \"{}\"", what, name);
    if (values_[at]) machine.raise("{}() is given \"{}\" twice", what, name);
    values_[at] = value;
  }
}

Value Bound::need(size_t index) const {
  if (!values_[index]) machine_.raise("{}() needs the argument \"{}\"", what_, names_[index]);
  return *values_[index];
}

const std::string& Bound::text(size_t index) const {
  const Value value = need(index);
  if (value.is_undefined()) machine_.raise_undefined(value);
  if (!value.is(Kind::string)) {
    machine_.raise("{}(): \"{}\" is a {}, expected a string", what_, names_[index], type_name(value));
  }
  return value.string();
}

std::string_view Bound::text(size_t index, std::string_view otherwise) const {
  return has(index) ? std::string_view(text(index)) : otherwise;
}

int64_t Bound::integer(size_t index) const {
  const Value value = need(index);
  if (value.is_undefined()) machine_.raise_undefined(value);
  if (!value.is_integral()) {
    machine_.raise("{}(): \"{}\" is a {}, expected an integer", what_, names_[index], type_name(value));
  }
  return value.integer();
}

int64_t Bound::integer(size_t index, int64_t otherwise) const {
  return has(index) ? integer(index) : otherwise;
}

bool Bound::truth(size_t index, bool otherwise) const {
  return has(index) ? machine_.truth(*values_[index]) : otherwise;
}

}  // namespace ptrain::jinja
