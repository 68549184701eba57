// Methods of strings, lists, dicts and `loop`, with Python's results.
#include <algorithm>
#include <unordered_map>

#include "src/data/chat_template/builtins.h"
#include "src/data/chat_template/text.h"

namespace ptrain::jinja {
namespace {

using Method = Value (*)(Machine&, std::string_view name, const std::string& self, const Arguments&);

Side side_of(std::string_view name, std::string_view left, std::string_view right) {
  return name == left ? Side::left : name == right ? Side::right : Side::both;
}

Value list_of(Machine& machine, const std::vector<std::string_view>& parts, Sequence type = Sequence::list) {
  std::vector<Value> items;
  items.reserve(parts.size());
  for (const std::string_view part : parts) items.push_back(machine.string(part));
  return machine.list(std::move(items), type);
}

Value strip_method(Machine& machine, std::string_view name, const std::string& self,
                   const Arguments& arguments) {
  const Bound bound(machine, name, arguments, {"chars"});
  const Side side = side_of(name, "lstrip", "rstrip");
  if (!bound.has(0) || bound.need(0).is(Kind::none)) return machine.string(strip(self, side));
  return machine.string(strip_chars(self, side, bound.text(0)));
}

Value split_method(Machine& machine, std::string_view name, const std::string& self,
                   const Arguments& arguments) {
  const Bound bound(machine, name, arguments, {"sep", "maxsplit"});
  const Side from = name == "rsplit" ? Side::right : Side::left;
  const int64_t limit = bound.integer(1, -1);
  machine.step_text(self.size());
  if (!bound.has(0) || bound.need(0).is(Kind::none)) return list_of(machine, split_words(self, limit, from));
  if (bound.text(0).empty()) machine.raise("{}(): the separator is empty", name);
  return list_of(machine, split(self, bound.text(0), limit, from));
}

Value split_lines_method(Machine& machine, std::string_view name, const std::string& self,
                         const Arguments& arguments) {
  const Bound bound(machine, name, arguments, {"keepends"});
  if (bound.truth(0, false)) machine.raise("splitlines(keepends=true) is not supported in chat templates");
  return list_of(machine, split_lines(self));
}

Value partition_method(Machine& machine, std::string_view name, const std::string& self,
                       const Arguments& arguments) {
  const Bound bound(machine, name, arguments, {"sep"});
  const std::string& separator = bound.text(0);
  if (separator.empty()) machine.raise("{}(): the separator is empty", name);
  const std::string_view text = self;
  const bool is_right = name == "rpartition";
  const size_t found = is_right ? text.rfind(separator) : text.find(separator);
  if (found == std::string_view::npos) {
    return list_of(
        machine,
        is_right ? std::vector<std::string_view>{"", "", text} : std::vector<std::string_view>{text, "", ""},
        Sequence::tuple);
  }
  return list_of(machine, {text.substr(0, found), separator, text.substr(found + separator.size())},
                 Sequence::tuple);
}

Value case_method(Machine& machine, std::string_view name, const std::string& self,
                  const Arguments& arguments) {
  const Bound bound(machine, name, arguments, {});
  machine.step_text(self.size());
  if (name == "upper") return machine.string(upper(self));
  if (name == "lower" || name == "casefold") return machine.string(lower(self));
  if (name == "title") return machine.string(title(self));
  if (name == "capitalize") return machine.string(capitalize(self));
  std::string out;
  for (size_t at = 0; at < self.size();) {
    const char32_t point = next_point(self, at);
    const char32_t low = lower_point(point);
    append_point(out, low != point ? low : upper_point(point));
  }
  return machine.string(std::move(out));
}

Value replace_method(Machine& machine, std::string_view name, const std::string& self,
                     const Arguments& arguments) {
  const Bound bound(machine, name, arguments, {"old", "new", "count"});
  return replaced(machine, self, bound.text(0), bound.text(1), bound.integer(2, -1));
}

Value affix_test_method(Machine& machine, std::string_view name, const std::string& self,
                        const Arguments& arguments) {
  const Bound bound(machine, name, arguments, {"affix"});
  const auto fits = [&](const Value& affix) {
    if (affix.is_undefined()) machine.raise_undefined(affix);
    if (!affix.is(Kind::string))
      machine.raise("{}() takes a string or a tuple of strings, not {}", name, type_name(affix));
    return name == "startswith" ? self.starts_with(affix.string()) : self.ends_with(affix.string());
  };
  const Value affix = bound.need(0);
  if (affix.is(Kind::list) && affix.list().type == Sequence::tuple) {
    return Value::of(std::any_of(affix.list().items.begin(), affix.list().items.end(), fits));
  }
  return Value::of(fits(affix));
}

Value remove_affix_method(Machine& machine, std::string_view name, const std::string& self,
                          const Arguments& arguments) {
  const Bound bound(machine, name, arguments, {"affix"});
  const std::string& affix = bound.text(0);
  const bool is_prefix = name == "removeprefix";
  if (is_prefix ? self.starts_with(affix) : self.ends_with(affix)) {
    return machine.string(self.substr(is_prefix ? affix.size() : 0, self.size() - affix.size()));
  }
  return machine.string(self);
}

Value find_method(Machine& machine, std::string_view name, const std::string& self,
                  const Arguments& arguments) {
  const Bound bound(machine, name, arguments, {"sub"});
  machine.step_text(self.size());
  const size_t found = name == "rfind" ? self.rfind(bound.text(0)) : self.find(bound.text(0));
  if (found == std::string::npos) {
    if (name == "index") machine.raise("index(): substring not found");
    return Value::of(int64_t{-1});
  }
  return Value::of(count_points(std::string_view(self).substr(0, found)));
}

Value count_method(Machine& machine, std::string_view name, const std::string& self,
                   const Arguments& arguments) {
  const Bound bound(machine, name, arguments, {"sub"});
  const std::string& part = bound.text(0);
  machine.step_text(self.size());
  if (part.empty()) return Value::of(count_points(self) + 1);
  int64_t count = 0;
  for (size_t at = self.find(part); at != std::string::npos; at = self.find(part, at + part.size())) ++count;
  return Value::of(count);
}

Value join_method(Machine& machine, std::string_view name, const std::string& self,
                  const Arguments& arguments) {
  const Bound bound(machine, name, arguments, {"iterable"});
  std::string out;
  bool is_first = true;
  for (const Value& item : machine.iterate(bound.need(0))) {
    if (!item.is(Kind::string)) machine.raise("join(): an item is a {}, expected a string", type_name(item));
    machine.expect_bytes(out.size() + self.size() + item.string().size());
    if (!is_first) out += self;
    is_first = false;
    out += item.string();
  }
  return machine.string(std::move(out));
}

Value is_method(Machine& machine, std::string_view name, const std::string& self,
                const Arguments& arguments) {
  const Bound bound(machine, name, arguments, {});
  machine.step_text(self.size());
  bool has_cased = false, is_all = !self.empty();
  for (size_t at = 0; at < self.size();) {
    const char32_t point = next_point(self, at);
    const bool is_upper = lower_point(point) != point, is_lower = upper_point(point) != point;
    has_cased = has_cased || is_upper || is_lower;
    if (name == "isdigit" || name == "isnumeric") is_all = is_all && is_digit(point);
    if (name == "isalpha") is_all = is_all && is_alpha(point);
    if (name == "isalnum") is_all = is_all && (is_alpha(point) || is_digit(point));
    if (name == "isspace") is_all = is_all && is_space(point);
    if (name == "isupper") is_all = is_all && !is_lower;
    if (name == "islower") is_all = is_all && !is_upper;
  }
  const bool asks_case = name == "isupper" || name == "islower";
  return Value::of(is_all && (!asks_case || has_cased));
}

Value pad_method(Machine& machine, std::string_view name, const std::string& self,
                 const Arguments& arguments) {
  const Bound bound(machine, name, arguments, {"width", "fillchar"});
  const std::string_view fill = name == "zfill" ? "0" : bound.text(1, " ");
  if (count_points(fill) != 1) machine.raise("{}(): the fill character is not one character", name);
  const int64_t lacking = std::max<int64_t>(0, bound.integer(0) - count_points(self));
  if (lacking > machine.limits().output_bytes)
    machine.raise("{}(): a width of {} is too large", name, bound.integer(0));
  int64_t left = 0;
  if (name == "rjust" || name == "zfill") left = lacking;
  if (name == "center") left = lacking / 2 + (lacking & bound.integer(0) & 1);
  const bool is_signed = name == "zfill" && (self.starts_with('-') || self.starts_with('+'));
  std::string out = is_signed ? self.substr(0, 1) : "";
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += is_signed ? self.substr(1) : self;
  for (int64_t i = left; i < lacking; ++i) out += fill;
  return machine.string(std::move(out));
}

const std::unordered_map<std::string_view, Method>& string_methods() {
  static const std::unordered_map<std::string_view, Method> table = {{"strip", strip_method},
                                                                     {"lstrip", strip_method},
                                                                     {"rstrip", strip_method},
                                                                     {"split", split_method},
                                                                     {"rsplit", split_method},
                                                                     {"splitlines", split_lines_method},
                                                                     {"partition", partition_method},
                                                                     {"rpartition", partition_method},
                                                                     {"upper", case_method},
                                                                     {"lower", case_method},
                                                                     {"casefold", case_method},
                                                                     {"title", case_method},
                                                                     {"capitalize", case_method},
                                                                     {"swapcase", case_method},
                                                                     {"replace", replace_method},
                                                                     {"startswith", affix_test_method},
                                                                     {"endswith", affix_test_method},
                                                                     {"removeprefix", remove_affix_method},
                                                                     {"removesuffix", remove_affix_method},
                                                                     {"find", find_method},
                                                                     {"rfind", find_method},
                                                                     {"index", find_method},
                                                                     {"count", count_method},
                                                                     {"join", join_method},
                                                                     {"isdigit", is_method},
                                                                     {"isnumeric", is_method},
                                                                     {"isalpha", is_method},
                                                                     {"isalnum", is_method},
                                                                     {"isspace", is_method},
                                                                     {"isupper", is_method},
                                                                     {"islower", is_method},
                                                                     {"zfill", pad_method},
                                                                     {"ljust", pad_method},
                                                                     {"rjust", pad_method},
                                                                     {"center", pad_method}};
  return table;
}

Value call_list_method(Machine& machine, std::string_view name, const Value& self,
                       const Arguments& arguments) {
  const std::vector<Value>& items = self.list().items;
  if (name == "copy") return self;
  const Bound bound(machine, name, arguments, {"item"});
  const Value item = bound.need(0);
  int64_t count = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!machine.equal(items[i], item)) continue;
    if (name == "index") return Value::of(static_cast<int64_t>(i));
    ++count;
  }
  if (name == "index") machine.raise("index(): the item is not in the list");
  return Value::of(count);
}

