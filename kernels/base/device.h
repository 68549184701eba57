// Where memory lies and where work runs.
#pragma once

#include <cstdint>

namespace ptrain {

enum class DeviceKind : uint8_t { cpu, cuda };

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;

  constexpr bool operator==(const Device&) const = default;
};

}  // namespace ptrain
