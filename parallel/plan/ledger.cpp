#include "parallel/plan/ledger.h"

#include "kernels/base/error.h"

namespace ptrain {

std::string_view name_of(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::weights:
      return "weights";
    case MemoryKind::gradients:
      return "gradients";
    case MemoryKind::master:
      return "master weights";
    case MemoryKind::moments:
      return "moments";
    case MemoryKind::activations:
      return "activations";
    case MemoryKind::communication:
      return "communication";
    case MemoryKind::scratch:
      return "scratch";
  }
  return "?";
}

void Ledger::book(std::string name, MemoryKind kind, int64_t bytes, int64_t count) {
  check(bytes >= 0 && count >= 0, "{} books {} times {} bytes", name, count, bytes);
  if (bytes == 0 || count == 0) return;
  const int64_t rounded = (bytes + ledger_alignment - 1) / ledger_alignment * ledger_alignment;
  entries.push_back({.name = std::move(name), .kind = kind, .bytes = rounded, .count = count});
}

int64_t Ledger::bytes(MemoryKind kind) const {
  int64_t sum = 0;
  for (const LedgerEntry& entry : entries) {
    if (entry.kind == kind) sum += entry.bytes * entry.count;
  }
  return sum;
}

int64_t Ledger::total_bytes() const {
  int64_t sum = 0;
  for (const LedgerEntry& entry : entries) sum += entry.bytes * entry.count;
  return sum;
}

std::string bytes_text(double bytes) {
  constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  int unit = 0;
  while (bytes >= 1000 && unit < 5) {
    bytes /= 1024;
    ++unit;
  }
  if (unit == 0) return fmt::format("{:.0f} B", bytes);
  return fmt::format("{:.{}f} {}", bytes, bytes < 9.995 ? 2 : bytes < 99.95 ? 1 : 0, units[unit]);
}

}  // namespace ptrain
