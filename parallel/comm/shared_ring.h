// A ring of operations in memory that other processes of the host can read: of a rank that is stopped or
// dead, they still see to the last word what it did. Not for writing from outside.
#pragma once

#include <string>

#include "parallel/comm/op_ring.h"

namespace ptrain {

/// Memory of a ring; unmapped when it goes. Empty where there is none.
class RingMemory {
 public:
  RingMemory() = default;
  RingMemory(int file, bool is_writable);
  RingMemory(RingMemory&& other) noexcept;
  RingMemory& operator=(RingMemory&& other) noexcept;
  ~RingMemory();

  void* data() const { return data_; }
  const OpRing* ring() const { return static_cast<const OpRing*>(data_); }

 private:
  void* data_ = nullptr;
};

/// A ring of this process.
class SharedRing {
 public:
  /// Where the system gives no such memory, an ordinary ring that nobody else can read.
  SharedRing();
  ~SharedRing();
  SharedRing(const SharedRing&) = delete;
  SharedRing& operator=(const SharedRing&) = delete;

  OpRing& ring() { return *ring_; }
  const OpRing& ring() const { return *ring_; }
  /// How other processes find it: "1234 7 ptrain-ring-1234-99"; empty where they cannot.
  const std::string& address() const { return address_; }

 private:
  int file_ = -1;
  RingMemory memory_;
  OpRing* ring_ = nullptr;
  std::string address_;
};

/// The ring of another process of this host, read-only; empty where it cannot be had: another host, another
/// container, another user.
RingMemory open_ring(const std::string& address);

}  // namespace ptrain
