// What the language brings along: filters, tests, methods of strings, lists and dicts, global functions.
// Each gets its arguments as values; an unknown name or argument is an error that names it.
#pragma once

#include <initializer_list>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "src/data/chat_template/machine.h"

namespace ptrain::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> named;
};

/// The arguments in the order of `names`; absent ones empty. Errors: more than these, unknown names, one
/// given twice.
class Bound {
 public:
  Bound(Machine& machine, std::string_view what, const Arguments& arguments,
        std::initializer_list<std::string_view> names);

  bool has(size_t index) const { return values_[index].has_value(); }
  /// Errors: absent.
  Value need(size_t index) const;
  Value get(size_t index, Value otherwise) const { return values_[index].value_or(otherwise); }
  /// Errors: absent without a default; another kind.
  const std::string& text(size_t index) const;
  std::string_view text(size_t index, std::string_view otherwise) const;
  int64_t integer(size_t index) const;
  int64_t integer(size_t index, int64_t otherwise) const;
  bool truth(size_t index, bool otherwise) const;

 private:
  Machine& machine_;
  std::string_view what_;
  std::vector<std::string_view> names_;
  std::vector<std::optional<Value>> values_;
};

Value apply_filter(Machine& machine, std::string_view name, const Value& input, const Arguments& arguments);
bool apply_test(Machine& machine, std::string_view name, const Value& input, const Arguments& arguments);

/// A bound method: object.name(arguments).
Value call_method(Machine& machine, const Callable& method, const Arguments& arguments);

/// range, dict, namespace, raise_exception, strftime_now; empty for another name, and for strftime_now where
/// no clock is given.
std::optional<Value> global_function(Machine& machine, std::string_view name);
Value call_global(Machine& machine, std::string_view name, const Arguments& arguments);

/// a + b, a - b, …: `symbol` is one of + - * / // % **. Errors: kinds that do not go together, overflow.
Value arithmetic(Machine& machine, std::string_view symbol, const Value& a, const Value& b);

/// text.replace(old, by, count), its size checked first.
Value replaced(Machine& machine, std::string_view text, std::string_view old, std::string_view by,
               int64_t count);

/// [["key", value], …] as tuples.
Value dict_items(Machine& machine, const Dict& dict);

/// Looks along "a.b.0" as filters with an `attribute` do: entries before attributes. `otherwise` stands for
/// what is not there.
Value item_at_path(Machine& machine, Value value, const Value& path,
                   std::optional<Value> otherwise = std::nullopt);

}  // namespace ptrain::jinja
