// Python's rules for truth, equality, order, length and text of values.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "src/data/chat_template/machine.h"
#include "src/data/chat_template/text.h"

namespace ptrain::jinja {
namespace {

/// False for blanks other than the space and for what has no shape of its own.
bool is_printable(char32_t point) {
  const auto is_within = [point](char32_t first, char32_t last) { return point >= first && point <= last; };
  return !is_space(point) && !is_within(0x200b, 0x200f) && !is_within(0x202a, 0x202e) &&
         !is_within(0x2060, 0x206f) && !is_within(0xe000, 0xf8ff) && point != 0xfeff && point < 0xe0000;
}

/// A string as Python's repr writes it.
void quote(std::string_view text, std::string& out) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char mark = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  out += mark;
  for (size_t at = 0; at < text.size();) {
    const char32_t point = next_point(text, at);
    if (point == '\\' || point == static_cast<char32_t>(mark)) {
      out += '\\';
      append_point(out, point);
    } else if (point == '\n') {
      out += "\\n";
    } else if (point == '\r') {
      out += "\\r";
    } else if (point == '\t') {
      out += "\\t";
    } else if (point < 0x20 || (point >= 0x7f && point <= 0xa0) || point == 0xad) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(point));
    } else if (point != ' ' && !is_printable(point)) {
      out += point < 0x10000 ? fmt::format("\\u{:04x}", static_cast<uint32_t>(point))
                             : fmt::format("\\U{:08x}", static_cast<uint32_t>(point));
    } else {
      append_point(out, point);
    }
  }
  out += mark;
}

}  // namespace

std::string_view type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
      return "undefined";
    case Kind::none:
      return "None";
    case Kind::boolean:
      return "bool";
    case Kind::integer:
      return "int";
    case Kind::real:
      return "float";
    case Kind::string:
      return "str";
    case Kind::list:
      return value.list().type == Sequence::tuple ? "tuple" : "list";
    case Kind::dict:
      return "dict";
    case Kind::name_space:
      return "namespace";
    case Kind::loop:
      return "loop";
    case Kind::callable:
      return "function";
  }
  return "value";
}

std::string real_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[40];
  const double size = std::fabs(value);
  const bool is_plain = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value,
                                 is_plain ? std::chars_format::fixed : std::chars_format::scientific)
                       .ptr;
  std::string text(buffer, end);
  if (is_plain && text.find('.') == std::string::npos) text += ".0";
  return text;
}

bool Machine::truth(const Value& value) const {
  switch (value.kind()) {
    case Kind::undefined:
    case Kind::none:
      return false;
    case Kind::boolean:
      return value.boolean();
    case Kind::integer:
      return value.integer() != 0;
    case Kind::real:
      return value.real() != 0;
    case Kind::string:
      return !value.string().empty();
    case Kind::list:
      return !value.list().items.empty();
    case Kind::dict:
      return !value.dict().items.empty();
    default:
      return true;
  }
}

bool Machine::equal(const Value& a, const Value& b) {
  const Depth depth(*this);
  step();
  if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
  if (a.is_number() && b.is_number()) return a.real() == b.real();
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::undefined:
    case Kind::none:
      return true;
    case Kind::string:
      step_text(std::min(a.string().size(), b.string().size()));
      return a.string() == b.string();
    case Kind::list: {
      const List &x = a.list(), &y = b.list();
      return x.type == y.type && x.items.size() == y.items.size() &&
             std::equal(x.items.begin(), x.items.end(), y.items.begin(),
                        [this](const Value& p, const Value& q) { return equal(p, q); });
    }
    case Kind::dict: {
      const Dict &x = a.dict(), &y = b.dict();
      return x.items.size() == y.items.size() &&
             std::all_of(x.items.begin(), x.items.end(), [&](const auto& entry) {
               const Value* other = find(y, entry.first);
               return other != nullptr && equal(entry.second, *other);
             });
    }
    default:
      return a.same_object(b);
  }
}

