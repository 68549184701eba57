// The grammar of statements, and the parser's way with tokens.
#include "src/data/chat_template/parser.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace ptrain::jinja {
namespace {

constexpr int max_nesting = 100;  // of blocks and brackets

}  // namespace

Block parse_template(std::string_view source, std::string_view where) {
  return Parser(tokenize(source, where), where).parse_all();
}

Block Parser::parse_all() {
  Block block = parse_block({});
  if (current().kind != TokenKind::end) raise("unexpected " + found());
  return block;
}

/// Statements up to the end or a block that begins with one of `ends`; that name is the current token then.
Block Parser::parse_block(const std::vector<std::string_view>& ends) {
  const Nesting nesting(*this);
  Block block;
  for (;;) {
    switch (current().kind) {
      case TokenKind::data: {
        StatementPtr data = statement(StatementKind::data);
        data->text = take().text;
        block.push_back(std::move(data));
        break;
      }
      case TokenKind::variable_begin: {
        take();
        StatementPtr print = statement(StatementKind::print);
        print->value = parse_tuple(Condition::allowed);
        if (current().kind != TokenKind::variable_end) raise("expected }} but found " + found());
        take();
        block.push_back(std::move(print));
        break;
      }
      case TokenKind::block_begin:
        take();
        if (std::any_of(ends.begin(), ends.end(), [&](std::string_view end) { return at_name(end); }))
          return block;
        if (!ends.empty() && current().text.starts_with("end")) {
          raise(fmt::format("expected {{% {} %}} but found {{% {} %}}", ends.back(), current().text));
        }
        block.push_back(parse_statement());
        break;
      default:
        if (!ends.empty()) raise(fmt::format("{{% {} %}} is missing", ends.back()));
        return block;
    }
  }
}

StatementPtr Parser::parse_statement() {
  if (at_name("if")) return parse_if();
  if (at_name("for")) return parse_for();
  if (at_name("set")) return parse_set();
  if (at_name("macro")) return parse_macro();
  if (at_name("with")) return parse_with();
  if (at_name("break") || at_name("continue")) {
    StatementPtr made =
        statement(at_name("break") ? StatementKind::break_loop : StatementKind::continue_loop);
    take();
    end_block();
    return made;
  }
  if (at_name("generation")) {
    StatementPtr made = statement(StatementKind::generation);
    take();
    end_block();
    made->body = parse_block({"endgeneration"});
    take();
    end_block();
    return made;
  }
  if (current().kind == TokenKind::name && current().text.starts_with("end")) {
    raise(fmt::format("{{% {} %}} closes nothing", current().text));
  }
  raise(fmt::format(
      "{{% {} %}} is not supported in chat templates (if, for, set, macro, with, generation, break "
      "and continue are)",
      current().text));
}

StatementPtr Parser::parse_if() {
  StatementPtr made = statement(StatementKind::if_chain);
  while (take_name("if") || take_name("elif")) {
    Branch branch;
    branch.condition = parse_tuple(Condition::allowed);
    end_block();
    branch.body = parse_block({"elif", "else", "endif"});
    made->branches.push_back(std::move(branch));
  }
  if (take_name("else")) {
    end_block();
    made->otherwise = parse_block({"endif"});
  }
  expect_name("endif");
  end_block();
  return made;
}

StatementPtr Parser::parse_for() {
  StatementPtr made = statement(StatementKind::for_loop);
  take();
  made->target = parse_target();
  expect_name("in");
  made->value = parse_tuple(Condition::refused);
  if (take_name("if")) made->condition = parse_expression();
  if (at_name("recursive")) raise("recursive loops are not supported in chat templates");
  end_block();
  made->body = parse_block({"else", "endfor"});
  if (take_name("else")) {
    end_block();
    made->otherwise = parse_block({"endfor"});
  }
  expect_name("endfor");
  end_block();
  return made;
}

StatementPtr Parser::parse_set() {
  StatementPtr made = statement(StatementKind::set);
  take();
  made->target = parse_target();
  if (take_symbol("=")) {
    made->value = parse_tuple(Condition::allowed);
    end_block();
    return made;
  }
  if (at_symbol("|")) raise("filters on a {% set %} block are not supported in chat templates");
  made->kind = StatementKind::set_block;
  end_block();
  made->body = parse_block({"endset"});
  take();
  end_block();
  return made;
}

