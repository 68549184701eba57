#include "src/data/special_tokens.h"

#include <set>

#include "src/io/json.h"

namespace ptrain {

std::vector<std::string> read_special_tokens(const std::filesystem::path& path) {
  constexpr int64_t most_bytes = int64_t{1} << 20;
  const std::string where = path.string();
  const Json file = read_json(path, most_bytes);
  check(file.is_object(), ExitCode::input, "{}: is {}, expected {{\"tokens\": [\"[SEP]\", …]}}", where,
        kind_of(file));
  for (const auto& [key, value] : file.items())
    check(key == "tokens", ExitCode::input, "{}: unknown key \"{}\"; there is \"tokens\" alone", where, key);
  const Json& list = member(file, "tokens", where);
  check(list.is_array() && !list.empty(), ExitCode::input,
        "{}: \"tokens\" is {}, expected a list of one token at least", where,
        list.is_array() ? "empty" : kind_of(list));
  std::vector<std::string> tokens;
  std::set<std::string> seen;
  for (size_t i = 0; i < list.size(); ++i) {
    tokens.push_back(json_cast<std::string>(list[i], fmt::format("tokens[{}]", i), where));
    check(!tokens.back().empty(), ExitCode::input, "{}: tokens[{}] is empty", where, i);
    check(seen.insert(tokens.back()).second, ExitCode::input, "{}: tokens[{}], {}, is there twice", where, i,
          list[i].dump());
  }
  return tokens;
}

}  // namespace ptrain
