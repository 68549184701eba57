// What a rank may run on, in numbers: a small table for estimates. Not measured here, and not for choosing
// devices.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ptrain {

struct Hardware {
  std::string name;
  double peak_flops = 0;           // a rank's dense matrix products, 16-bit on a GPU, f32 on a CPU
  double reachable = 0;            // share of the peak that the products of a training step reach; assumed
  int64_t memory_bytes = 0;        // a rank's
  int64_t reserved_bytes = 0;      // of it for the device's context and libraries; assumed
  double memory_bytes_per_s = 0;   // reading or writing
  double link_bytes_per_s = 0;     // of a rank to another of its node, one way
  double network_bytes_per_s = 0;  // of a rank to another node, one way: the node's share
  int ranks_per_node = 8;
  std::string source;  // of the numbers
};

/// h200, h100, a100-80, a100-40, a10g, l4, or cpu:GIB, with that much memory a rank.
/// Errors: ExitCode::usage naming the known ones.
Hardware hardware_of(std::string_view name);

}  // namespace ptrain
