// A parsed template: expressions and statements as plain trees. The parser bounds their height, so that going
// through them, or destroying them, needs a bounded stack.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace ptrain::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

enum class ExpressionKind {
  none,
  boolean,      // integer: 0 or 1
  integer,      // integer
  real,         // real
  string,       // text
  name,         // text
  list,         // parts
  tuple,        // parts
  dict,         // parts: key, value, key, value, …
  attribute,    // parts[0].text
  item,         // parts[0][parts[1]]
  slice,        // parts[0][parts[1]:parts[2]:parts[3]], absent ones null
  call,         // parts[0](arguments)
  filter,       // parts[0] | text(arguments)
  test,         // parts[0] is text(arguments)
  negation,     // not parts[0]
  minus,        // -parts[0]
  plus,         // +parts[0]
  arithmetic,   // parts[0] text parts[1]
  concat,       // parts joined as text
  comparison,   // parts[0] operators[0] parts[1] operators[1] parts[2] …
  conjunction,  // parts[0] and parts[1]
  disjunction,  // parts[0] or parts[1]
  conditional,  // parts[0] if parts[1] else parts[2] (may be null)
};

struct Argument {
  std::string name;  // "" for a positional one
  ExpressionPtr value;
};

struct Expression {
  ExpressionKind kind = ExpressionKind::none;
  int line = 0;
  int height = 1;  // of the tree below, 1 for a leaf
  std::string text;
  int64_t integer = 0;
  double real = 0;
  std::vector<ExpressionPtr> parts;
  std::vector<Argument> arguments;
  std::vector<std::string> operators;
};

struct Statement;
using StatementPtr = std::unique_ptr<Statement>;
using Block = std::vector<StatementPtr>;

enum class StatementKind {
  data,        // text
  print,       // value
  if_chain,    // branches, otherwise
  for_loop,    // target, value, condition (may be null), body, otherwise
  set,         // target, value
  set_block,   // target, body
  macro,       // text, parameters, body
  with,        // parameters (all with a value), body
  generation,  // body
  break_loop,
  continue_loop,
};

struct Branch {
  ExpressionPtr condition;
  Block body;
};

struct Parameter {
  std::string name;
  ExpressionPtr value;  // the default, or null
};

struct Statement {
  StatementKind kind = StatementKind::data;
  int line = 0;
  std::string text;
  ExpressionPtr target;  // a name, a tuple of targets, or an attribute of a name (of a namespace)
  ExpressionPtr value;
  ExpressionPtr condition;
  std::vector<Branch> branches;
  std::vector<Parameter> parameters;
  Block body;
  Block otherwise;
};

}  // namespace ptrain::jinja