Value call_dict_method(Machine& machine, std::string_view name, const Value& self,
                       const Arguments& arguments) {
  const Dict& dict = self.dict();
  if (name == "get") {
    const Bound bound(machine, name, arguments, {"key", "default"});
    const Value* found = machine.find(dict, bound.need(0));
    return found != nullptr ? *found : bound.get(1, Value::none());
  }
  const Bound bound(machine, name, arguments, {});
  if (name == "copy") return self;
  if (name == "items") return dict_items(machine, dict);
  std::vector<Value> items;
  for (const auto& [key, value] : dict.items) items.push_back(name == "keys" ? key : value);
  return machine.list(std::move(items));
}

Value call_loop_method(Machine& machine, std::string_view name, const Loop& loop,
                       const Arguments& arguments) {
  if (name == "cycle") {
    if (arguments.positional.empty()) machine.raise("loop.cycle() needs at least one argument");
    return arguments.positional[static_cast<size_t>(loop.index0) % arguments.positional.size()];
  }
  const Value asked = machine.list(arguments.positional, Sequence::tuple);
  const bool is_changed = !loop.seen || !machine.equal(*loop.seen, asked);
  loop.seen = asked;
  return Value::of(is_changed);
}

}  // namespace

Value dict_items(Machine& machine, const Dict& dict) {
  std::vector<Value> items;
  items.reserve(dict.items.size());
  for (const auto& [key, value] : dict.items) items.push_back(machine.list({key, value}, Sequence::tuple));
  return machine.list(std::move(items));
}

Value call_method(Machine& machine, const Callable& method, const Arguments& arguments) {
  switch (method.self.kind()) {
    case Kind::string: {
      const auto found = string_methods().find(method.name);
      if (found == string_methods().end()) machine.raise("strings have no method {}()", method.name);
      return found->second(machine, method.name, method.self.string(), arguments);
    }
    case Kind::list:
      return call_list_method(machine, method.name, method.self, arguments);
    case Kind::dict:
      return call_dict_method(machine, method.name, method.self, arguments);
    case Kind::loop:
      return call_loop_method(machine, method.name, method.self.loop(), arguments);
    default:
      machine.raise("a {} has no method {}()", type_name(method.self), method.name);
  }
}

}  // namespace ptrain::jinja