bool Machine::less(const Value& a, const Value& b) {
  const Depth depth(*this);
  step();
  if (a.is_undefined()) raise_undefined(a);
  if (b.is_undefined()) raise_undefined(b);
  if (a.is_integral() && b.is_integral()) return a.integer() < b.integer();
  if (a.is_number() && b.is_number()) return a.real() < b.real();
  if (a.is(Kind::string) && b.is(Kind::string)) {
    step_text(std::min(a.string().size(), b.string().size()));
    return a.string() < b.string();  // UTF-8 sorts as its code points do
  }
  if (a.is(Kind::list) && b.is(Kind::list) && a.list().type == b.list().type) {
    const auto &x = a.list().items, &y = b.list().items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(x[i], y[i])) return less(x[i], y[i]);
    }
    return x.size() < y.size();
  }
  raise("'<' is not defined between {} and {}", type_name(a), type_name(b));
}

bool Machine::contains(const Value& container, const Value& item) {
  step();
  switch (container.kind()) {
    case Kind::undefined:
      return false;
    case Kind::string:
      if (item.is_undefined()) raise_undefined(item);
      if (!item.is(Kind::string)) raise("'in <string>' needs a string on its left, not {}", type_name(item));
      step_text(container.string().size());
      return container.string().find(item.string()) != std::string::npos;
    case Kind::list:
      return std::any_of(container.list().items.begin(), container.list().items.end(),
                         [&](const Value& entry) { return equal(entry, item); });
    case Kind::dict:
      return find(container.dict(), item) != nullptr;
    default:
      raise("a {} cannot be searched with 'in'", type_name(container));
  }
}

std::string Machine::text(const Value& value) {
  if (value.is_undefined()) return {};
  if (value.is(Kind::string)) {
    step_text(value.string().size());
    return value.string();
  }
  std::string out;
  repr(value, out);
  return out;
}

void Machine::repr(const Value& value, std::string& out) {
  const Depth depth(*this);
  step();
  switch (value.kind()) {
    case Kind::undefined:
      out += "Undefined";
      return;
    case Kind::none:
      out += "None";
      return;
    case Kind::boolean:
      out += value.boolean() ? "True" : "False";
      return;
    case Kind::integer:
      out += std::to_string(value.integer());
      return;
    case Kind::real:
      out += real_text(value.real());
      return;
    case Kind::string:
      step_text(value.string().size());
      expect_bytes(out.size() + value.string().size());
      quote(value.string(), out);
      return;
    case Kind::list: {
      const List& list = value.list();
      const bool is_tuple = list.type == Sequence::tuple;
      out += is_tuple ? '(' : '[';
      for (size_t i = 0; i < list.items.size(); ++i) {
        if (i > 0) out += ", ";
        repr(list.items[i], out);
      }
      if (is_tuple && list.items.size() == 1) out += ',';
      out += is_tuple ? ')' : ']';
      return;
    }
    case Kind::dict: {
      out += '{';
      for (size_t i = 0; i < value.dict().items.size(); ++i) {
        if (i > 0) out += ", ";
        repr(value.dict().items[i].first, out);
        out += ": ";
        repr(value.dict().items[i].second, out);
      }
      out += '}';
      return;
    }
    default:
      raise("a {} cannot be printed", type_name(value));
  }
}

std::vector<Value> Machine::iterate(const Value& value) {
  step();
  std::vector<Value> items;
  switch (value.kind()) {
    case Kind::undefined:
      break;
    case Kind::list:
      items = value.list().items;
      break;
    case Kind::dict:
      for (const auto& entry : value.dict().items) items.push_back(entry.first);
      break;
    case Kind::string:
      for (size_t at = 0; at < value.string().size();) {
        const size_t start = at;
        next_point(value.string(), at);
        items.push_back(string(value.string().substr(start, at - start)));
      }
      break;
    default:
      raise("a {} cannot be looped over", type_name(value));
  }
  step(static_cast<int64_t>(items.size() / 8));
  return items;
}

int64_t Machine::length(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
      return 0;
    case Kind::string:
      step_text(value.string().size());
      return count_points(value.string());
    case Kind::list:
      return static_cast<int64_t>(value.list().items.size());
    case Kind::dict:
      return static_cast<int64_t>(value.dict().items.size());
    case Kind::loop:
      return static_cast<int64_t>(value.loop().items->size());
    default:
      raise("a {} has no length", type_name(value));
  }
}

}  // namespace ptrain::jinja