StatementPtr Parser::parse_macro() {
  StatementPtr made = statement(StatementKind::macro);
  take();
  made->text = expect_any_name("the macro's name");
  expect_symbol("(");
  while (!at_symbol(")")) {
    Parameter parameter;
    parameter.name = expect_any_name("a parameter");
    if (take_symbol("=")) {
      parameter.value = parse_expression();
    } else if (!made->parameters.empty() && made->parameters.back().value) {
      raise(fmt::format("the parameter \"{}\" without a default follows one that has a default",
                        parameter.name));
    }
    made->parameters.push_back(std::move(parameter));
    if (!at_symbol(")")) expect_symbol(",");
  }
  take();
  end_block();
  made->body = parse_block({"endmacro"});
  take();
  end_block();
  return made;
}

StatementPtr Parser::parse_with() {
  StatementPtr made = statement(StatementKind::with);
  take();
  while (current().kind != TokenKind::block_end) {
    if (!made->parameters.empty()) expect_symbol(",");
    Parameter parameter;
    parameter.name = expect_any_name("a name");
    expect_symbol("=");
    parameter.value = parse_expression();
    made->parameters.push_back(std::move(parameter));
  }
  end_block();
  made->body = parse_block({"endwith"});
  take();
  end_block();
  return made;
}

/// name | name.attribute | target, target, … (brackets around them allowed)
ExpressionPtr Parser::parse_target() {
  ExpressionPtr first = parse_single_target();
  if (!at_symbol(",")) return first;
  std::vector<ExpressionPtr> parts;
  parts.push_back(std::move(first));
  while (take_symbol(",")) {
    if (at_name("in") || at_symbol("=")) break;
    parts.push_back(parse_single_target());
  }
  return make(ExpressionKind::tuple, std::move(parts));
}

ExpressionPtr Parser::parse_single_target() {
  const Nesting nesting(*this);
  if (take_symbol("(")) {
    ExpressionPtr inner = parse_target();
    expect_symbol(")");
    return inner;
  }
  std::string name = expect_any_name("a name to set");
  for (const std::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
    if (name == constant) raise(fmt::format("\"{}\" cannot be set", name));
  }
  ExpressionPtr target = make(ExpressionKind::name);
  target->text = std::move(name);
  if (!take_symbol(".")) return target;
  ExpressionPtr attribute = make(ExpressionKind::attribute, std::move(target));
  attribute->text = expect_any_name("an attribute");
  return attribute;
}

void Parser::end_block() {
  if (current().kind != TokenKind::block_end) raise("expected %} but found " + found());
  take();
}

StatementPtr Parser::statement(StatementKind kind) const {
  auto made = std::make_unique<Statement>();
  made->kind = kind;
  made->line = current().line;
  return made;
}

Token Parser::take() {
  Token token = tokens_[at_];
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool Parser::at_symbol(std::string_view symbol) const {
  return current().kind == TokenKind::symbol && current().text == symbol;
}
bool Parser::at_name(std::string_view name) const {
  return current().kind == TokenKind::name && current().text == name;
}
bool Parser::take_symbol(std::string_view symbol) {
  const bool is_there = at_symbol(symbol);
  if (is_there) take();
  return is_there;
}
bool Parser::take_name(std::string_view name) {
  const bool is_there = at_name(name);
  if (is_there) take();
  return is_there;
}
void Parser::expect_symbol(std::string_view symbol) {
  if (!take_symbol(symbol)) raise(fmt::format("expected '{}' but found {}", symbol, found()));
}
void Parser::expect_name(std::string_view name) {
  if (!take_name(name)) raise(fmt::format("expected '{}' but found {}", name, found()));
}
std::string Parser::expect_any_name(std::string_view what) {
  if (current().kind != TokenKind::name) raise(fmt::format("expected {} but found {}", what, found()));
  return take().text;
}

void Parser::raise(std::string_view message) const {
  fail(ExitCode::input, "{}:{}: {}", where_, current().line, message);
}

std::string Parser::found() const {
  switch (current().kind) {
    case TokenKind::end:
      return "the end of the template";
    case TokenKind::data:
      return "text";
    case TokenKind::variable_begin:
      return "{{";
    case TokenKind::variable_end:
      return "}}";
    case TokenKind::block_begin:
      return "{%";
    case TokenKind::block_end:
      return "%}";
    case TokenKind::string:
      return "a string";
    default:
      return "'" + current().text + "'";
  }
}

Parser::Nesting::Nesting(Parser& parser) : parser_(parser) {
  if (parser.nesting_ >= max_nesting) parser.raise(fmt::format("nested deeper than {} levels", max_nesting));
  ++parser.nesting_;
}

}  // namespace ptrain::jinja
