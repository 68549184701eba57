// Filters over lists and dicts.
#include <algorithm>
#include <utility>

#include "src/data/chat_template/filters.h"
#include "src/data/chat_template/text.h"

namespace ptrain::jinja {
namespace {

Value filter_length(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "length", arguments, {});
  return Value::of(m.length(input));
}

Value filter_list(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "list", arguments, {});
  return m.list(m.iterate(input));
}

Value filter_first(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "first", arguments, {});
  const std::vector<Value> items = m.iterate(input);
  return items.empty() ? m.undefined("no first item: the sequence is empty") : items.front();
}

Value filter_last(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "last", arguments, {});
  const std::vector<Value> items = m.iterate(input);
  return items.empty() ? m.undefined("no last item: the sequence is empty") : items.back();
}

Value filter_join(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "join", arguments, {"d", "attribute"});
  const std::string separator = bound.has(0) ? m.text(bound.need(0)) : "";
  std::string out;
  bool is_first = true;
  for (const Value& item : m.iterate(input)) {
    const std::string text = m.text(bound.has(1) ? item_at_path(m, item, bound.need(1)) : item);
    m.expect_bytes(out.size() + separator.size() + text.size());
    if (!is_first) out += separator;
    is_first = false;
    out += text;
  }
  return m.string(std::move(out));
}

Value filter_reverse(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "reverse", arguments, {});
  std::vector<Value> items = m.iterate(input);
  std::reverse(items.begin(), items.end());
  if (!input.is(Kind::string)) return m.list(std::move(items));
  std::string out;
  for (const Value& item : items) out += item.string();
  return m.string(std::move(out));
}

/// Strings in lower case, so that order and equality do not see the case.
Value folded(Machine& m, const Value& value) {
  return value.is(Kind::string) ? m.string(lower(value.string())) : value;
}

void sort_values(Machine& m, std::vector<std::pair<Value, Value>>& keyed, bool is_reversed) {
  const auto before = [&](const auto& a, const auto& b) { return m.less(a.first, b.first); };
  if (is_reversed) {
    std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) { return before(b, a); });
  } else {
    std::stable_sort(keyed.begin(), keyed.end(), before);
  }
}

Value filter_sort(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "sort", arguments, {"reverse", "case_sensitive", "attribute"});
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : m.iterate(input)) {
    const Value key = bound.has(2) ? item_at_path(m, item, bound.need(2)) : item;
    keyed.emplace_back(bound.truth(1, false) ? key : folded(m, key), item);
  }
  sort_values(m, keyed, bound.truth(0, false));
  std::vector<Value> items;
  for (const auto& [key, item] : keyed) items.push_back(item);
  return m.list(std::move(items));
}

Value filter_dictsort(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "dictsort", arguments, {"case_sensitive", "by", "reverse"});
  if (input.is_undefined()) m.raise_undefined(input);
  if (!input.is(Kind::dict)) m.raise("dictsort is for dicts, not for a {}", type_name(input));
  const std::string_view by = bound.text(1, "key");
  if (by != "key" && by != "value") m.raise("dictsort(): \"by\" is \"{}\", expected key or value", by);
  std::vector<std::pair<Value, Value>> keyed;
  for (const auto& [name, value] : input.dict().items) {
    const Value& key = by == "key" ? name : value;
    keyed.emplace_back(bound.truth(0, false) ? key : folded(m, key), m.list({name, value}, Sequence::tuple));
  }
  sort_values(m, keyed, bound.truth(2, false));
  std::vector<Value> items;
  for (const auto& [key, item] : keyed) items.push_back(item);
  return m.list(std::move(items));
}

Value filter_unique(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "unique", arguments, {"case_sensitive", "attribute"});
  std::vector<Value> seen, items;
  for (const Value& item : m.iterate(input)) {
    Value key = bound.has(1) ? item_at_path(m, item, bound.need(1)) : item;
    if (!bound.truth(0, false)) key = folded(m, key);
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& other) { return m.equal(other, key); }))
      continue;
    seen.push_back(key);
    items.push_back(item);
  }
  return m.list(std::move(items));
}

Value filter_items(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "items", arguments, {});
  if (input.is_undefined()) return m.list({});
  if (!input.is(Kind::dict)) m.raise("items is for dicts, not for a {}", type_name(input));
  return dict_items(m, input.dict());
}

Value extreme(Machine& m, const Value& input, const Arguments& arguments, bool wants_largest) {
  const Bound bound(m, wants_largest ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  const auto key_of = [&](const Value& item) {
    const Value key = bound.has(1) ? item_at_path(m, item, bound.need(1)) : item;
    return bound.truth(0, false) ? key : folded(m, key);
  };
  const std::vector<Value> items = m.iterate(input);
  if (items.empty()) return m.undefined("no smallest or largest item: the sequence is empty");
  Value best = items.front();
  for (const Value& item : items) {
    if (wants_largest ? m.less(key_of(best), key_of(item)) : m.less(key_of(item), key_of(best))) best = item;
  }
  return best;
}
Value filter_min(Machine& m, const Value& input, const Arguments& a) {
  return extreme(m, input, a, false);
}
Value filter_max(Machine& m, const Value& input, const Arguments& a) {
  return extreme(m, input, a, true);
}

Value filter_sum(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "sum", arguments, {"attribute", "start"});
  Value sum = bound.get(1, Value::of(int64_t{0}));
  const bool has_path = bound.has(0) && !bound.need(0).is(Kind::none);
  for (const Value& item : m.iterate(input)) {
    sum = arithmetic(m, "+", sum, has_path ? item_at_path(m, item, bound.need(0)) : item);
  }
  return sum;
}

