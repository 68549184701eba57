#include "src/train/price_file.h"

#include <charconv>
#include <cmath>

#include "kernels/base/error.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "src/train/yaml_door.h"

namespace ptrain {
namespace {

double price_of(const YamlNode& node, const std::string& where) {
  double price = 0;
  const char* end = node.text.data() + node.text.size();
  const auto [stop, error] = std::from_chars(node.text.data(), end, price);
  const bool is_number = node.kind == YamlNode::Kind::scalar && !node.is_quoted && error == std::errc() &&
                         stop == end && std::isfinite(price);
  check(is_number && price > 0, ExitCode::usage,
        "{}:{}:{}: the price of {} must be a number above zero, an hour of one instance, not {}", where,
        node.line, node.column, node.key, describe(node));
  return price;
}

}  // namespace

std::vector<Price> read_prices(const std::filesystem::path& file) {
  const std::string where = file.string();
  const YamlNode root = parse_yaml(read_text(file, 1 << 20), where);
  check(root.kind == YamlNode::Kind::map && !root.items.empty(), ExitCode::usage,
        "{}: prices are a map from instance kinds to a price an hour, such as p4d.24xlarge: 12.5; this is {}",
        where, describe(root));
  std::vector<Price> prices;
  for (const YamlNode& item : root.items) {
    try {
      prices.push_back(
          {.name = item.key, .kind = instance_kind_of(item.key), .per_hour = price_of(item, where)});
    } catch (const Error& error) {
      const std::string what = error.what();
      if (what.starts_with(where)) throw;
      fail(error.code(), "{}:{}:{}: {}", where, item.key_line, item.key_column, what);
    }
  }
  return prices;
}

}  // namespace ptrain
