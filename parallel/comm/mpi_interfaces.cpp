#include "parallel/comm/mpi_interfaces.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>

#include <algorithm>
#include <charconv>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

/// "10.0.0.0/16". A network that we cannot read, of IPv6 say, is MPI's business: it counts as being here.
bool is_in_network(const HostInterface& interface, std::string_view network) {
  const size_t slash = network.find('/');
  in_addr base{};
  int bits = -1;
  std::from_chars(network.data() + slash + 1, network.data() + network.size(), bits);
  const std::string address(network.substr(0, slash));
  if (bits < 0 || bits > 32 || inet_pton(AF_INET, address.c_str(), &base) != 1) return true;
  const uint32_t mask = bits == 0 ? 0 : ~uint32_t{0} << (32 - bits);
  return std::ranges::any_of(interface.addresses,
                             [&](uint32_t one) { return (one & mask) == (ntohl(base.s_addr) & mask); });
}

bool is_meant(const HostInterface& interface, std::string_view include) {
  while (!include.empty()) {
    const std::string_view one = include.substr(0, include.find(','));
    include.remove_prefix(std::min(include.size(), one.size() + 1));
    const bool is_network = one.find('/') != std::string_view::npos;
    if (is_network ? is_in_network(interface, one) : one == interface.name) return true;
  }
  return false;
}

}  // namespace

std::vector<HostInterface> host_interfaces() {
  std::vector<HostInterface> interfaces;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return interfaces;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if ((entry->ifa_flags & IFF_UP) == 0) continue;
    auto it = std::ranges::find(interfaces, entry->ifa_name, &HostInterface::name);
    if (it == interfaces.end())
      it = interfaces.insert(it, {entry->ifa_name, (entry->ifa_flags & IFF_LOOPBACK) != 0, {}});
    if (entry->ifa_addr != nullptr && entry->ifa_addr->sa_family == AF_INET)
      it->addresses.push_back(ntohl(reinterpret_cast<const sockaddr_in*>(entry->ifa_addr)->sin_addr.s_addr));
  }
  freeifaddrs(list);
  return interfaces;
}

std::string objection_to_interfaces(std::string_view include, std::span<const HostInterface> here) {
  if (include.empty() || here.empty()) return {};
  bool is_here = false;
  std::string others;
  for (const HostInterface& interface : here) {
    if (is_meant(interface, include)) {
      if (!interface.is_loopback) return {};
      is_here = true;
    }
    if (!interface.is_loopback) others += (others.empty() ? "" : ", ") + interface.name;
  }
  return fmt::format(
      "OMPI_MCA_btl_tcp_if_include={} names {}, by which MPI reaches no other host (this one has {}); name "
      "another one or its network (10.0.0.0/16), or unset it",
      include, is_here ? "the loopback alone" : "no interface of this host",
      others.empty() ? "none but the loopback" : others);
}

}  // namespace ptrain
