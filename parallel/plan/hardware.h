// What a rank may run on, in numbers: small tables for estimates. Not measured here, and not for choosing
// devices.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ptrain {

struct Hardware {
  std::string name;
  double peak_flops = 0;           // a rank's dense matrix products, 16-bit on a GPU, f32 on a CPU
  double reachable = 0;            // share of the peak that the products of a training step reach; assumed
  int64_t memory_bytes = 0;        // a rank's, as the driver reports it
  int64_t reserved_bytes = 0;      // of it for the device's context and libraries; assumed
  double memory_bytes_per_s = 0;   // reading or writing
  double link_bytes_per_s = 0;     // of a rank to another of its node, one way, on paper
  double network_bytes_per_s = 0;  // of a rank to another node, one way, on paper: its share of the node's
  double links_reach = 1;          // share of both that collectives of large messages reach
  double network_reaches = 1;
  int ranks_per_node = 8;
  /// A collective whose group has k ranks on a node uses the shares of all k: rings leave a node once. False:
  /// every rank talks to every other on its own share.
  bool has_rings = false;
  double host_link_bytes_per_s = 0;  // between a device and its host, one way; 0 = the rank is the host
  int64_t host_memory_bytes = 0;     // a rank's share of the host's
  double host_bytes_per_s = 0;       // a rank's share of the host's memory bandwidth; assumed
  std::string source;                // of the numbers
};

/// h200, h100, a100-80, a100-40, a10g, l4, or cpu:GIB, with that much memory a rank.
/// Errors: ExitCode::usage naming the known ones.
Hardware hardware_of(std::string_view name);

/// No machine: a FLOP a second, everything else free, so that plans compare by FLOPs and bubbles alone.
/// `memory_bytes`: what a rank may hold; empty = anything.
Hardware ideal_hardware(std::optional<int64_t> memory_bytes);

/// An instance of a cloud, as it is rented.
struct InstanceKind {
  std::string name;  // "p4d.24xlarge"
  std::string hardware;
  int gpus = 8;
  double network_bytes_per_s = 0;  // of the whole instance, one way
  int64_t memory_bytes = 0;        // of its host
};
std::vector<InstanceKind> instance_kinds();

/// Errors: ExitCode::usage naming the known ones. "ml." in front (SageMaker's names) is left out.
InstanceKind instance_kind_of(std::string_view name);

/// The hardware of an instance's ranks, a GPU each.
Hardware hardware_of(const InstanceKind& kind);

}  // namespace ptrain
