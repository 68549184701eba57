// Goes through a template's tree and writes text: scopes, loops, macros, and what each expression means.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "src/data/chat_template/ast.h"
#include "src/data/chat_template/builtins.h"
#include "src/data/chat_template/machine.h"
#include "src/io/json_fwd.h"

namespace ptrain::jinja {

class Interpreter {
 public:
  /// `where` names the template in messages and must outlive the object.
  Interpreter(std::string_view where, std::optional<std::tm> now) : machine_(where, now) {}

  /// Sets a variable that the whole template sees; `json` must outlive the rendering.
  void define(std::string_view name, const Json& json);

  std::string run(const Block& block);

 private:
  enum class Flow { next, break_loop, continue_loop };

  // interpreter.cpp: statements
  Flow execute(const Block& block, Scope& scope, std::string& out);
  Flow execute_if(const Statement& statement, Scope& scope, std::string& out);
  Flow execute_for(const Statement& statement, Scope& scope, std::string& out);
  Flow execute_with(const Statement& statement, Scope& scope, std::string& out);
  void define_macro(const Statement& statement, Scope& scope);
  void assign(const Expression& target, const Value& value, Scope& scope);
  void write(std::string_view text, std::string& out);
  Value call_macro(const Callable& macro, const Arguments& arguments);

  // evaluate.cpp: expressions
  Value evaluate(const Expression& expression, const Scope& scope);
  Value evaluate_here(const Expression& expression, const Scope& scope);
  Value look_up(const std::string& name, const Scope& scope);
  Value call(const Expression& expression, const Scope& scope);
  Value slice(const Expression& expression, const Scope& scope);
  Value make_dict(const Expression& expression, const Scope& scope);
  Value concat(const Expression& expression, const Scope& scope);
  bool compare(const Expression& expression, const Scope& scope);
  Value sign(const Expression& expression, const Scope& scope);
  Arguments arguments_of(const Expression& expression, const Scope& scope);

  Machine machine_;
  Scope* root_ = nullptr;
  int64_t loop_depth_ = 0;
};

}  // namespace ptrain::jinja
