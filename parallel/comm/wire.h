// What a backend must do so that WiredCommunicator can build everything else on it: messages between pairs of
// ranks. Not for use above parallel/comm.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace ptrain {

/// Posted messages are known by tickets. Messages of one (sender, receiver, tag) fill the receives in the
/// order of posting. Used by one thread.
class Wire {
 public:
  Wire() = default;
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;
  virtual ~Wire() = default;  // lets go of what is unfinished, without communication

  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// Never blocks. `peer` may be this rank. Tags are from 0 to 32767.
  virtual int post_send(const void* data, int64_t bytes, int peer, int tag) = 0;
  virtual int post_receive(void* data, int64_t bytes, int peer, int tag) = 0;
  virtual bool is_done(int ticket) const = 0;
  /// The ticket's number is free again. An unfinished message is taken back where that is possible.
  virtual void release(int ticket) noexcept = 0;

  /// Moves messages along. Errors: a lost peer; a message of another length than its receive (defect).
  virtual void progress() = 0;
  /// Called when nothing has moved since the last progress(), `times` times in a row: lets others run.
  virtual void relax(int times) = 0;

  /// A wire of its own for `members`: ranks of this wire in the order of their new ranks, this rank among
  /// them. Every member calls; several groups may be made at once, told apart by `color`. With no members
  /// (and a negative color) this rank only takes part in the call and gets nullptr.
  virtual std::unique_ptr<Wire> split(int color, std::span<const int> members) = 0;
};

}  // namespace ptrain
