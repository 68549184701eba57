// The one exception type and the checks that throw it.
// Not for defects that only we can cause and that cost a branch in a hot loop: those use assert.
#pragma once

#include <fmt/core.h>

#include <concepts>
#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace ptrain {

/// What a process tells its caller (INTERFACE: exit codes). The order of the names is the order of the
/// numbers.
enum class ExitCode : int {
  done = 0,
  defect = 1,            // a defect of ptrain
  usage = 2,             // configuration, command line or launch
  input = 3,             // bad or missing model or data
  resources = 4,         // memory, disk, device
  numerical = 64,        // non-finite numbers
  no_checkpoint = 65,    // nothing usable to resume from
  hang = 66,             // a stall was found
  no_progress = 67,      // restarts do not help
  saved_on_signal = 75,  // saved after a signal, run again
};

/// The only exception that ptrain throws. what() is a whole message for the person who reads it.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message, std::source_location where)
      : std::runtime_error(message), code_(code), where_(where) {}

  ExitCode code() const { return code_; }
  const std::source_location& where() const { return where_; }  // our source line; shown for defects only

 private:
  ExitCode code_;
  std::source_location where_;
};

/// A format string that remembers where it was written, so that check() needs no macro.
template <class... Args>
struct Message {
  template <class Text>
  requires std::convertible_to<const Text&, std::string_view>
  consteval Message(const Text& text, std::source_location where = std::source_location::current())
      : text(text), where(where) {}

  fmt::format_string<Args...> text;
  std::source_location where;
};

/// Throws an Error with that exit code and the formatted message.
template <class... Args>
[[noreturn]] void fail(ExitCode code, std::type_identity_t<Message<Args...>> message, Args&&... args) {
  throw Error(code, fmt::format(message.text, std::forward<Args>(args)...), message.where);
}

/// Throws unless `ok`. `code` says whose fault it is: usage, input, resources, … The message holds the
/// values.
template <class... Args>
void check(bool ok, ExitCode code, std::type_identity_t<Message<Args...>> message, Args&&... args) {
  if (!ok) [[unlikely]] {
    throw Error(code, fmt::format(message.text, std::forward<Args>(args)...), message.where);
  }
}

/// The same for what only a defect of ptrain can cause.
template <class... Args>
void check(bool ok, std::type_identity_t<Message<Args...>> message, Args&&... args) {
  if (!ok) [[unlikely]] {
    throw Error(ExitCode::defect, fmt::format(message.text, std::forward<Args>(args)...), message.where);
  }
}

}  // namespace ptrain
