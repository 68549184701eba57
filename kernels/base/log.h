// Lines for people on stderr. stdout carries only a verb's product and is not touched here.
#pragma once

#include <fmt/format.h>

#include <string_view>

namespace ptrain::log {

enum class Level { debug, info, warning, error };

/// Set once at start by launch/; ranks other than 0 speak from `warning` up, with their rank in front.
void configure(Level level, int rank, int world);
void write(Level level, std::string_view text);

template <class... Args>
void debug(fmt::format_string<Args...> text, Args&&... args) {
  write(Level::debug, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> text, Args&&... args) {
  write(Level::info, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void warn(fmt::format_string<Args...> text, Args&&... args) {
  write(Level::warning, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace ptrain::log
