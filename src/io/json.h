// The door to JSON: strict parsing of strangers' files, order of keys kept.
// Refused with file:line:column: malformed text, duplicate names, nesting deeper than 64, anything after the
// value.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "kernels/base/error.h"
#include "src/io/json_fwd.h"

namespace ptrain {

/// Parses one JSON value. `where` names the source in messages, `first_line` its first line's number there;
/// 0: `where` names the line already. Errors: ExitCode::input.
Json parse_json(std::string_view text, std::string_view where, int first_line = 1);

/// Reads and parses a whole file of at most `max_bytes`. Errors: ExitCode::input, with the path.
Json read_json(const std::filesystem::path& path, int64_t max_bytes = int64_t{256} << 20);

/// object[key]. Errors: ExitCode::input naming `where` and the key.
const Json& member(const Json& object, std::string_view key, std::string_view where);
/// object[key] as T. Errors: ExitCode::input naming `where`, the key, what was found and what was expected.
template <class T>
T required(const Json& object, std::string_view key, std::string_view where);
template <class T>
T optional_or(const Json& object, std::string_view key, T fallback, std::string_view where);

// ---- templates below ----

/// "a string", "an array", … for messages.
std::string_view kind_of(const Json& value);
[[noreturn]] void wrong_kind(const Json& value, std::string_view key, std::string_view expected,
                             std::string_view where);

template <class T>
T json_cast(const Json& value, std::string_view key, std::string_view where) {
  if constexpr (std::is_same_v<T, bool>) {
    if (!value.is_boolean()) wrong_kind(value, key, "true or false", where);
  } else if constexpr (std::is_integral_v<T>) {
    if (!value.is_number_integer()) wrong_kind(value, key, "an integer", where);
    if (value.is_number_unsigned() &&
        value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<T>::max())) {
      wrong_kind(value, key, "a smaller integer", where);
    }
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!value.is_number()) wrong_kind(value, key, "a number", where);
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!value.is_string()) wrong_kind(value, key, "a string", where);
  }
  return value.get<T>();
}

template <class T>
T required(const Json& object, std::string_view key, std::string_view where) {
  return json_cast<T>(member(object, key, where), key, where);
}

template <class T>
T optional_or(const Json& object, std::string_view key, T fallback, std::string_view where) {
  const auto it = object.find(std::string(key));
  if (it == object.end() || it->is_null()) return fallback;
  return json_cast<T>(*it, key, where);
}

}  // namespace ptrain
