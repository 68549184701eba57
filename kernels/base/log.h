// Lines for people on stderr. stdout carries only a verb's product and is not touched here.
#pragma once

#include <fmt/core.h>

#include <string>
#include <string_view>

namespace ptrain::log {

enum class Level { debug, info, warning, error };

/// Set once at start by launch/; ranks other than 0 speak from `warning` up, with their rank in front.
void configure(Level level, int rank, int world);
/// Also writes every line of this process, those of other ranks' silence too, to the end of a file, with the
/// time in front. False where it cannot be opened: then nothing changes for stderr.
bool keep_in(const std::string& path);
/// While there is a line on the terminal that is written over and over, messages clear it first.
void set_live_line(bool is_there);
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
