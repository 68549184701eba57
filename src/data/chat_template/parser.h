// Tokens to a tree. Only grammar: names of filters, tests and variables are looked up when they are used.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "src/data/chat_template/ast.h"
#include "src/data/chat_template/lexer.h"

namespace ptrain::jinja {

/// Errors: ExitCode::input with `where`:line and what was expected.
Block parse_template(std::string_view source, std::string_view where);

/// One token of look-ahead over the tokens, one function a rule of the grammar.
class Parser {
 public:
  Parser(std::vector<Token> tokens, std::string_view where) : tokens_(std::move(tokens)), where_(where) {}

  Block parse_all();

 private:
  // parser.cpp: statements
  Block parse_block(const std::vector<std::string_view>& ends);
  StatementPtr parse_statement();
  StatementPtr parse_if();
  StatementPtr parse_for();
  StatementPtr parse_set();
  StatementPtr parse_macro();
  StatementPtr parse_with();
  ExpressionPtr parse_target();
  ExpressionPtr parse_single_target();
  void end_block();
  StatementPtr statement(StatementKind kind) const;

  // parser_expressions.cpp, loosest first
  enum class Condition { allowed, refused };  // "a if b else c" at the top
  ExpressionPtr parse_tuple(Condition condition);
  ExpressionPtr parse_expression();
  ExpressionPtr parse_or();
  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_comparison();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concat();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  enum class Filters { allowed, refused };
  ExpressionPtr parse_unary(Filters filters);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_number();
  ExpressionPtr parse_postfix(ExpressionPtr inner);
  ExpressionPtr parse_subscript(ExpressionPtr inner);
  ExpressionPtr parse_filters(ExpressionPtr inner);
  ExpressionPtr parse_test(ExpressionPtr inner);
  ExpressionPtr parse_list(ExpressionKind kind, std::string_view close);
  ExpressionPtr parse_dict();
  std::vector<Argument> parse_arguments();
  ExpressionPtr make(ExpressionKind kind, std::vector<ExpressionPtr> parts = {},
                     std::vector<Argument> arguments = {});
  ExpressionPtr make(ExpressionKind kind, ExpressionPtr a, ExpressionPtr b = nullptr);

  // the tokens
  const Token& current() const { return tokens_[at_]; }
  const Token& following() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token take();
  bool at_symbol(std::string_view symbol) const;
  bool at_name(std::string_view name) const;
  bool take_symbol(std::string_view symbol);
  bool take_name(std::string_view name);
  void expect_symbol(std::string_view symbol);
  void expect_name(std::string_view name);
  std::string expect_any_name(std::string_view what);
  [[noreturn]] void raise(std::string_view message) const;
  std::string found() const;

  /// Counts the nesting of rules while it lives.
  struct Nesting {
    explicit Nesting(Parser& parser);
    ~Nesting() { --parser_.nesting_; }
    Parser& parser_;
  };

  std::vector<Token> tokens_;
  std::string_view where_;
  size_t at_ = 0;
  int nesting_ = 0;
};

}  // namespace ptrain::jinja
