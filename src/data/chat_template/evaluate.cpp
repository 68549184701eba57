// What each expression means.
#include <algorithm>

#include "src/data/chat_template/interpreter.h"
#include "src/data/chat_template/text.h"

namespace ptrain::jinja {

Value Interpreter::evaluate(const Expression& expression, const Scope& scope) {
  const Machine::Depth depth(machine_);
  machine_.step();
  return evaluate_here(expression, scope);
}

Value Interpreter::evaluate_here(const Expression& expression, const Scope& scope) {
  const auto part = [&](size_t index) { return evaluate(*expression.parts[index], scope); };
  switch (expression.kind) {
    case ExpressionKind::none:
      return Value::none();
    case ExpressionKind::boolean:
      return Value::of(expression.integer != 0);
    case ExpressionKind::integer:
      return Value::of(expression.integer);
    case ExpressionKind::real:
      return Value::of(expression.real);
    case ExpressionKind::string:
      return Value::of(&expression.text);
    case ExpressionKind::name:
      return look_up(expression.text, scope);
    case ExpressionKind::list:
    case ExpressionKind::tuple: {
      std::vector<Value> items;
      for (const ExpressionPtr& item : expression.parts) items.push_back(evaluate(*item, scope));
      return machine_.list(std::move(items),
                           expression.kind == ExpressionKind::list ? Sequence::list : Sequence::tuple);
    }
    case ExpressionKind::dict:
      return make_dict(expression, scope);
    case ExpressionKind::attribute:
      return machine_.attribute(part(0), expression.text);
    case ExpressionKind::item:
      return machine_.item(part(0), part(1));
    case ExpressionKind::slice:
      return slice(expression, scope);
    case ExpressionKind::call:
      return call(expression, scope);
    case ExpressionKind::filter: {
      const Value input = part(0);
      return apply_filter(machine_, expression.text, input, arguments_of(expression, scope));
    }
    case ExpressionKind::test: {
      const Value input = part(0);
      return Value::of(apply_test(machine_, expression.text, input, arguments_of(expression, scope)));
    }
    case ExpressionKind::negation:
      return Value::of(!machine_.truth(part(0)));
    case ExpressionKind::minus:
    case ExpressionKind::plus:
      return sign(expression, scope);
    case ExpressionKind::arithmetic: {
      const Value left = part(0);
      return arithmetic(machine_, expression.text, left, part(1));
    }
    case ExpressionKind::concat:
      return concat(expression, scope);
    case ExpressionKind::comparison:
      return Value::of(compare(expression, scope));
    case ExpressionKind::conjunction: {
      const Value left = part(0);
      return machine_.truth(left) ? part(1) : left;
    }
    case ExpressionKind::disjunction: {
      const Value left = part(0);
      return machine_.truth(left) ? left : part(1);
    }
    case ExpressionKind::conditional:
      if (machine_.truth(part(1))) return part(0);
      if (expression.parts[2]) return part(2);
      return machine_.undefined("the inline if was false and has no else");
  }
  return Value();
}

Value Interpreter::look_up(const std::string& name, const Scope& scope) {
  for (const Scope* at = &scope; at != nullptr; at = at->parent) {
    machine_.step();
    for (const Variable& variable : at->variables) {
      if (variable.name == name) return variable.value;
    }
  }
  if (const auto function = global_function(machine_, name)) return *function;
  return machine_.undefined(fmt::format("'{}' is undefined", name));
}

Arguments Interpreter::arguments_of(const Expression& expression, const Scope& scope) {
  Arguments arguments;
  for (const Argument& argument : expression.arguments) {
    const Value value = evaluate(*argument.value, scope);
    if (argument.name.empty()) {
      arguments.positional.push_back(value);
    } else {
      arguments.named.emplace_back(argument.name, value);
    }
  }
  return arguments;
}

Value Interpreter::call(const Expression& expression, const Scope& scope) {
  const Value callee = evaluate(*expression.parts[0], scope);
  if (callee.is_undefined()) machine_.raise_undefined(callee);
  if (!callee.is(Kind::callable)) machine_.raise("a {} cannot be called", type_name(callee));
  const Arguments arguments = arguments_of(expression, scope);
  const Callable& callable = callee.callable();
  switch (callable.type) {
    case Callable::Type::macro: {
      const int line = machine_.line;
      const Value text = call_macro(callable, arguments);
      machine_.line = line;
      return text;
    }
    case Callable::Type::global:
      return call_global(machine_, callable.name, arguments);
    case Callable::Type::method:
      return call_method(machine_, callable, arguments);
  }
  return Value();
}

Value Interpreter::make_dict(const Expression& expression, const Scope& scope) {
  std::vector<std::pair<Value, Value>> items;
  for (size_t i = 0; i < expression.parts.size(); i += 2) {
    const Value key = evaluate(*expression.parts[i], scope);
    const Value value = evaluate(*expression.parts[i + 1], scope);
    if (!key.is(Kind::string) && !key.is_number() && !key.is(Kind::none)) {
      machine_.raise("a {} cannot be a key of a dict", type_name(key));
    }
    const auto same = std::find_if(items.begin(), items.end(),
                                   [&](const auto& item) { return machine_.equal(item.first, key); });
    if (same != items.end()) {
      same->second = value;
    } else {
      items.emplace_back(key, value);
    }
  }
  return machine_.dict(std::move(items));
}

Value Interpreter::concat(const Expression& expression, const Scope& scope) {
  std::string text;
  for (const ExpressionPtr& part : expression.parts) {
    const std::string piece = machine_.text(evaluate(*part, scope));
    machine_.expect_bytes(text.size() + piece.size());
    text += piece;
  }
  return machine_.string(std::move(text));
}

/// a < b <= c holds where each neighbour pair does; b is evaluated once.
bool Interpreter::compare(const Expression& expression, const Scope& scope) {
  Value left = evaluate(*expression.parts[0], scope);
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    const std::string& symbol = expression.operators[i];
    const Value right = evaluate(*expression.parts[i + 1], scope);
    bool holds = false;
    if (symbol == "==") holds = machine_.equal(left, right);
    if (symbol == "!=") holds = !machine_.equal(left, right);
    if (symbol == "in") holds = machine_.contains(right, left);
    if (symbol == "not in") holds = !machine_.contains(right, left);
    if (symbol == "<") holds = machine_.less(left, right);
    if (symbol == ">") holds = machine_.less(right, left);
    if (symbol == "<=") holds = machine_.less(left, right) || machine_.equal(left, right);
    if (symbol == ">=") holds = machine_.less(right, left) || machine_.equal(left, right);
    if (!holds) return false;
    left = right;
  }
  return true;
}

