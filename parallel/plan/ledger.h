// Who takes how much memory: booked in the plan, then granted by the arena under the same sizes. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ptrain {

enum class MemoryKind : uint8_t {
  weights,
  gradients,
  master,
  moments,
  activations,
  communication,
  scratch,
};
inline constexpr int memory_kinds = 7;
std::string_view name_of(MemoryKind kind);

struct LedgerEntry {
  std::string name;
  MemoryKind kind = MemoryKind::weights;
  int64_t bytes = 0;  // of one, rounded up to ledger_alignment
  int64_t count = 1;  // of equal grants (slots)
};

inline constexpr int64_t ledger_alignment = 64;  // what the arena aligns to

struct Ledger {
  std::vector<LedgerEntry> entries;

  /// Books `count` grants of `bytes` each, rounded up. Nothing is booked for 0 bytes or a count of 0.
  void book(std::string name, MemoryKind kind, int64_t bytes, int64_t count = 1);
  int64_t bytes(MemoryKind kind) const;
  int64_t total_bytes() const;
};

/// "16.0 GiB", "3.2 MiB", "12 B"
std::string bytes_text(double bytes);

}  // namespace ptrain
