// The configuration's keys as tables for docs/.
#include <fmt/core.h>

#include "src/train/config_keys.h"
#include "src/train/config_write.h"
#include "src/train/foreign_keys.h"

namespace ptrain {
namespace {

/// | ends a cell.
std::string cell(std::string_view text) {
  std::string safe;
  for (const char c : text) safe += c == '|' ? std::string("\\|") : std::string(1, c);
  return safe;
}

std::string values_of(const Key& key) {
  if (key.choices.empty()) return cell(expectation(key));
  std::string values;
  for (const std::string_view choice : key.choices)
    values += fmt::format("{}`{}`", values.empty() ? "" : ", ", choice);
  return values;
}

std::string default_of(const Key& key) {
  if (key.is_required) return "needed";
  return fmt::format("`{}`", cell(value_text(key, key.get(Config{}))));
}

}  // namespace

std::string config_reference() {
  std::string text =
      "# Configuration\n\nEvery key, made by `ptrain config-schema --markdown`. Each may be given on the "
      "command line by "
      "its full path,\n`--optimizer.learning_rate 1e-5`; `-` and `_` are equal, the later wins. A key that "
      "is not here is "
      "refused with its line\nand the nearest right one.\n";
  std::string_view section = "none yet";
  for (const Key& key : config_keys()) {
    const size_t dot = key.path.find('.');
    const std::string_view parent = dot == std::string_view::npos ? "" : key.path.substr(0, dot);
    if (parent != section) {
      text += fmt::format("\n{}{}\n\n| key | values | default | meaning |\n| --- | --- | --- | --- |\n",
                          parent.empty() ? "## At the top" : "## ", parent);
    }
    section = parent;
    text += fmt::format("| `{}` | {} | {} | {}{} |\n", key.path, values_of(key), default_of(key),
                        cell(key.help), key.unit.empty() ? "" : fmt::format("; in {}", key.unit));
  }
  return text;
}

std::string moving_table() {
  std::string text = "| theirs | whose | ours | how it translates |\n| --- | --- | --- | --- |\n";
  for (const ForeignKey& key : foreign_keys()) {
    text += fmt::format("| `{}` | {} | {} | {} |\n", key.name, key.whose,
                        key.ours.empty() ? std::string("–") : fmt::format("`{}`", key.ours), cell(key.note));
  }
  return text;
}

}  // namespace ptrain
