#include "src/data/rows.h"

#include <algorithm>
#include <array>

#include "src/io/json.h"

namespace ptrain {
namespace {

struct ShapeKeys {
  RowShape shape;
  std::string_view name;
  std::vector<std::string_view> needed;
  std::vector<std::string_view> allowed;
};

const std::array<ShapeKeys, 7>& shapes() {
  static const std::array<ShapeKeys, 7> table = {{
      {RowShape::text, R"({"text"})", {"text"}, {}},
      {RowShape::input, R"({"input"})", {"input"}, {}},
      {RowShape::prompt_completion, R"({"prompt", "completion"})", {"prompt", "completion"}, {}},
      {RowShape::instruction, R"({"instruction", "input", "output"})", {"instruction", "output"}, {"input"}},
      {RowShape::messages, R"({"messages"})", {"messages"}, {}},
      {RowShape::conversations, R"({"conversations"})", {"conversations"}, {}},
      {RowShape::ids, R"({"input_ids", "labels"})", {"input_ids"}, {"labels"}},
  }};
  return table;
}

/// The keys that tell shapes apart; others may stand beside them.
constexpr std::string_view telling_keys[] = {"text",        "input",  "prompt",   "completion",
                                             "instruction", "output", "messages", "conversations",
                                             "input_ids",   "labels"};

std::string quoted(const std::vector<std::string_view>& keys) {
  std::string out;
  for (const std::string_view key : keys) out += fmt::format("{}\"{}\"", out.empty() ? "" : ", ", key);
  return out;
}

std::string known_shapes() {
  std::string out;
  for (const ShapeKeys& shape : shapes()) out += fmt::format("{}{}", out.empty() ? "" : ", ", shape.name);
  return out;
}

}  // namespace

std::string_view name_of(RowShape shape) {
  return shapes()[static_cast<size_t>(shape)].name;
}

bool needs_tokenizer(RowShape shape) {
  return shape != RowShape::ids;
}

RowShape RowEncoder::shape_of(const Json& row, std::string_view where) const {
  check(row.is_object(), ExitCode::input, "{}: a row is {}, expected an object", where, kind_of(row));
  std::vector<std::string_view> found;
  for (const std::string_view key : telling_keys) {
    if (row.contains(std::string(key))) found.push_back(key);
  }
  const auto has = [](const std::vector<std::string_view>& keys, std::string_view key) {
    return std::find(keys.begin(), keys.end(), key) != keys.end();
  };
  for (const ShapeKeys& shape : shapes()) {
    const bool has_needed =
        std::all_of(shape.needed.begin(), shape.needed.end(), [&](auto key) { return has(found, key); });
    const bool has_others = std::any_of(found.begin(), found.end(), [&](auto key) {
      return !has(shape.needed, key) && !has(shape.allowed, key);
    });
    if (has_needed && !has_others) return shape.shape;
  }
  if (found.empty()) {
    fail(ExitCode::input, "{}: no known key in this row; a row is one of {}", where, known_shapes());
  }
  fail(ExitCode::input, "{}: the keys {} together are no known shape of row; a row is one of {}", where,
       quoted(found), known_shapes());
}

}  // namespace ptrain
