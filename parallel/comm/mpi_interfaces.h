// Whether MPI can reach other hosts by the interfaces that OMPI_MCA_btl_tcp_if_include names: looked at
// before MPI starts, which with a wrong name stops without a word of what to do, or waits for ever. NCCL's
// variables are judged in parallel/plan/network.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ptrain {

/// An interface of this host that is up.
struct HostInterface {
  std::string name;
  bool is_loopback = false;
  std::vector<uint32_t> addresses;  // IPv4, the first byte the highest
};
std::vector<HostInterface> host_interfaces();

/// Why no other host can be reached by these interfaces; empty = nothing speaks against it. `include`: names
/// and networks, "eth0,10.0.0.0/16". It is enough that one of them is here: hosts may name theirs
/// differently.
std::string objection_to_interfaces(std::string_view include, std::span<const HostInterface> here);

}  // namespace ptrain
