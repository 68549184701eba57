// The tests: what may follow `is`.
#include <unordered_map>

#include "src/data/chat_template/builtins.h"
#include "src/data/chat_template/text.h"

namespace ptrain::jinja {
namespace {

using Test = bool (*)(Machine&, const Value&, const Arguments&);

Value only(Machine& machine, std::string_view what, const Arguments& arguments) {
  return Bound(machine, what, arguments, {"other"}).need(0);
}

int64_t integer_of(Machine& machine, std::string_view what, const Value& value) {
  if (value.is_undefined()) machine.raise_undefined(value);
  if (!value.is_integral())
    machine.raise("the test {} is for integers, not for a {}", what, type_name(value));
  return value.integer();
}

bool is_cased(Machine& machine, const Value& value, bool asks_upper) {
  const std::string text = machine.text(value);
  const bool is_same = asks_upper ? upper(text) == text : lower(text) == text;
  return is_same && upper(text) != lower(text);
}

bool test_iterable(Machine&, const Value& v, const Arguments&) {
  return v.is_undefined() || v.is(Kind::string) || v.is(Kind::list) || v.is(Kind::dict);
}
bool test_same(Machine& m, const Value& v, const Arguments& a) {
  const Value other = only(m, "sameas", a);
  if (v.kind() != other.kind()) return false;
  const bool has_identity =
      v.is(Kind::list) || v.is(Kind::dict) || v.is(Kind::name_space) || v.is(Kind::callable);
  return has_identity ? v.same_object(other) : m.equal(v, other);
}
bool test_equal(Machine& m, const Value& v, const Arguments& a) {
  return m.equal(v, only(m, "equalto", a));
}
bool test_unequal(Machine& m, const Value& v, const Arguments& a) {
  return !m.equal(v, only(m, "ne", a));
}
bool test_less(Machine& m, const Value& v, const Arguments& a) {
  return m.less(v, only(m, "lt", a));
}
bool test_greater(Machine& m, const Value& v, const Arguments& a) {
  return m.less(only(m, "gt", a), v);
}
bool test_at_most(Machine& m, const Value& v, const Arguments& a) {
  const Value other = only(m, "le", a);
  return m.less(v, other) || m.equal(v, other);
}
bool test_at_least(Machine& m, const Value& v, const Arguments& a) {
  const Value other = only(m, "ge", a);
  return m.less(other, v) || m.equal(v, other);
}

const std::unordered_map<std::string_view, Test>& tests() {
  static const std::unordered_map<std::string_view, Test> table = {
      {"defined", [](Machine&, const Value& v, const Arguments&) { return !v.is_undefined(); }},
      {"undefined", [](Machine&, const Value& v, const Arguments&) { return v.is_undefined(); }},
      {"none", [](Machine&, const Value& v, const Arguments&) { return v.is(Kind::none); }},
      {"string", [](Machine&, const Value& v, const Arguments&) { return v.is(Kind::string); }},
      {"mapping", [](Machine&, const Value& v, const Arguments&) { return v.is(Kind::dict); }},
      {"iterable", test_iterable},
      {"sequence", test_iterable},
      {"number", [](Machine&, const Value& v, const Arguments&) { return v.is_number(); }},
      {"integer", [](Machine&, const Value& v, const Arguments&) { return v.is(Kind::integer); }},
      {"float", [](Machine&, const Value& v, const Arguments&) { return v.is(Kind::real); }},
      {"boolean", [](Machine&, const Value& v, const Arguments&) { return v.is(Kind::boolean); }},
      {"true", [](Machine&, const Value& v, const Arguments&) { return v.is(Kind::boolean) && v.boolean(); }},
      {"false",
       [](Machine&, const Value& v, const Arguments&) { return v.is(Kind::boolean) && !v.boolean(); }},
      {"callable", [](Machine&, const Value& v, const Arguments&) { return v.is(Kind::callable); }},
      {"odd", [](Machine& m, const Value& v, const Arguments&) { return integer_of(m, "odd", v) % 2 != 0; }},
      {"even",
       [](Machine& m, const Value& v, const Arguments&) { return integer_of(m, "even", v) % 2 == 0; }},
      {"divisibleby",
       [](Machine& m, const Value& v, const Arguments& a) {
         const int64_t by = integer_of(m, "divisibleby", only(m, "divisibleby", a));
         if (by == 0) m.raise("division by zero");
         return by == -1 || integer_of(m, "divisibleby", v) % by == 0;
       }},
      {"upper", [](Machine& m, const Value& v, const Arguments&) { return is_cased(m, v, true); }},
      {"lower", [](Machine& m, const Value& v, const Arguments&) { return is_cased(m, v, false); }},
      {"in", [](Machine& m, const Value& v, const Arguments& a) { return m.contains(only(m, "in", a), v); }},
      {"sameas", test_same},
      {"equalto", test_equal},
      {"eq", test_equal},
      {"==", test_equal},
      {"ne", test_unequal},
      {"!=", test_unequal},
      {"lt", test_less},
      {"lessthan", test_less},
      {"<", test_less},
      {"gt", test_greater},
      {"greaterthan", test_greater},
      {">", test_greater},
      {"le", test_at_most},
      {"<=", test_at_most},
      {"ge", test_at_least},
      {">=", test_at_least}};
  return table;
}

}  // namespace

bool apply_test(Machine& machine, std::string_view name, const Value& input, const Arguments& arguments) {
  machine.step();
  const auto found = tests().find(name);
  if (found == tests().end()) machine.raise("there is no test named \"{}\"", name);
  return found->second(machine, input, arguments);
}

}  // namespace ptrain::jinja
