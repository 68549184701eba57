// What NCCL and libfabric are told, over a table of clusters, and what is said of the user's own variables.
#include "parallel/plan/network.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

namespace ptrain {
namespace {

using Settings = std::map<std::string, std::string>;

const std::vector<NetworkInterface> two_interfaces = {
    {.name = "ens5", .has_default_route = true, .mbit_per_s = 10000}, {.name = "ens6", .mbit_per_s = 100000}};

/// Several hosts with plain Ethernet and recent software.
NetworkReport ethernet() {
  NetworkReport report;
  report.hosts = 2;
  report.kernel = {6, 1, 0};
  report.nccl = {2, 28, 9};
  report.interfaces = two_interfaces;
  return report;
}

NetworkReport ec2(std::string kind, int nics, Version plugin, Version libfabric) {
  NetworkReport report = ethernet();
  report.instance_kind = std::move(kind);
  for (int i = 0; i < nics; ++i)
    report.rdma.push_back({.name = "rdmap" + std::to_string(i), .kind = NetworkKind::efa, .gbit_per_s = 100});
  report.has_libfabric = true;
  report.libfabric = libfabric;
  report.plugin_path = "/opt/amazon/ofi-nccl/lib/libnccl-net.so";
  report.plugin = plugin;
  if (plugin >= Version{1, 8, 0}) report.tuner_path = "/opt/amazon/ofi-nccl/lib/libnccl-ofi-tuner.so";
  return report;
}

NetworkReport verbs(NetworkKind kind, Version nccl) {
  NetworkReport report = ethernet();
  report.nccl = nccl;
  report.rdma = {
      {.name = "mlx5_0", .kind = kind, .is_active = false, .roce_v2_gid = 1},
      {.name = "mlx5_1", .kind = kind, .gbit_per_s = 400, .roce_v2_gid = kind == NetworkKind::roce ? 3 : -1}};
  return report;
}

Settings of(const NetworkDecision& decision) {
  Settings settings;
  for (const EnvironmentSetting& one : decision.settings) {
    EXPECT_FALSE(one.why.empty()) << one.name;
    EXPECT_TRUE(settings.emplace(one.name, one.value).second) << one.name << " twice";
  }
  return settings;
}

std::string warnings(const NetworkDecision& decision) {
  std::string text;
  for (const std::string& warning : decision.warnings) text += warning + "\n";
  return text;
}

const Settings interface_only = {{"NCCL_SOCKET_IFNAME", "=ens6"}};

Settings with_interface(Settings settings) {
  settings.insert(interface_only.begin(), interface_only.end());
  return settings;
}

const Settings recent_efa =
    with_interface({{"NCCL_TUNER_PLUGIN", "/opt/amazon/ofi-nccl/lib/libnccl-ofi-tuner.so"},
                    {"NCCL_BUFFSIZE", "8388608"},
                    {"NCCL_P2P_NET_CHUNKSIZE", "524288"}});

TEST(Network, EachClusterGetsWhatItsSoftwareNeeds) {
  NetworkReport laptop;
  laptop.nccl = {2, 28, 9};
  laptop.interfaces = two_interfaces;
  NetworkReport old_kernel = ec2("p4d.24xlarge", 4, {1, 14, 0}, {2, 1, 0});
  old_kernel.kernel = {5, 10, 210};
  NetworkReport hidden_plugin = ec2("p5.48xlarge", 32, {1, 14, 0}, {2, 1, 0});
  hidden_plugin.is_plugin_on_search_path = false;
  Settings hidden_settings = recent_efa;
  hidden_settings["NCCL_NET_PLUGIN"] = hidden_plugin.plugin_path;
  Settings old_kernel_settings = recent_efa;
  old_kernel_settings["FI_EFA_FORK_SAFE"] = "1";
  Settings recent_without_tuner = recent_efa;
  recent_without_tuner.erase("NCCL_TUNER_PLUGIN");
  NetworkReport no_nccl = verbs(NetworkKind::infiniband, {});
  const struct {
    const char* cluster;
    NetworkReport report;
    NetworkKind expected;
    Settings settings;
  } rows[] = {
      {"laptop", laptop, NetworkKind::none, {}},
      {"Ethernet", ethernet(), NetworkKind::tcp, interface_only},
      {"p4d, plugin 1.5", ec2("p4d.24xlarge", 4, {1, 5, 0}, {1, 16, 0}), NetworkKind::efa,
       with_interface({{"FI_PROVIDER", "efa"}, {"NCCL_PROTO", "simple"}, {"FI_EFA_USE_DEVICE_RDMA", "1"}})},
      {"p4d, plugin 1.6", ec2("p4d.24xlarge", 4, {1, 6, 0}, {1, 18, 0}), NetworkKind::efa,
       with_interface({{"FI_EFA_USE_DEVICE_RDMA", "1"}})},
      {"p4d, libfabric 1.17", ec2("p4d.24xlarge", 4, {1, 7, 0}, {1, 17, 1}), NetworkKind::efa,
       with_interface({{"FI_EFA_USE_DEVICE_RDMA", "1"}})},
      {"p4d, plugin 1.7", ec2("p4d.24xlarge", 4, {1, 7, 0}, {1, 18, 0}), NetworkKind::efa,
       recent_without_tuner},
      {"p4de, plugin 1.14", ec2("p4de.24xlarge", 4, {1, 14, 0}, {2, 1, 0}), NetworkKind::efa, recent_efa},
      {"p4d, old kernel", old_kernel, NetworkKind::efa, old_kernel_settings},
      {"p5", ec2("p5.48xlarge", 32, {1, 14, 0}, {2, 1, 0}), NetworkKind::efa, recent_efa},
      {"p5en", ec2("p5en.48xlarge", 16, {1, 16, 3}, {2, 3, 1}), NetworkKind::efa, recent_efa},
      {"p5, plugin off the path", hidden_plugin, NetworkKind::efa, hidden_settings},
      {"p5, versions unknown", ec2("p5.48xlarge", 32, {}, {}), NetworkKind::efa, recent_without_tuner},
      {"g5, EFA without RDMA, plugin 1.5", ec2("g5.48xlarge", 1, {1, 5, 0}, {1, 16, 0}), NetworkKind::efa,
       with_interface({{"FI_PROVIDER", "efa"}, {"NCCL_PROTO", "simple"}})},
      {"g5, plugin 1.6", ec2("g5.48xlarge", 1, {1, 6, 0}, {1, 16, 0}), NetworkKind::efa, interface_only},
      {"g5 without EFA", ec2("g5.xlarge", 0, {1, 14, 0}, {2, 1, 0}), NetworkKind::tcp, interface_only},
      {"InfiniBand", verbs(NetworkKind::infiniband, {2, 28, 9}), NetworkKind::infiniband, interface_only},
      {"RoCE", verbs(NetworkKind::roce, {2, 28, 9}), NetworkKind::roce, interface_only},
      {"RoCE, NCCL 2.20", verbs(NetworkKind::roce, {2, 20, 5}), NetworkKind::roce,
       with_interface({{"NCCL_IB_GID_INDEX", "3"}})},
      {"InfiniBand without NCCL", no_nccl, NetworkKind::none, {}},
  };
  for (const auto& row : rows) {
    const NetworkDecision decision = decide_network(row.report, SlowNetwork::refused);
    EXPECT_EQ(decision.expected, row.expected) << row.cluster;
    EXPECT_EQ(of(decision), row.settings) << row.cluster;
    EXPECT_EQ(decision.refusal, "") << row.cluster;
  }
}

TEST(Network, WhatTheUserSetIsNeverSetAgain) {
  NetworkReport report = ec2("p4d.24xlarge", 4, {1, 5, 0}, {1, 16, 0});
  report.kernel = {4, 14, 0};
  report.streams = 12;
  report.nccl_log = "/run/nccl.log";
  report.shares_devices = true;
  report.nccl = {2, 30, 1};
  for (const Version plugin : {Version{1, 5, 0}, Version{1, 14, 0}}) {
    report.plugin = plugin;
    report.libfabric = plugin == Version{1, 5, 0} ? Version{1, 16, 0} : Version{2, 1, 0};
    report.tuner_path = "/t/libnccl-ofi-tuner.so";
    report.set_by_user.clear();
    const Settings all = of(decide_network(report, SlowNetwork::refused));
    EXPECT_GE(all.size(), 8u);
    for (const auto& [name, value] : all) {
      const auto is_watched = [&](const char* one) { return name == one; };
      EXPECT_TRUE(std::ranges::any_of(watched_variables(), is_watched)) << name << " would not be looked up";
      report.set_by_user = {{name, name == "FI_PROVIDER" ? "efa;ofi_rxd" : "7"}};
      Settings others = of(decide_network(report, SlowNetwork::refused));
      EXPECT_FALSE(others.contains(name));
    }
    for (const auto& [name, value] : all) report.set_by_user[name] = value;
    EXPECT_TRUE(of(decide_network(report, SlowNetwork::refused)).empty());
  }
}

TEST(Network, OldVariablesThatMeetNewSoftwareAreWarnedOf) {
  const NetworkReport p5 = ec2("p5.48xlarge", 32, {1, 14, 0}, {2, 1, 0});
  const NetworkReport g5 = ec2("g5.48xlarge", 1, {1, 14, 0}, {2, 1, 0});
  const NetworkReport old = ec2("p4d.24xlarge", 4, {1, 5, 0}, {1, 16, 0});
  const struct {
    NetworkReport report;
    const char* name;
    const char* value;
    const char* warning;  // null = none
  } rows[] = {
      {p5, "NCCL_PROTO", "Simple", "with aws-ofi-nccl 1.14.0 it blocks LL, LL128 and the tuner"},
      {p5, "NCCL_PROTO", "LL128", nullptr},
      {old, "NCCL_PROTO", "simple", nullptr},
      {p5, "FI_PROVIDER", "efa", "finds EFA itself"},
      {old, "FI_PROVIDER", "efa", nullptr},
      {p5, "FI_EFA_USE_DEVICE_RDMA", "1", nullptr},
      {p5, "FI_EFA_USE_DEVICE_RDMA", "0", "turns off the RDMA of p5.48xlarge"},
      {g5, "FI_EFA_USE_DEVICE_RDMA", "1", "g5.48xlarge has EFA without RDMA"},
      {g5, "FI_EFA_USE_DEVICE_RDMA", "0", nullptr},
      {p5, "FI_EFA_FORK_SAFE", "1", "not needed with kernel 6.1.0"},
      {p5, "RDMAV_FORK_SAFE", "1", "harms newer kernels"},
      {p5, "NCCL_SOCKET_IFNAME", "eth0", "names no interface of this host"},
      {p5, "NCCL_SOCKET_IFNAME", "=ens6", nullptr},
      {p5, "NCCL_SOCKET_IFNAME", "ens", nullptr},
      {p5, "NCCL_SOCKET_IFNAME", "^docker,lo", nullptr},
      {p5, "NCCL_BUFFSIZE", "4194304", nullptr},
      {ethernet(), "NCCL_PROTO", "simple", nullptr},
      {ethernet(), "RDMAV_FORK_SAFE", "1", nullptr},
  };
  for (const auto& row : rows) {
    NetworkReport report = row.report;
    report.set_by_user[row.name] = row.value;
    const std::string text = warnings(decide_network(report, SlowNetwork::refused));
    if (row.warning == nullptr) {
      EXPECT_EQ(text, "") << row.name << "=" << row.value;
    } else {
      EXPECT_NE(text.find(row.warning), std::string::npos) << row.name << "=" << row.value << ": " << text;
      EXPECT_NE(text.find(row.name), std::string::npos) << text;
    }
  }
}

TEST(Network, AP5WithOldSoftwareIsToldWhatItNeeds) {
  NetworkReport report = ec2("p5.48xlarge", 32, {1, 7, 1}, {1, 18, 0});
  report.nccl = {2, 17, 1};
  const std::string text = warnings(decide_network(report, SlowNetwork::refused));
  EXPECT_NE(text.find("needs aws-ofi-nccl 1.7.2 or later, 1.7.1 was found"), std::string::npos) << text;
  EXPECT_NE(text.find("needs NCCL 2.18.0 or later, 2.17.1 was found"), std::string::npos) << text;
  report.instance_kind = "p4d.24xlarge";
  EXPECT_EQ(warnings(decide_network(report, SlowNetwork::refused)), "");
}

TEST(Network, TcpBesideAFastNetworkIsRefusedUnlessAskedFor) {
  using Change = std::function<void(NetworkReport&)>;
  const auto user = [](const char* name, const char* value) -> Change {
    return [=](NetworkReport& report) { report.set_by_user[name] = value; };
  };
  const NetworkReport p5 = ec2("p5.48xlarge", 32, {1, 14, 0}, {2, 1, 0});
  const NetworkReport infiniband = verbs(NetworkKind::infiniband, {2, 28, 9});
  const struct {
    NetworkReport report;
    Change change;
    const char* why;
  } rows[] = {
      {p5, user("NCCL_NET", "Socket"),
       "EFA is there (32 devices), but NCCL would use TCP: NCCL_NET=Socket is set"},
      {p5, user("NCCL_NET_PLUGIN", "none"), "NCCL_NET_PLUGIN=none is set; unset NCCL_NET_PLUGIN"},
      {p5, user("FI_PROVIDER", "tcp"), "FI_PROVIDER=tcp is set; unset FI_PROVIDER"},
      {p5, user("FI_PROVIDER", "^efa"), "FI_PROVIDER=^efa is set"},
      {p5, [](NetworkReport& report) { report.has_libfabric = false; }, "libfabric was not found"},
      {p5, [](NetworkReport& report) { report.plugin_path.clear(); }, "aws-ofi-nccl was not found"},
      {p5,
       [](NetworkReport& report) {
         report.is_plugin_on_search_path = false;
         report.nccl = {2, 19, 4};
       },
       "outside of the library search path; add its folder to LD_LIBRARY_PATH"},
      {infiniband, user("NCCL_NET", "Socket"), "InfiniBand is there (1 device), but NCCL would use TCP"},
      {infiniband, user("NCCL_IB_DISABLE", "1"), "NCCL_IB_DISABLE=1 is set; unset NCCL_IB_DISABLE"},
  };
  for (const auto& row : rows) {
    NetworkReport report = row.report;
    EXPECT_EQ(decide_network(report, SlowNetwork::refused).refusal, "");
    row.change(report);
    const NetworkDecision refused = decide_network(report, SlowNetwork::refused);
    EXPECT_EQ(refused.expected, NetworkKind::tcp);
    EXPECT_TRUE(refused.has_fast_network);
    EXPECT_NE(refused.refusal.find(row.why), std::string::npos) << refused.refusal;
    EXPECT_NE(refused.refusal.find("parallel.allow_slow_network: true"), std::string::npos);
    const NetworkDecision allowed = decide_network(report, SlowNetwork::allowed);
    EXPECT_EQ(allowed.refusal, "");
    EXPECT_NE(warnings(allowed).find(row.why), std::string::npos) << warnings(allowed);
    report.hosts = 1;  // nothing goes over the network
    EXPECT_EQ(decide_network(report, SlowNetwork::refused).refusal, "");
  }
}

TEST(Network, ValuesThatKeepTheFastNetworkAreNotRefused) {
  const NetworkReport p5 = ec2("p5.48xlarge", 32, {1, 14, 0}, {2, 1, 0});
  const NetworkReport infiniband = verbs(NetworkKind::infiniband, {2, 28, 9});
  const struct {
    NetworkReport report;
    const char* name;
    const char* value;
    NetworkKind expected;
  } rows[] = {
      {p5, "NCCL_NET", "AWS Libfabric", NetworkKind::efa},
      {p5, "NCCL_NET", "Libfabric", NetworkKind::efa},
      {p5, "NCCL_NET", "", NetworkKind::efa},
      {p5, "FI_PROVIDER", "", NetworkKind::efa},
      {p5, "FI_PROVIDER", "^tcp", NetworkKind::efa},
      {p5, "NCCL_NET_PLUGIN", "ofi", NetworkKind::efa},
      {p5, "NCCL_IB_DISABLE", "1", NetworkKind::efa},
      {infiniband, "NCCL_NET", "IB", NetworkKind::infiniband},
      {infiniband, "NCCL_IB_DISABLE", "0", NetworkKind::infiniband},
  };
  for (const auto& row : rows) {
    NetworkReport report = row.report;
    report.set_by_user[row.name] = row.value;
    const NetworkDecision decision = decide_network(report, SlowNetwork::refused);
    EXPECT_EQ(decision.refusal, "") << row.name << "=" << row.value;
    EXPECT_EQ(decision.expected, row.expected) << row.name << "=" << row.value;
  }
}

TEST(Network, RoceThatIsNotUsedIsWarnedOfAndPortsWithoutALinkToo) {
  NetworkReport report = verbs(NetworkKind::roce, {2, 28, 9});
  report.set_by_user["NCCL_IB_DISABLE"] = "1";
  NetworkDecision decision = decide_network(report, SlowNetwork::refused);
  EXPECT_EQ(decision.refusal, "");
  EXPECT_FALSE(decision.has_fast_network);
  EXPECT_NE(warnings(decision).find("RoCE is there (1 device), but NCCL would use TCP"), std::string::npos);
  EXPECT_NE(warnings(decision).find("mlx5_0 has no link"), std::string::npos);
  report = verbs(NetworkKind::infiniband, {2, 28, 9});
  report.rdma[1].is_active = false;
  decision = decide_network(report, SlowNetwork::refused);
  EXPECT_EQ(decision.expected, NetworkKind::tcp);
  EXPECT_EQ(decision.refusal, "");
}

TEST(Network, TheInterfaceIsTheFastestThatOtherHostsReach) {
  const struct {
    std::vector<NetworkInterface> found;
    const char* chosen;  // null = none
  } rows[] = {
      {{{.name = "eth0"}}, "=eth0"},
      {{{.name = "lo"}, {.name = "docker0"}, {.name = "veth12"}, {.name = "br-9"}, {.name = "eno1"}},
       "=eno1"},
      {{{.name = "eth0", .mbit_per_s = 1000}, {.name = "eth1", .mbit_per_s = 25000}}, "=eth1"},
      {{{.name = "eth0", .mbit_per_s = 1000}, {.name = "eth1", .is_up = false, .mbit_per_s = 25000}},
       "=eth0"},
      {{{.name = "eth0", .mbit_per_s = 25000},
        {.name = "eth1", .has_default_route = true, .mbit_per_s = 25000}},
       "=eth1"},
      {{{.name = "team0", .is_physical = false, .mbit_per_s = 50000}, {.name = "eth0", .mbit_per_s = 1000}},
       "=eth0"},
      {{{.name = "team0", .is_physical = false}}, "=team0"},
      {{{.name = "eth1"}, {.name = "eth0"}}, "=eth0"},
      {{{.name = "ib0", .mbit_per_s = 400000},
        {.name = "eth0", .has_default_route = true, .mbit_per_s = 1000}},
       "=ib0"},
      {{{.name = "lo"}, {.name = "docker0"}}, nullptr},
      {{}, nullptr},
  };
  for (const auto& row : rows) {
    NetworkReport report = ethernet();
    report.interfaces = row.found;
    const NetworkDecision decision = decide_network(report, SlowNetwork::refused);
    const Settings settings = of(decision);
    if (row.chosen == nullptr) {
      EXPECT_TRUE(settings.empty());
      EXPECT_NE(warnings(decision).find("set NCCL_SOCKET_IFNAME"), std::string::npos);
    } else {
      EXPECT_EQ(settings.at("NCCL_SOCKET_IFNAME"), row.chosen);
    }
  }
}

TEST(Network, EveryStreamHasAConnectionOfItsOwn) {
  const struct {
    int streams;
    const char* users;  // null = not set
    const char* value;  // null = left as it is
    bool is_warned;
  } rows[] = {
      {1, nullptr, nullptr, false}, {8, nullptr, nullptr, false}, {9, nullptr, "9", false},
      {40, nullptr, "32", false},   {9, "1", nullptr, true},      {9, "9", nullptr, false},
      {9, "many", nullptr, true},   {3, "1", nullptr, true},      {40, "32", nullptr, false},
  };
  for (const auto& row : rows) {
    NetworkReport report;  // without NCCL too
    report.streams = row.streams;
    if (row.users != nullptr) report.set_by_user["CUDA_DEVICE_MAX_CONNECTIONS"] = row.users;
    const NetworkDecision decision = decide_network(report, SlowNetwork::refused);
    const Settings expected =
        row.value == nullptr ? Settings{} : Settings{{"CUDA_DEVICE_MAX_CONNECTIONS", row.value}};
    EXPECT_EQ(of(decision), expected) << row.streams;
    EXPECT_EQ(!decision.warnings.empty(), row.is_warned) << row.streams << ": " << warnings(decision);
  }
}

TEST(Network, NcclWritesItsLogWhereItIsReadUnlessTheUserWantsItElsewhere) {
  NetworkReport report;
  report.nccl = {2, 28, 9};
  report.nccl_log = "/run/nccl.7.log";
  const Settings expected = {
      {"NCCL_DEBUG", "INFO"}, {"NCCL_DEBUG_FILE", "/run/nccl.7.log"}, {"NCCL_DEBUG_SUBSYS", "INIT,NET"}};
  EXPECT_EQ(of(decide_network(report, SlowNetwork::refused)), expected);
  for (const char* name : {"NCCL_DEBUG", "NCCL_DEBUG_FILE"}) {
    report.set_by_user = {{name, "WARN"}};
    EXPECT_TRUE(of(decide_network(report, SlowNetwork::refused)).empty()) << name;
  }
}

TEST(Network, SharedDevicesNeedANcclThatHasThem) {
  NetworkReport report;
  report.shares_devices = true;
  report.nccl = {2, 30, 0};
  EXPECT_EQ(of(decide_network(report, SlowNetwork::refused)),
            (Settings{{"NCCL_MULTI_RANK_GPU_ENABLE", "1"}}));
  report.nccl = {2, 28, 9};
  const NetworkDecision decision = decide_network(report, SlowNetwork::refused);
  EXPECT_TRUE(decision.settings.empty());
  EXPECT_NE(warnings(decision).find("NCCL 2.28.9 refuses"), std::string::npos) << warnings(decision);
}

TEST(Network, NcclsOwnSettingsFollowTheNetwork) {
  EXPECT_EQ(decide_network(ethernet(), SlowNetwork::refused).nccl.buffer_bytes, 4 << 20);
  EXPECT_EQ(decide_network(ethernet(), SlowNetwork::refused).nccl.lane_max_ctas, 2);
  NetworkReport p5 = ec2("p5.48xlarge", 32, {1, 14, 0}, {2, 1, 0});
  EXPECT_EQ(decide_network(p5, SlowNetwork::refused).nccl.buffer_bytes, 8 << 20);
  EXPECT_EQ(decide_network(p5, SlowNetwork::refused).nccl.lane_max_ctas, 4);
  p5.set_by_user["NCCL_BUFFSIZE"] = "1048576";
  EXPECT_EQ(decide_network(p5, SlowNetwork::refused).nccl.buffer_bytes, 1 << 20);
  NetworkReport roce = verbs(NetworkKind::roce, {2, 28, 9});
  EXPECT_EQ(decide_network(roce, SlowNetwork::refused).nccl.traffic_class, std::nullopt);
  roce.rdma[1].traffic_class = 106;
  EXPECT_EQ(decide_network(roce, SlowNetwork::refused).nccl.traffic_class, 106);
  roce.set_by_user["NCCL_IB_TC"] = "41";
  EXPECT_EQ(decide_network(roce, SlowNetwork::refused).nccl.traffic_class, std::nullopt);
}

}  // namespace
}  // namespace ptrain
