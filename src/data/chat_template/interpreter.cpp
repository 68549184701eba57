#include "src/data/chat_template/interpreter.h"

#include <algorithm>
#include <utility>

#include "src/io/json.h"

namespace ptrain::jinja {
namespace {

void set_variable(Scope& scope, std::string_view name, const Value& value) {
  for (Variable& variable : scope.variables) {
    if (variable.name == name) {
      variable.value = value;
      return;
    }
  }
  scope.variables.push_back({name, value});
}

}  // namespace

void Interpreter::define(std::string_view name, const Json& json) {
  if (root_ == nullptr) root_ = machine_.scope(nullptr);
  set_variable(*root_, name, machine_.from_json(json));
}

std::string Interpreter::run(const Block& block) {
  Scope* scope = machine_.scope(root_);
  std::string out;
  execute(block, *scope, out);
  return out;
}

void Interpreter::write(std::string_view text, std::string& out) {
  machine_.step_text(text.size());
  if (out.size() + text.size() > static_cast<size_t>(machine_.limits().output_bytes)) {
    machine_.raise("the chat template writes more than {} MiB", machine_.limits().output_bytes >> 20);
  }
  out += text;
}

Interpreter::Flow Interpreter::execute(const Block& block, Scope& scope, std::string& out) {
  const Machine::Depth depth(machine_);
  for (const StatementPtr& pointer : block) {
    const Statement& statement = *pointer;
    machine_.line = statement.line;
    machine_.step();
    Flow flow = Flow::next;
    switch (statement.kind) {
      case StatementKind::data:
        write(statement.text, out);
        break;
      case StatementKind::print: {
        const Value value = evaluate(*statement.value, scope);
        write(value.is(Kind::string) ? value.string() : machine_.text(value), out);
        break;
      }
      case StatementKind::if_chain:
        flow = execute_if(statement, scope, out);
        break;
      case StatementKind::for_loop:
        flow = execute_for(statement, scope, out);
        break;
      case StatementKind::set:
        assign(*statement.target, evaluate(*statement.value, scope), scope);
        break;
      case StatementKind::set_block: {
        std::string text;
        flow = execute(statement.body, *machine_.scope(&scope), text);
        assign(*statement.target, machine_.string(std::move(text)), scope);
        break;
      }
      case StatementKind::macro:
        define_macro(statement, scope);
        break;
      case StatementKind::with:
        flow = execute_with(statement, scope, out);
        break;
      case StatementKind::generation:
        flow = execute(statement.body, *machine_.scope(&scope), out);
        break;
      case StatementKind::break_loop:
      case StatementKind::continue_loop:
        if (loop_depth_ == 0) machine_.raise("{{% break %}} or {{% continue %}} stands outside of a loop");
        return statement.kind == StatementKind::break_loop ? Flow::break_loop : Flow::continue_loop;
    }
    if (flow != Flow::next) return flow;
  }
  return Flow::next;
}

/// A chain opens no scope: what is set in a branch stays set behind it.
Interpreter::Flow Interpreter::execute_if(const Statement& statement, Scope& scope, std::string& out) {
  for (const Branch& branch : statement.branches) {
    if (machine_.truth(evaluate(*branch.condition, scope))) return execute(branch.body, scope, out);
  }
  return execute(statement.otherwise, scope, out);
}

/// Each turn has a scope of its own, so nothing that is set in one is seen in the next or behind the loop.
Interpreter::Flow Interpreter::execute_for(const Statement& statement, Scope& scope, std::string& out) {
  std::vector<Value> items = machine_.iterate(evaluate(*statement.value, scope));
  if (statement.condition) {
    std::erase_if(items, [&](const Value& item) {
      Scope& turn = *machine_.scope(&scope);
      assign(*statement.target, item, turn);
      return !machine_.truth(evaluate(*statement.condition, turn));
    });
  }
  if (items.empty()) return execute(statement.otherwise, *machine_.scope(&scope), out);

  Loop* loop = machine_.loop();
  const Value kept = machine_.list(std::move(items));
  loop->items = &kept.list().items;
  ++loop_depth_;
  Flow flow = Flow::next;
  for (size_t i = 0; i < loop->items->size() && flow != Flow::break_loop; ++i) {
    machine_.step();
    loop->index0 = static_cast<int64_t>(i);
    Scope& turn = *machine_.scope(&scope);
    set_variable(turn, "loop", Value::of(static_cast<const Loop*>(loop)));
    assign(*statement.target, (*loop->items)[i], turn);
    flow = execute(statement.body, turn, out);
  }
  --loop_depth_;
  return Flow::next;
}

Interpreter::Flow Interpreter::execute_with(const Statement& statement, Scope& scope, std::string& out) {
  Scope& inner = *machine_.scope(&scope);
  for (const Parameter& parameter : statement.parameters) {
    set_variable(inner, parameter.name, evaluate(*parameter.value, scope));
  }
  return execute(statement.body, inner, out);
}

void Interpreter::define_macro(const Statement& statement, Scope& scope) {
  Callable macro;
  macro.type = Callable::Type::macro;
  macro.name = statement.text;
  macro.macro = &statement;
  macro.scope = &scope;
  set_variable(scope, statement.text, Value::of(static_cast<const Callable*>(machine_.callable(macro))));
}

void Interpreter::assign(const Expression& target, const Value& value, Scope& scope) {
  if (target.kind == ExpressionKind::name) return set_variable(scope, target.text, value);
  if (target.kind == ExpressionKind::attribute) {
    const Value holder = look_up(target.parts[0]->text, scope);
    if (!holder.is(Kind::name_space)) {
      machine_.raise("{}.{} cannot be set: {} is not a namespace", target.parts[0]->text, target.text,
                     target.parts[0]->text);
    }
    auto& items = holder.name_space().items;
    const auto same = std::find_if(items.begin(), items.end(),
                                   [&](const auto& item) { return *item.first == target.text; });
    if (same != items.end()) {
      same->second = value;
    } else {
      items.emplace_back(&target.text, value);
    }
    return;
  }
  const std::vector<Value> values = machine_.iterate(value);
  if (value.is_undefined()) machine_.raise_undefined(value);
  if (values.size() != target.parts.size()) {
    machine_.raise("{} names are set from {} values", target.parts.size(), values.size());
  }
  for (size_t i = 0; i < values.size(); ++i) assign(*target.parts[i], values[i], scope);
}

Value Interpreter::call_macro(const Callable& callable, const Arguments& arguments) {
  const Machine::Depth depth(machine_);
  const Statement& macro = *callable.macro;
  const size_t count = macro.parameters.size();
  if (arguments.positional.size() > count) {
    machine_.raise("the macro {}() takes at most {} arguments, {} are given", macro.text, count,
                   arguments.positional.size());
  }
  Scope& scope = *machine_.scope(callable.scope);
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    set_variable(scope, macro.parameters[i].name, arguments.positional[i]);
  }
  const auto is_set = [&](std::string_view name) {
    return std::any_of(scope.variables.begin(), scope.variables.end(),
                       [&](const Variable& v) { return v.name == name; });
  };
  for (const auto& [name, value] : arguments.named) {
    const bool is_known = std::any_of(macro.parameters.begin(), macro.parameters.end(),
                                      [&, wanted = name](const Parameter& p) { return p.name == wanted; });
    if (!is_known) machine_.raise("the macro {}() has no argument \"{}\"", macro.text, name);
    if (is_set(name)) machine_.raise("the macro {}() is given \"{}\" twice", macro.text, name);
    set_variable(scope, name, value);
  }
  for (const Parameter& parameter : macro.parameters) {
    if (is_set(parameter.name)) continue;
    const Value value =
        parameter.value ? evaluate(*parameter.value, scope)
                        : machine_.undefined(fmt::format("the argument '{}' is not given", parameter.name));
    set_variable(scope, parameter.name, value);
  }
  const int64_t outer_loops = std::exchange(loop_depth_, 0);
  std::string text;
  execute(macro.body, scope, text);
  loop_depth_ = outer_loops;
  return machine_.string(std::move(text));
}

}  // namespace ptrain::jinja
