// What is found on machines whose files are made up.
#include "parallel/comm/network_probe.h"

#include <gtest/gtest.h>

#include "parallel/comm/self_comm.h"
#include "tests/support/made_up_tree.h"

namespace ptrain {
namespace {

using Variables = std::map<std::string, std::string>;

NetworkReport probe(const MadeUpTree& tree, const Variables& variables = {}) {
  return probe_network({.root = tree.root(),
                        .environment = [&](const char* name) -> const char* {
                          const auto it = variables.find(name);
                          return it == variables.end() ? nullptr : it->second.c_str();
                        },
                        .nccl_version = 22809,
                        .hosts = 4,
                        .streams = 9,
                        .shares_devices = true,
                        .nccl_log = "/run/n.log"});
}

void add_efa(const MadeUpTree& tree, const std::string& name, const std::string& pci,
             const std::string& node) {
  const std::string device = "sys/devices/pci0000:10/0000:10:1b.0/" + pci;
  tree.file(device + "/vendor", "0x1d0f\n");
  tree.file(device + "/numa_node", node + "\n");
  tree.link("sys/class/infiniband/" + name + "/device", device);
  tree.file("sys/class/infiniband/" + name + "/ports/1/state", "4: ACTIVE\n");
  tree.file("sys/class/infiniband/" + name + "/ports/1/link_layer", "Unspecified\n");
  tree.file("sys/class/infiniband/" + name + "/ports/1/rate", "100 Gb/sec (4X EDR)\n");
}

void add_mellanox(const MadeUpTree& tree, const std::string& name, const std::string& layer,
                  const std::string& state) {
  const std::string folder = "sys/class/infiniband/" + name;
  tree.file(folder + "/device/vendor", "0x15b3\n");
  tree.file(folder + "/ports/1/link_layer", layer + "\n");
  tree.file(folder + "/ports/1/state", state + "\n");
  tree.file(folder + "/ports/1/rate", "400 Gb/sec (4X NDR)\n");
}

void add_interface(const MadeUpTree& tree, const std::string& name, const std::string& state,
                   const std::string& speed, const std::string& type = "1") {
  const std::string folder = "sys/class/net/" + name;
  tree.file(folder + "/operstate", state + "\n");
  tree.file(folder + "/type", type + "\n");
  if (!speed.empty()) tree.file(folder + "/speed", speed + "\n");
}

TEST(NetworkProbe, AnEmptyMachineGivesAnEmptyReport) {
  const MadeUpTree tree;
  const NetworkReport report = probe(tree);
  EXPECT_TRUE(report.rdma.empty());
  EXPECT_TRUE(report.interfaces.empty());
  EXPECT_TRUE(report.set_by_user.empty());
  EXPECT_FALSE(report.kernel.is_known());
  EXPECT_FALSE(report.has_libfabric);
  EXPECT_EQ(report.plugin_path + report.tuner_path + report.instance_kind, "");
  EXPECT_EQ(report.nccl, (Version{2, 28, 9}));
  EXPECT_EQ(report.hosts, 4);
  EXPECT_EQ(report.streams, 9);
  EXPECT_TRUE(report.shares_devices);
  EXPECT_EQ(report.nccl_log, "/run/n.log");
}

TEST(NetworkProbe, ThisMachineIsReadWithoutAnError) {
  const NetworkReport report = probe_network({});
  EXPECT_TRUE(report.kernel.is_known());
  EXPECT_FALSE(report.nccl.is_known());
}

TEST(NetworkProbe, AP5IsRecognised) {
  const MadeUpTree tree;
  tree.file("proc/version", "Linux version 5.10.210-201.852.amzn2.x86_64 (mockbuild@host) #1 SMP\n");
  tree.file("sys/devices/virtual/dmi/id/sys_vendor", "Amazon EC2\n");
  tree.file("sys/devices/virtual/dmi/id/product_name", "p5.48xlarge\n");
  add_efa(tree, "rdmap16s27", "0000:16:1b.0", "0");
  add_efa(tree, "rdmap17s27", "0000:17:1b.0", "1");
  tree.file("opt/amazon/efa/lib/libfabric.so.1", "");
  tree.file("opt/amazon/efa_installed_packages",
            "# EFA installer version: 1.38.0\n# Packages installed:\nefa-config_1.17_all "
            "libfabric-aws-bin_1.22.0amzn4.0_amd64 libfabric1-aws_1.22.0amzn4.0_amd64 "
            "libnccl-ofi_1.13.2-1_amd64\n");
  tree.file("opt/amazon/ofi-nccl/lib/libnccl-net.so", "aws-ofi-nccl of a build that tells no version");
  tree.file("opt/amazon/ofi-nccl/lib/libnccl-ofi-tuner.so", "");
  tree.file("etc/ld.so.conf.d/100_ofinccl.conf", "/opt/amazon/ofi-nccl/lib\n");
  // Another plugin of the same file name, which is not libfabric's.
  tree.file("usr/lib/libnccl-net.so", "sharp plugin");
  const NetworkReport report = probe(tree);
  EXPECT_EQ(report.kernel, (Version{5, 10, 210}));
  EXPECT_EQ(report.instance_kind, "p5.48xlarge");
  ASSERT_EQ(report.rdma.size(), 2u);
  EXPECT_EQ(report.rdma[0].name, "rdmap16s27");
  EXPECT_EQ(report.rdma[1].kind, NetworkKind::efa);
  EXPECT_TRUE(report.rdma[1].is_active);
  EXPECT_EQ(report.rdma[1].gbit_per_s, 100);
  EXPECT_TRUE(report.has_libfabric);
  EXPECT_EQ(report.libfabric, (Version{1, 22, 0}));
  EXPECT_EQ(report.plugin_path, "/opt/amazon/ofi-nccl/lib/libnccl-net.so");
  EXPECT_TRUE(report.is_plugin_on_search_path);
  EXPECT_EQ(report.plugin, (Version{1, 13, 2}));
  EXPECT_EQ(report.tuner_path, "/opt/amazon/ofi-nccl/lib/libnccl-ofi-tuner.so");
  const NetworkDecision decision = decide_network(report, SlowNetwork::refused);
  EXPECT_EQ(decision.expected, NetworkKind::efa);
  EXPECT_EQ(decision.refusal, "");
}

TEST(NetworkProbe, LibrariesAreFoundWhereTheyAreAndVersionsWhereTheyStand) {
  const std::string from_source = std::string(
                                      "\x7f"
                                      "ELF\0\1 ",
                                      7) +
                                  "NET/OFI Initializing aws-ofi-nccl 1.5.0aws\n" + '\0';
  const struct {
    const char* what;
    std::vector<std::pair<std::string, std::string>> files;
    Variables variables;
    bool has_libfabric;
    Version libfabric;
    std::string plugin_path;
    bool is_on_search_path;
    Version plugin;
    std::string tuner_path;
  } rows[] = {
      {"nothing", {}, {}, false, {}, "", true, {}, ""},
      {"pkg-config",
       {{"opt/amazon/efa/lib64/libfabric.so.1", ""},
        {"opt/amazon/efa/lib64/pkgconfig/libfabric.pc", "Name: libfabric\nVersion: 2.1.0amzn3.0\nLibs: x\n"}},
       {},
       true,
       {2, 1, 0},
       "",
       true,
       {},
       ""},
      {"an RPM's name",
       {{"opt/amazon/efa/lib64/libfabric.so.1", ""},
        {"opt/amazon/efa_installed_packages",
         "libfabric-aws-devel-1.0.0-1.el8.x86_64 libfabric-aws-1.17.0-1.el8.x86_64"}},
       {},
       true,
       {1, 17, 0},
       "",
       true,
       {},
       ""},
      {"the distribution's libfabric is not the installer's",
       {{"usr/lib/x86_64-linux-gnu/libfabric.so.1", ""},
        {"opt/amazon/efa_installed_packages", "libfabric1-aws_1.22.0_amd64"}},
       {},
       true,
       {},
       "",
       true,
       {},
       ""},
      {"a plugin built from source, on LD_LIBRARY_PATH",
       {{"opt/aws-ofi-nccl/install/lib/libnccl-net.so", from_source}},
       {{"LD_LIBRARY_PATH", "/usr/local/cuda/lib64::/opt/aws-ofi-nccl/install/lib"}},
       false,
       {},
       "/opt/aws-ofi-nccl/install/lib/libnccl-net.so",
       true,
       {1, 5, 0},
       ""},
      {"the same, but the loader does not look there",
       {{"opt/aws-ofi-nccl/install/lib/libnccl-net.so", from_source},
        {"opt/aws-ofi-nccl/install/lib/libnccl-ofi-tuner.so", ""}},
       {},
       false,
       {},
       "/opt/aws-ofi-nccl/install/lib/libnccl-net.so",
       false,
       {1, 5, 0},
       "/opt/aws-ofi-nccl/install/lib/libnccl-ofi-tuner.so"},
      {"under its own name only",
       {{"usr/lib64/libnccl-net-ofi.so", "aws-ofi-nccl GitHub-dev"}},
       {},
       false,
       {},
       "/usr/lib64/libnccl-net-ofi.so",
       false,
       {},
       ""},
      {"another network's plugin",
       {{"opt/hpcx/lib/libnccl-net.so", "ncclNetPlugin_v8 sharp"}},
       {{"LD_LIBRARY_PATH", "/opt/hpcx/lib"}},
       false,
       {},
       "",
       true,
       {},
       ""},
  };
  for (const auto& row : rows) {
    const MadeUpTree tree;
    for (const auto& [path, text] : row.files) tree.file(path, text);
    const NetworkReport report = probe(tree, row.variables);
    EXPECT_EQ(report.has_libfabric, row.has_libfabric) << row.what;
    EXPECT_EQ(report.libfabric, row.libfabric) << row.what;
    EXPECT_EQ(report.plugin_path, row.plugin_path) << row.what;
    EXPECT_EQ(report.is_plugin_on_search_path, row.is_on_search_path) << row.what;
    EXPECT_EQ(report.plugin, row.plugin) << row.what;
    EXPECT_EQ(report.tuner_path, row.tuner_path) << row.what;
  }
}

TEST(NetworkProbe, InfiniBandAndRoceAreToldApart) {
  const MadeUpTree tree;
  add_mellanox(tree, "mlx5_0", "InfiniBand", "4: ACTIVE");
  add_mellanox(tree, "mlx5_1", "InfiniBand", "1: DOWN");
  add_mellanox(tree, "mlx5_2", "Ethernet", "4: ACTIVE");
  const std::string port = "sys/class/infiniband/mlx5_2/ports/1/";
  const struct {
    const char *index, *type, *gid;
  } gids[] = {{"0", "IB/RoCE v1", "fe80:0000:0000:0000:0ac0:ebff:fe11:2233"},
              {"1", "RoCE v2", "fe80:0000:0000:0000:0ac0:ebff:fe11:2233"},
              {"2", "IB/RoCE v1", "0000:0000:0000:0000:0000:ffff:0a00:0001"},
              {"3", "RoCE v2", "0000:0000:0000:0000:0000:ffff:0a00:0001"}};
  for (const auto& gid : gids) {
    tree.file(port + "gid_attrs/types/" + gid.index, std::string(gid.type) + "\n");
    tree.file(port + "gids/" + gid.index, std::string(gid.gid) + "\n");
  }
  tree.file("sys/class/infiniband/mlx5_2/tc/1/traffic_class", "Global tclass=106\n");
  const NetworkReport report = probe(tree);
  ASSERT_EQ(report.rdma.size(), 3u);
  EXPECT_EQ(report.rdma[0].kind, NetworkKind::infiniband);
  EXPECT_TRUE(report.rdma[0].is_active);
  EXPECT_EQ(report.rdma[0].gbit_per_s, 400);
  EXPECT_EQ(report.rdma[0].traffic_class, std::nullopt);
  EXPECT_FALSE(report.rdma[1].is_active);
  EXPECT_EQ(report.rdma[2].kind, NetworkKind::roce);
  EXPECT_EQ(report.rdma[2].roce_v2_gid, 3);
  EXPECT_EQ(report.rdma[2].traffic_class, 106);
  EXPECT_EQ(report.instance_kind, "");
}

TEST(NetworkProbe, InterfacesAreReadWithStateSpeedAndRoute) {
  const MadeUpTree tree;
  add_interface(tree, "lo", "unknown", "", "772");
  add_interface(tree, "docker0", "down", "-1");
  add_interface(tree, "ens5", "up", "25000");
  add_interface(tree, "bond0", "unknown", "50000");
  tree.folder("sys/class/net/ens5/device");
  tree.folder("sys/class/net/bond0/bonding");
  tree.file("sys/class/net/bonding_masters", "bond0\n");  // a file among the folders
  tree.file("proc/net/route", "Iface\tDestination\tGateway\nens5\t0000000A\t00\nens5\t00000000\t0100000A\n");
  const NetworkReport report = probe(tree);
  ASSERT_EQ(report.interfaces.size(), 3u);
  EXPECT_EQ(report.interfaces[0].name, "bond0");
  EXPECT_TRUE(report.interfaces[0].is_up);
  EXPECT_TRUE(report.interfaces[0].is_physical);
  EXPECT_FALSE(report.interfaces[0].has_default_route);
  EXPECT_EQ(report.interfaces[1].name, "docker0");
  EXPECT_FALSE(report.interfaces[1].is_up);
  EXPECT_FALSE(report.interfaces[1].is_physical);
  EXPECT_EQ(report.interfaces[1].mbit_per_s, 0);
  EXPECT_EQ(report.interfaces[2].mbit_per_s, 25000);
  EXPECT_TRUE(report.interfaces[2].has_default_route);
}

TEST(NetworkProbe, OnlyWatchedVariablesAreTakenEmptyOnesToo) {
  const MadeUpTree tree;
  const NetworkReport report = probe(tree, {{"NCCL_PROTO", "simple"}, {"NCCL_NET", ""}, {"HOME", "/root"}});
  EXPECT_EQ(report.set_by_user, (Variables{{"NCCL_PROTO", "simple"}, {"NCCL_NET", ""}}));
}

TEST(NetworkProbe, ARankSeesItsGpusNodesAndNics) {
  const MadeUpTree tree;
  add_efa(tree, "rdmap16s27", "0000:16:1b.0", "1");
  add_mellanox(tree, "mlx5_0", "InfiniBand", "1: DOWN");
  tree.file("sys/devices/pci0000:10/0000:10:1b.0/0000:c1:00.0/numa_node", "1\n");
  tree.link("sys/bus/pci/devices/0000:c1:00.0", "sys/devices/pci0000:10/0000:10:1b.0/0000:c1:00.0");
  tree.file("sys/devices/system/node/node1/cpulist", "4-7\n");
  std::vector<GpuSeat> gpus(2);
  gpus[0] = {.name = "NVIDIA H100", .pci_bus_id = "00000000:C1:00.0"};
  gpus[1] = {.name = "NVIDIA H100", .pci_bus_id = "0000:d1:00.0"};
  const RankView view = view_of_rank(tree.root(), "n1", gpus);
  EXPECT_EQ(view.gpus[0].numa_node, 1);
  EXPECT_EQ(view.gpus[0].pci_path, "pci0000:10/0000:10:1b.0/0000:c1:00.0");
  EXPECT_EQ(view.gpus[1].numa_node, -1);
  EXPECT_EQ(view.gpus[1].pci_path, "");
  ASSERT_EQ(view.nics.size(), 1u);
  EXPECT_EQ(view.nics[0].name, "rdmap16s27");
  EXPECT_EQ(view.nics[0].numa_node, 1);
  EXPECT_EQ(view.nics[0].pci_path, "pci0000:10/0000:10:1b.0/0000:16:1b.0");
  EXPECT_EQ(view.cpus_of_node, (std::map<int, CpuList>{{1, {4, 5, 6, 7}}}));
  const std::unique_ptr<Communicator> world = make_self_communicator();
  const std::vector<RankView> views = gather_views(*world, view);
  ASSERT_EQ(views.size(), 1u);
  EXPECT_EQ(to_text(views[0]), to_text(view));
}

}  // namespace
}  // namespace ptrain
