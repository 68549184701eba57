// Errors that ranks find together: all leave in order, one speaks. Not for an error of one rank while others
// communicate: that is Session::abort.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "kernels/base/error.h"
#include "parallel/comm/communicator.h"

namespace ptrain {

/// An Error that all ranks know of: each leaves in order with its code, and one of them speaks.
class AgreedError : public Error {
 public:
  /// Which ranks have found it: where some have not, the speaker's host is part of the message.
  enum class FoundBy : uint8_t { all, some };

  AgreedError(const Error& error, bool is_speaker, FoundBy found_by = FoundBy::all)
      : Error(error), is_speaker_(is_speaker), found_by_(found_by) {}

  bool is_speaker() const { return is_speaker_; }
  FoundBy found_by() const { return found_by_; }

 private:
  bool is_speaker_;
  FoundBy found_by_;
};

/// A collective: tells every rank whether one has an error. Returns where none has; else throws an
/// AgreedError on every rank, with the code and text of the lowest rank that has one.
void agree(Communicator& world, const std::optional<Error>& mine);

/// For work between collectives that go on whatever happens: once a piece of it has failed, later ones are
/// left out.
class FirstError {
 public:
  /// What `work` throws is noted, whatever it is.
  void tried(const std::function<void()>& work);
  void note(const std::optional<Error>& other) {
    if (!error_) error_ = other;
  }
  /// What to agree() on.
  const std::optional<Error>& error() const { return error_; }

 private:
  std::optional<Error> error_;
};

/// Runs `work`, which must not communicate, on every rank; an Error of any becomes an AgreedError of all.
void agreed(Communicator& world, const std::function<void()>& work);

/// A collective, for what must be alike on all hosts: an AgreedError of all where a rank's text is neither
/// empty nor that of rank 0. `objection` makes the message of a rank that differs.
void agree_alike(Communicator& world, ExitCode code, std::string_view mine,
                 const std::function<std::string(std::string_view first)>& objection);

/// The first line in which two texts differ, as `mine` and `first` have it; empty where one has none.
struct DifferentLines {
  std::string_view mine, first;
};
DifferentLines first_difference(std::string_view mine, std::string_view first);

}  // namespace ptrain
