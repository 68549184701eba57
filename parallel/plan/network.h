// From what was found of a cluster's network to what NCCL and libfabric are told. Pure: nothing is looked up
// and nothing is set here; parallel/comm/network_probe collects the report, launch/ sets the variables.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ptrain {

/// 0.0.0 where a version is not known.
struct Version {
  int major = 0;
  int minor = 0;
  int patch = 0;

  bool is_known() const { return major != 0 || minor != 0 || patch != 0; }
  auto operator<=>(const Version&) const = default;
};
/// The number that a text begins with; what follows it is skipped. "1.16.0~amzn3.0": 1.16.0;
/// "2.1amzn": 2.1.0; not known where it begins with no digit.
Version parse_version(std::string_view text);
/// NCCL's own way to count: 22809 = 2.28.9, 0 = not there. Holds from NCCL 2.9 on.
Version nccl_version_of(int number);
std::string to_string(Version version);  // "1.16.0", "unknown"

/// What carries the bytes between hosts. none: there is one host. unknown: nobody can tell yet.
enum class NetworkKind : uint8_t { unknown, none, tcp, roce, infiniband, efa };
std::string_view name_of(NetworkKind kind);  // "EFA", "InfiniBand", "RoCE", "TCP", …

/// A device of /sys/class/infiniband.
struct RdmaDevice {
  std::string name;                       // mlx5_0, rdmap16s27
  NetworkKind kind = NetworkKind::roce;   // efa, infiniband or roce
  bool is_active = true;                  // its port has a link
  double gbit_per_s = 0;                  // 0 = not told
  int roce_v2_gid = -1;                   // index of its RoCE v2 address over IPv4; -1 = none found
  std::optional<int> traffic_class = {};  // that the machine's administrator gave it
};

/// A device of /sys/class/net.
struct NetworkInterface {
  std::string name;
  bool is_up = true;
  bool is_physical = true;  // has hardware behind it; bridges and containers' ends have none
  bool has_default_route = false;
  int mbit_per_s = 0;  // 0 = not told
};

/// What was found on one host.
struct NetworkReport {
  int hosts = 1;                // of the job
  int streams = 1;              // of a rank, that may have work at the same time
  bool shares_devices = false;  // several ranks on one GPU
  std::string instance_kind;    // "p5.48xlarge"; empty outside of EC2
  Version kernel;
  std::vector<RdmaDevice> rdma;
  std::vector<NetworkInterface> interfaces;
  Version nccl;  // not known = no NCCL: nothing is decided for it
  bool has_libfabric = false;
  Version libfabric;
  std::string plugin_path;  // of aws-ofi-nccl's network plugin; empty = not found
  bool is_plugin_on_search_path = true;
  Version plugin;
  std::string tuner_path;                          // of aws-ofi-nccl's tuner; empty = not found
  std::map<std::string, std::string> set_by_user;  // of watched_variables(), those with a value
  std::string nccl_log;  // where NCCL may write its log, for network_in_nccl_log(); empty = nowhere
};

/// The variables that a report should look up: those which are set below, or judged.
std::span<const char* const> watched_variables();

struct EnvironmentSetting {
  std::string name;
  std::string value;
  std::string why;
};

/// Of ncclConfig_t and of memory estimates. An empty value is left to NCCL.
struct NcclSettings {
  int lane_min_ctas = 1;  // of a point-to-point lane: few, since they take SMs from the products
  int lane_max_ctas = 2;
  std::optional<int> traffic_class;  // of InfiniBand and RoCE
  int64_t buffer_bytes = 4 << 20;    // that each channel of a communicator takes: NCCL_BUFFSIZE
};

struct NetworkDecision {
  NetworkKind expected = NetworkKind::none;  // what NCCL should come to use
  bool has_fast_network = false;             // EFA or InfiniBand with a link is there, used or not
  std::vector<EnvironmentSetting> settings;  // to set before CUDA and NCCL start; none that the user has set
  NcclSettings nccl;
  std::vector<std::string> warnings;  // whole sentences
  std::string refusal;                // why the run should not start; empty = it may
};

enum class SlowNetwork : uint8_t { refused, allowed };  // parallel.allow_slow_network

/// The variables follow the advice for the versions found; a version that is not known counts as recent.
/// Example, p4d with aws-ofi-nccl 1.5: FI_PROVIDER=efa, NCCL_PROTO=simple, FI_EFA_USE_DEVICE_RDMA=1;
/// with 1.14 none of these, but the tuner, NCCL_BUFFSIZE and NCCL_P2P_NET_CHUNKSIZE.
NetworkDecision decide_network(const NetworkReport& report, SlowNetwork slow);

/// What NCCL said in its log (NCCL_DEBUG=INFO) of the network that it took.
struct ChosenNetwork {
  NetworkKind kind = NetworkKind::unknown;
  std::string text;  // "EFA by Libfabric, 16 devices", "RoCE, mlx5_0 mlx5_1"; empty = nothing was said
  bool is_gpudirect = false;  // the network reads and writes GPU memory itself

  bool operator==(const ChosenNetwork&) const = default;
};
ChosenNetwork network_in_nccl_log(std::string_view text);

/// Why a run whose NCCL took that network should stop; empty = it may go on.
std::string objection_to(const ChosenNetwork& chosen, const NetworkDecision& decision, SlowNetwork slow);

}  // namespace ptrain
