// The grammar of expressions: one function a level of precedence.
#include <algorithm>
#include <charconv>

#include "kernels/base/error.h"
#include "src/data/chat_template/parser.h"

namespace ptrain::jinja {
namespace {

constexpr int max_height = 200;  // of an expression's tree

}  // namespace

/// expression, or several with commas between them: a tuple.
ExpressionPtr Parser::parse_tuple(Condition condition) {
  const auto parse_one = [&] { return condition == Condition::allowed ? parse_expression() : parse_or(); };
  const auto is_end = [&] {
    return current().kind == TokenKind::variable_end || current().kind == TokenKind::block_end ||
           at_symbol(")");
  };
  ExpressionPtr first = parse_one();
  if (!at_symbol(",")) return first;
  std::vector<ExpressionPtr> parts;
  parts.push_back(std::move(first));
  while (take_symbol(",")) {
    if (is_end()) break;
    parts.push_back(parse_one());
  }
  return make(ExpressionKind::tuple, std::move(parts));
}

ExpressionPtr Parser::parse_expression() {
  const Nesting nesting(*this);
  ExpressionPtr value = parse_or();
  while (take_name("if")) {
    std::vector<ExpressionPtr> parts;
    parts.push_back(std::move(value));
    parts.push_back(parse_or());
    parts.push_back(take_name("else") ? parse_expression() : nullptr);
    value = make(ExpressionKind::conditional, std::move(parts));
  }
  return value;
}

ExpressionPtr Parser::parse_or() {
  ExpressionPtr left = parse_and();
  while (take_name("or")) left = make(ExpressionKind::disjunction, std::move(left), parse_and());
  return left;
}

ExpressionPtr Parser::parse_and() {
  ExpressionPtr left = parse_not();
  while (take_name("and")) left = make(ExpressionKind::conjunction, std::move(left), parse_not());
  return left;
}

ExpressionPtr Parser::parse_not() {
  const Nesting nesting(*this);
  if (take_name("not")) return make(ExpressionKind::negation, parse_not());
  return parse_comparison();
}

ExpressionPtr Parser::parse_comparison() {
  std::vector<ExpressionPtr> parts;
  std::vector<std::string> operators;
  parts.push_back(parse_sum());
  for (;;) {
    const bool is_symbol = at_symbol("==") || at_symbol("!=") || at_symbol("<") || at_symbol("<=") ||
                           at_symbol(">") || at_symbol(">=");
    if (is_symbol || at_name("in")) {
      operators.push_back(take().text);
    } else if (at_name("not") && following().kind == TokenKind::name && following().text == "in") {
      take();
      take();
      operators.emplace_back("not in");
    } else {
      break;
    }
    parts.push_back(parse_sum());
  }
  if (operators.empty()) return std::move(parts.front());
  ExpressionPtr made = make(ExpressionKind::comparison, std::move(parts));
  made->operators = std::move(operators);
  return made;
}

ExpressionPtr Parser::parse_sum() {
  ExpressionPtr left = parse_concat();
  while (at_symbol("+") || at_symbol("-")) {
    std::string symbol = take().text;
    left = make(ExpressionKind::arithmetic, std::move(left), parse_concat());
    left->text = std::move(symbol);
  }
  return left;
}

ExpressionPtr Parser::parse_concat() {
  std::vector<ExpressionPtr> parts;
  parts.push_back(parse_product());
  while (take_symbol("~")) parts.push_back(parse_product());
  if (parts.size() == 1) return std::move(parts.front());
  return make(ExpressionKind::concat, std::move(parts));
}

ExpressionPtr Parser::parse_product() {
  ExpressionPtr left = parse_power();
  while (at_symbol("*") || at_symbol("/") || at_symbol("//") || at_symbol("%")) {
    std::string symbol = take().text;
    left = make(ExpressionKind::arithmetic, std::move(left), parse_power());
    left->text = std::move(symbol);
  }
  return left;
}

ExpressionPtr Parser::parse_power() {
  ExpressionPtr left = parse_unary(Filters::allowed);
  while (take_symbol("**")) {
    left = make(ExpressionKind::arithmetic, std::move(left), parse_unary(Filters::allowed));
    left->text = "**";
  }
  return left;
}

ExpressionPtr Parser::parse_unary(Filters filters) {
  const Nesting nesting(*this);
  ExpressionPtr value;
  if (take_symbol("-")) {
    value = make(ExpressionKind::minus, parse_unary(Filters::refused));
  } else if (take_symbol("+")) {
    value = make(ExpressionKind::plus, parse_unary(Filters::refused));
  } else {
    value = parse_postfix(parse_primary());
  }
  return filters == Filters::allowed ? parse_filters(std::move(value)) : std::move(value);
}

ExpressionPtr Parser::parse_primary() {
  if (current().kind == TokenKind::name) {
    const std::string& name = current().text;
    const bool is_boolean = name == "true" || name == "false" || name == "True" || name == "False";
    const bool is_none = name == "none" || name == "None";
    ExpressionPtr made = make(is_boolean ? ExpressionKind::boolean
                              : is_none  ? ExpressionKind::none
                                         : ExpressionKind::name);
    made->text = name;
    made->integer = name == "true" || name == "True";
    take();
    return made;
  }
  if (current().kind == TokenKind::string) {
    ExpressionPtr made = make(ExpressionKind::string);
    while (current().kind == TokenKind::string) made->text += take().text;  // neighbours are one string
    return made;
  }
  if (current().kind == TokenKind::integer || current().kind == TokenKind::real) return parse_number();
  if (take_symbol("(")) {
    if (take_symbol(")")) return make(ExpressionKind::tuple);
    ExpressionPtr inner = parse_tuple(Condition::allowed);
    expect_symbol(")");
    return inner;
  }
  if (take_symbol("[")) return parse_list(ExpressionKind::list, "]");
  if (take_symbol("{")) return parse_dict();
  raise("expected a value but found " + found());
}

ExpressionPtr Parser::parse_number() {
  const bool is_real = current().kind == TokenKind::real;
  ExpressionPtr made = make(is_real ? ExpressionKind::real : ExpressionKind::integer);
  const std::string& digits = current().text;
  const char* end = digits.data() + digits.size();
  const auto result = is_real ? std::from_chars(digits.data(), end, made->real)
                              : std::from_chars(digits.data(), end, made->integer);
  if (result.ec != std::errc() || result.ptr != end) raise(fmt::format("the number {} is too large", digits));
  take();
  return made;
}

ExpressionPtr Parser::parse_list(ExpressionKind kind, std::string_view close) {
  std::vector<ExpressionPtr> parts;
  while (!at_symbol(close)) {
    if (!parts.empty()) expect_symbol(",");
    if (at_symbol(close)) break;
    parts.push_back(parse_expression());
  }
  expect_symbol(close);
  return make(kind, std::move(parts));
}

ExpressionPtr Parser::parse_dict() {
  std::vector<ExpressionPtr> parts;
  while (!at_symbol("}")) {
    if (!parts.empty()) expect_symbol(",");
    if (at_symbol("}")) break;
    parts.push_back(parse_expression());
    expect_symbol(":");
    parts.push_back(parse_expression());
  }
  expect_symbol("}");
  return make(ExpressionKind::dict, std::move(parts));
}

ExpressionPtr Parser::parse_postfix(ExpressionPtr inner) {
  for (;;) {
    if (take_symbol(".")) {
      if (current().kind == TokenKind::integer) {
        ExpressionPtr index = parse_number();
        inner = make(ExpressionKind::item, std::move(inner), std::move(index));
        continue;
      }
      std::string name = expect_any_name("an attribute");
      inner = make(ExpressionKind::attribute, std::move(inner));
      inner->text = std::move(name);
    } else if (take_symbol("[")) {
      inner = parse_subscript(std::move(inner));
    } else if (at_symbol("(")) {
      std::vector<ExpressionPtr> parts;
      parts.push_back(std::move(inner));
      std::vector<Argument> arguments = parse_arguments();
      inner = make(ExpressionKind::call, std::move(parts), std::move(arguments));
    } else {
      return inner;
    }
  }
}

/// What follows "[".
ExpressionPtr Parser::parse_subscript(ExpressionPtr inner) {
  const auto is_bound = [&] { return at_symbol(":") || at_symbol("]"); };
  ExpressionPtr first = is_bound() ? nullptr : parse_expression();
  if (!at_symbol(":")) {
    if (!first) raise("expected an index but found " + found());
    expect_symbol("]");
    return make(ExpressionKind::item, std::move(inner), std::move(first));
  }
  std::vector<ExpressionPtr> parts;
  parts.push_back(std::move(inner));
  parts.push_back(std::move(first));
  while (parts.size() < 4 && take_symbol(":")) parts.push_back(is_bound() ? nullptr : parse_expression());
  parts.resize(4);
  expect_symbol("]");
  return make(ExpressionKind::slice, std::move(parts));
}

std::vector<Argument> Parser::parse_arguments() {
  expect_symbol("(");
  std::vector<Argument> arguments;
  while (!at_symbol(")")) {
    if (!arguments.empty()) expect_symbol(",");
    if (at_symbol(")")) break;
    if (at_symbol("*") || at_symbol("**")) raise("* and ** arguments are not supported in chat templates");
    Argument argument;
    if (current().kind == TokenKind::name && following().kind == TokenKind::symbol &&
        following().text == "=") {
      argument.name = take().text;
      take();
    } else if (!arguments.empty() && !arguments.back().name.empty()) {
      raise("a positional argument follows a named one");
    }
    argument.value = parse_expression();
    arguments.push_back(std::move(argument));
  }
  take();
  return arguments;
}

ExpressionPtr Parser::parse_filters(ExpressionPtr inner) {
  for (;;) {
    if (take_symbol("|")) {
      std::string name = expect_any_name("a filter");
      while (take_symbol(".")) name += "." + expect_any_name("a filter");
      std::vector<ExpressionPtr> parts;
      parts.push_back(std::move(inner));
      inner = make(ExpressionKind::filter, std::move(parts),
                   at_symbol("(") ? parse_arguments() : std::vector<Argument>());
      inner->text = std::move(name);
    } else if (take_name("is")) {
      inner = parse_test(std::move(inner));
    } else if (at_symbol("(")) {
      std::vector<ExpressionPtr> parts;
      parts.push_back(std::move(inner));
      std::vector<Argument> arguments = parse_arguments();
      inner = make(ExpressionKind::call, std::move(parts), std::move(arguments));
    } else {
      return inner;
    }
  }
}

/// What follows "is".
ExpressionPtr Parser::parse_test(ExpressionPtr inner) {
  const bool is_negated = take_name("not");
  std::string name = expect_any_name("a test");
  std::vector<Argument> arguments;
  const auto begins_argument = [&] {
    const TokenKind kind = current().kind;
    if (kind == TokenKind::string || kind == TokenKind::integer || kind == TokenKind::real) return true;
    if (kind == TokenKind::symbol) return at_symbol("[") || at_symbol("{");
    if (at_name("is")) raise("two tests with 'is' cannot follow each other");
    return kind == TokenKind::name && !at_name("else") && !at_name("or") && !at_name("and") && !at_name("if");
  };
  if (at_symbol("(")) {
    arguments = parse_arguments();
  } else if (begins_argument()) {
    arguments.push_back({"", parse_postfix(parse_primary())});
  }
  std::vector<ExpressionPtr> parts;
  parts.push_back(std::move(inner));
  ExpressionPtr made = make(ExpressionKind::test, std::move(parts), std::move(arguments));
  made->text = std::move(name);
  return is_negated ? make(ExpressionKind::negation, std::move(made)) : std::move(made);
}

ExpressionPtr Parser::make(ExpressionKind kind, std::vector<ExpressionPtr> parts,
                           std::vector<Argument> arguments) {
  auto made = std::make_unique<Expression>();
  made->kind = kind;
  made->line = current().line;
  for (const ExpressionPtr& part : parts) {
    if (part) made->height = std::max(made->height, part->height + 1);
  }
  for (const Argument& argument : arguments)
    made->height = std::max(made->height, argument.value->height + 1);
  if (made->height > max_height)
    raise(fmt::format("an expression is nested deeper than {} levels", max_height));
  made->parts = std::move(parts);
  made->arguments = std::move(arguments);
  return made;
}

ExpressionPtr Parser::make(ExpressionKind kind, ExpressionPtr a, ExpressionPtr b) {
  std::vector<ExpressionPtr> parts;
  parts.push_back(std::move(a));
  if (b) parts.push_back(std::move(b));
  return make(kind, std::move(parts));
}

}  // namespace ptrain::jinja