Value Interpreter::sign(const Expression& expression, const Scope& scope) {
  const Value value = evaluate(*expression.parts[0], scope);
  const bool is_minus = expression.kind == ExpressionKind::minus;
  if (value.is(Kind::real)) return Value::of(is_minus ? -value.real() : value.real());
  if (value.is_undefined()) machine_.raise_undefined(value);
  if (!value.is_integral()) machine_.raise("a sign stands before a {}", type_name(value));
  return is_minus ? arithmetic(machine_, "-", Value::of(int64_t{0}), value) : Value::of(value.integer());
}

/// object[start:stop:step] with Python's rules for absent, negative and too large bounds.
Value Interpreter::slice(const Expression& expression, const Scope& scope) {
  const Value object = evaluate(*expression.parts[0], scope);
  if (object.is_undefined()) machine_.raise_undefined(object);
  if (!object.is(Kind::string) && !object.is(Kind::list))
    machine_.raise("a {} cannot be sliced", type_name(object));
  std::optional<int64_t> bounds[3];
  for (size_t i = 0; i < 3; ++i) {
    if (!expression.parts[i + 1]) continue;
    const Value bound = evaluate(*expression.parts[i + 1], scope);
    if (bound.is(Kind::none)) continue;
    if (bound.is_undefined()) machine_.raise_undefined(bound);
    if (!bound.is_integral()) machine_.raise("a slice has a {} as bound", type_name(bound));
    bounds[i] = bound.integer();
  }
  const int64_t step = bounds[2].value_or(1);
  if (step == 0) machine_.raise("the step of a slice is 0");
  const std::vector<size_t> offsets =
      object.is(Kind::string) ? point_offsets(object.string()) : std::vector<size_t>();
  const int64_t size = machine_.length(object);
  // The bounds of what can be reached, going up or down.
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? size : size - 1;
  const auto clipped = [&](std::optional<int64_t> bound, int64_t otherwise) {
    if (!bound) return otherwise;
    return std::clamp(*bound < 0 ? *bound + size : *bound, low, high);
  };
  const int64_t start = clipped(bounds[0], step > 0 ? low : high);
  const int64_t stop = clipped(bounds[1], step > 0 ? high : low);
  std::vector<Value> items;
  std::string text;
  for (int64_t at = start; step > 0 ? at < stop : at > stop;) {
    machine_.step(at % 16 == 0 ? 1 : 0);
    const auto index = static_cast<size_t>(at);
    if (object.is(Kind::string)) {
      text.append(object.string(), offsets[index], offsets[index + 1] - offsets[index]);
    } else {
      items.push_back(object.list().items[index]);
    }
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  if (object.is(Kind::string)) return machine_.string(std::move(text));
  return machine_.list(std::move(items), object.list().type);
}

}  // namespace ptrain::jinja