Value filter_batch(Machine& m, const Value& input, const Arguments& arguments) {
  const Bound bound(m, "batch", arguments, {"linecount", "fill_with"});
  const int64_t size = bound.integer(0);
  if (size < 1 || size > 1'000'000) m.raise("batch(): a size of {} is not supported", size);
  std::vector<Value> rows, row;
  const auto close_row = [&] { rows.push_back(m.list(std::exchange(row, {}))); };
  for (const Value& item : m.iterate(input)) {
    if (static_cast<int64_t>(row.size()) == size) close_row();
    row.push_back(item);
  }
  if (!row.empty()) {
    if (bound.has(1)) row.resize(static_cast<size_t>(size), bound.need(1));
    close_row();
  }
  return m.list(std::move(rows));
}

/// What follows the first `count` positional arguments: those of the filter or test that is named there.
Arguments rest_of(const Arguments& arguments, size_t count) {
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin(), rest.positional.begin() + static_cast<ptrdiff_t>(count));
  return rest;
}

const std::string& name_at(Machine& m, std::string_view what, const Arguments& arguments, size_t index) {
  if (arguments.positional.size() <= index) m.raise("{}() lacks an argument", what);
  const Value& name = arguments.positional[index];
  if (!name.is(Kind::string))
    m.raise("{}(): argument {} is a {}, expected a string", what, index + 1, type_name(name));
  return name.string();
}

Value filter_map(Machine& m, const Value& input, const Arguments& arguments) {
  std::vector<Value> items;
  if (arguments.positional.empty()) {
    const Bound bound(m, "map", {{}, arguments.named}, {"attribute", "default"});
    for (const Value& item : m.iterate(input)) {
      items.push_back(
          item_at_path(m, item, bound.need(0), bound.has(1) ? std::optional(bound.need(1)) : std::nullopt));
    }
  } else {
    const std::string& name = name_at(m, "map", arguments, 0);
    const Arguments rest = rest_of(arguments, 1);
    for (const Value& item : m.iterate(input)) items.push_back(apply_filter(m, name, item, rest));
  }
  return m.list(std::move(items));
}

/// select and reject test the items, selectattr and rejectattr one attribute of each.
Value chosen(Machine& m, std::string_view what, const Value& input, const Arguments& arguments,
             bool by_attribute, bool wanted) {
  const size_t test_at = by_attribute ? 1 : 0;
  if (by_attribute && arguments.positional.empty()) m.raise("{}() needs an attribute", what);
  const bool has_test = arguments.positional.size() > test_at;
  const std::string test = has_test ? name_at(m, what, arguments, test_at) : "";
  const Arguments rest = has_test ? rest_of(arguments, test_at + 1) : Arguments{};
  std::vector<Value> items;
  for (const Value& item : m.iterate(input)) {
    const Value judged = by_attribute ? item_at_path(m, item, arguments.positional.front()) : item;
    if ((has_test ? apply_test(m, test, judged, rest) : m.truth(judged)) == wanted) items.push_back(item);
  }
  return m.list(std::move(items));
}
Value filter_select(Machine& m, const Value& v, const Arguments& a) {
  return chosen(m, "select", v, a, false, true);
}
Value filter_reject(Machine& m, const Value& v, const Arguments& a) {
  return chosen(m, "reject", v, a, false, false);
}
Value filter_selectattr(Machine& m, const Value& v, const Arguments& a) {
  return chosen(m, "selectattr", v, a, true, true);
}
Value filter_rejectattr(Machine& m, const Value& v, const Arguments& a) {
  return chosen(m, "rejectattr", v, a, true, false);
}

}  // namespace

Value item_at_path(Machine& machine, Value value, const Value& path, std::optional<Value> otherwise) {
  const auto step_to = [&](const Value& key) {
    value = machine.item(value, key);
    if (value.is_undefined() && otherwise) value = *otherwise;
  };
  if (path.is_integral()) {
    step_to(path);
    return value;
  }
  if (!path.is(Kind::string))
    machine.raise("an attribute is named by a {}, expected a string", type_name(path));
  for (const std::string_view part : split(path.string(), ".", -1, Side::left)) {
    const bool is_index =
        !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == part.npos;
    step_to(is_index ? Value::of(int64_t{std::stoi(std::string(part))}) : machine.string(part));
  }
  return value;
}

const FilterTable& sequence_filters() {
  static const FilterTable table = {{"length", filter_length},
                                    {"count", filter_length},
                                    {"list", filter_list},
                                    {"first", filter_first},
                                    {"last", filter_last},
                                    {"join", filter_join},
                                    {"reverse", filter_reverse},
                                    {"sort", filter_sort},
                                    {"dictsort", filter_dictsort},
                                    {"unique", filter_unique},
                                    {"items", filter_items},
                                    {"min", filter_min},
                                    {"max", filter_max},
                                    {"sum", filter_sum},
                                    {"batch", filter_batch},
                                    {"map", filter_map},
                                    {"select", filter_select},
                                    {"reject", filter_reject},
                                    {"selectattr", filter_selectattr},
                                    {"rejectattr", filter_rejectattr}};
  return table;
}

Value apply_filter(Machine& machine, std::string_view name, const Value& input, const Arguments& arguments) {
  const Machine::Depth depth(machine);  // map('map', 'map', …)
  machine.step();
  for (const FilterTable* table : {&text_filters(), &sequence_filters()}) {
    if (const auto found = table->find(name); found != table->end())
      return found->second(machine, input, arguments);
  }
  machine.raise("there is no filter named \"{}\"", name);
}

}  // namespace ptrain::jinja
