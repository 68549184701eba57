// Values written as JSON, character for character as Python's json module writes them.
#include <cmath>

#include "src/data/chat_template/machine.h"

namespace ptrain::jinja {
namespace {

void json_quote(std::string_view text, std::string& out) {
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

std::string json_real(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return real_text(value);
}

class JsonWriter {
 public:
  JsonWriter(Machine& machine, int64_t indent) : machine_(machine), indent_(indent) {}

  void write(const Value& value, int64_t level) {
    const Machine::Depth depth(machine_);
    machine_.step();
    switch (value.kind()) {
      case Kind::none:
        out += "null";
        return;
      case Kind::boolean:
        out += value.boolean() ? "true" : "false";
        return;
      case Kind::integer:
        out += std::to_string(value.integer());
        return;
      case Kind::real:
        out += json_real(value.real());
        return;
      case Kind::string:
        machine_.step_text(value.string().size());
        machine_.expect_bytes(out.size() + value.string().size());
        json_quote(value.string(), out);
        return;
      case Kind::list:
        write_list(value.list(), level);
        return;
      case Kind::dict:
        write_dict(value.dict(), level);
        return;
      case Kind::undefined:
        machine_.raise_undefined(value);
      default:
        machine_.raise("a {} cannot be written as JSON", type_name(value));
    }
  }

  std::string out;

 private:
  void new_line(int64_t level) {
    if (indent_ < 0) return;
    out += '\n';
    machine_.step_text(static_cast<size_t>(indent_ * level));
    machine_.expect_bytes(out.size() + static_cast<size_t>(indent_ * level));
    out.append(static_cast<size_t>(indent_ * level), ' ');
  }
  void separate(bool is_first, int64_t level) {
    if (!is_first) out += indent_ < 0 ? ", " : ",";
    new_line(level + 1);
  }

  void write_list(const List& list, int64_t level) {
    out += '[';
    for (size_t i = 0; i < list.items.size(); ++i) {
      separate(i == 0, level);
      write(list.items[i], level + 1);
    }
    if (!list.items.empty()) new_line(level);
    out += ']';
  }

  void write_dict(const Dict& dict, int64_t level) {
    out += '{';
    for (size_t i = 0; i < dict.items.size(); ++i) {
      const Value& key = dict.items[i].first;
      separate(i == 0, level);
      if (key.is(Kind::string)) {
        json_quote(key.string(), out);
      } else if (key.is_number() || key.is(Kind::none)) {
        out += '"';
        write(key, level);
        out += '"';
      } else {
        machine_.raise("a {} cannot be a key in JSON", type_name(key));
      }
      out += ": ";
      write(dict.items[i].second, level + 1);
    }
    if (!dict.items.empty()) new_line(level);
    out += '}';
  }

  Machine& machine_;
  int64_t indent_;
};

}  // namespace

std::string to_json(Machine& machine, const Value& value, int64_t indent) {
  JsonWriter writer(machine, indent);
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace ptrain::jinja
