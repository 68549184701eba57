// What the doctor says of machines that nobody has at hand: tables of facts.
#include <gtest/gtest.h>

#include <algorithm>

#include "launch/doctor/facts.h"
#include "tests/launch/wrong_page.h"

namespace ptrain::doctor {
namespace {

constexpr int64_t gib = int64_t{1} << 30;

runtime::DeviceInfo gpu(const char* name, int64_t memory_gib, int major, int minor) {
  return {.name = name,
          .total_bytes = memory_gib * gib,
          .free_bytes = memory_gib * gib,
          .major = major,
          .minor = minor,
          .multiprocessors = 108,
          .pci_bus_id = "0000:17:00.0"};
}

HostFacts laptop() {
  HostFacts facts;
  facts.host = "laptop", facts.mpi = "Open MPI v4.1.4", facts.cpu = "Some CPU",
  facts.cores = facts.allowed_cores = 8;
  facts.memory_bytes = 32 * gib, facts.available_bytes = 20 * gib;
  facts.limits = {.locked_bytes = 8 << 20, .open_files = 1024, .shared_memory_bytes = 16 * gib};
  facts.addresses = {"127.0.1.1"};
  return facts;
}

/// Eight GPUs a host on two hosts, nothing wrong.
HostFacts cluster(const runtime::DeviceInfo& of) {
  HostFacts facts = laptop();
  facts.host = "node-1", facts.hosts = 2, facts.ranks = 8, facts.launcher = "mpirun";
  facts.cores = facts.allowed_cores = 96, facts.memory_bytes = facts.available_bytes = 1100 * gib;
  facts.versions = {.toolkit = 13000, .driver = 13000};
  facts.gpus.assign(8, of);
  facts.gpu_pairs = facts.gpu_pairs_direct = 28;
  facts.limits = {.locked_bytes = -1, .open_files = 65536, .shared_memory_bytes = 500 * gib};
  facts.addresses = {"10.0.0.1"};
  facts.network.hosts = 2, facts.network.kernel = {6, 1, 0}, facts.network.nccl = {2, 28, 9};
  facts.network.interfaces = {{.name = "ens32", .has_default_route = true, .mbit_per_s = 100000}};
  return facts;
}

HostFacts with_efa(HostFacts facts, const char* kind, int devices, Version plugin) {
  facts.network.instance_kind = kind;
  for (int i = 0; i < devices; ++i)
    facts.network.rdma.push_back(
        {.name = "rdmap" + std::to_string(i), .kind = NetworkKind::efa, .gbit_per_s = 100});
  facts.network.has_libfabric = true, facts.network.libfabric = {1, 22, 0};
  facts.network.plugin_path = "/opt/amazon/ofi-nccl/lib/libnccl-net.so", facts.network.plugin = plugin;
  return facts;
}

/// "topic: text" of all lines of a verdict.
std::vector<std::string> lines(const std::vector<Finding>& findings, Verdict verdict) {
  std::vector<std::string> some;
  for (const Finding& finding : findings)
    if (finding.verdict == verdict) some.push_back(finding.topic + ": " + finding.text);
  return some;
}

std::string joined(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : texts) all += text + "\n";
  return all;
}

TEST(Doctor, HealthyMachinesHaveNothingToComplainOf) {
  const HostFacts infiniband = [] {
    HostFacts facts = cluster(gpu("NVIDIA H100", 80, 9, 0));
    facts.network.rdma = {{.name = "mlx5_0", .kind = NetworkKind::infiniband, .gbit_per_s = 400}};
    return facts;
  }();
  const HostFacts healthy[] = {
      laptop(),
      cluster(gpu("NVIDIA A10G", 24, 8, 6)),  // g5: Ethernet
      with_efa(cluster(gpu("NVIDIA A100", 40, 8, 0)), "p4d.24xlarge", 4, {1, 14, 0}),
      with_efa(cluster(gpu("NVIDIA H100", 80, 9, 0)), "p5.48xlarge", 32, {1, 14, 0}),
      with_efa(cluster(gpu("NVIDIA H200", 141, 9, 0)), "p5en.48xlarge", 16, {1, 14, 0}),
      infiniband};
  for (const HostFacts& facts : healthy) {
    const std::vector<Finding> findings = judge_host(facts);
    EXPECT_EQ(joined(lines(findings, Verdict::warn)), "") << facts.network.instance_kind;
    EXPECT_EQ(joined(lines(findings, Verdict::fail)), "") << facts.network.instance_kind;
    EXPECT_GE(lines(findings, Verdict::ok).size(), 7u);
  }
}

struct Sick {
  const char* what;
  HostFacts facts;
  Verdict verdict;
  const char* says;  // part of a line
  const char* fix;   // part of what to do
};

HostFacts changed(HostFacts facts, void (*change)(HostFacts&)) {
  change(facts);
  return facts;
}

std::vector<Sick> sick_machines() {
  const HostFacts efa = with_efa(cluster(gpu("NVIDIA H100", 80, 9, 0)), "p5.48xlarge", 32, {1, 14, 0});
  const HostFacts plain = cluster(gpu("NVIDIA A10G", 24, 8, 6));
  HostFacts crowd = laptop();
  crowd.ranks = 4, crowd.launcher = "mpirun";
  return {
      {"a rank bound to one core", changed(crowd, [](HostFacts& f) { f.allowed_cores = 1; }), Verdict::warn,
       "may use 1 of its share of 2 cores", "--bind-to none"},
      {"a GPU rank bound to one core", changed(plain, [](HostFacts& f) { f.allowed_cores = 1; }),
       Verdict::warn, "bound to one core", "--bind-to none"},
      {"no memory left", changed(crowd, [](HostFacts& f) { f.available_bytes = gib; }), Verdict::warn,
       "1.0 GiB of 32.0", "limit"},
      {"a driver that is too old", changed(plain, [](HostFacts& f) { f.versions.driver = 11080; }),
       Verdict::fail, "11.8", "driver"},
      {"more ranks than GPUs", changed(plain, [](HostFacts& f) { f.ranks = 9; }), Verdict::fail,
       "9 ranks, but 8 GPUs", "start 8 ranks"},
      {"a GPU of another kind", changed(plain, [](HostFacts& f) { f.gpus[3].name = "NVIDIA T4"; }),
       Verdict::warn, "GPU 3 is a NVIDIA T4", "CUDA_VISIBLE_DEVICES"},
      {"a GPU in use", changed(plain, [](HostFacts& f) { f.gpus[1].free_bytes = 4 * gib; }), Verdict::warn,
       "20.0 GiB of 24.0 GiB of GPU 1", "nvidia-smi"},
      {"GPUs that do not reach each other", changed(plain, [](HostFacts& f) { f.gpu_pairs_direct = 12; }),
       Verdict::warn, "12 of 28 pairs", "tensor groups small"},
      {"no NCCL", changed(plain, [](HostFacts& f) { f.network.nccl = {}; }), Verdict::warn,
       "through the host", "libnccl2"},
      {"EFA without its plugin", changed(efa, [](HostFacts& f) { f.network.plugin_path.clear(); }),
       Verdict::fail, "EFA is there", "refuse"},
      {"a stale NCCL_PROTO",
       changed(efa, [](HostFacts& f) { f.network.set_by_user["NCCL_PROTO"] = "simple"; }), Verdict::warn,
       "NCCL_PROTO=simple was for aws-ofi-nccl 1.5 and earlier", ""},
      {"an interface that is not there",
       changed(plain, [](HostFacts& f) { f.network.set_by_user["NCCL_SOCKET_IFNAME"] = "eth7"; }),
       Verdict::warn,
       "NCCL_SOCKET_IFNAME=eth7 names no interface of this host; unset it, or name one of ens32", ""},
      {"locked memory beside RDMA", changed(efa, [](HostFacts& f) { f.limits.locked_bytes = 64 << 10; }),
       Verdict::warn, "64 KiB may be locked", "ulimit -l unlimited"},
      {"a small /dev/shm", changed(plain, [](HostFacts& f) { f.limits.shared_memory_bytes = 64 << 20; }),
       Verdict::warn, "/dev/shm has 64 MiB", "--shm-size"},
      {"few open files", changed(plain, [](HostFacts& f) { f.limits.open_files = 256; }), Verdict::warn,
       "256 open files", "ulimit -n"},
      {"a name that is loopback", changed(plain, [](HostFacts& f) { f.addresses = {"127.0.1.1"}; }),
       Verdict::warn, "127.0.1.1", "/etc/hosts"},
      {"a name without an address", changed(plain, [](HostFacts& f) { f.addresses.clear(); }), Verdict::warn,
       "no address", "DNS"},
      {"a clock that is wrong",
       changed(plain, [](HostFacts& f) { f.clock_ahead_s = -60, f.clock_error_s = 0.001; }), Verdict::warn,
       "60.000 s behind", "chrony"},
      {"a disk that cannot be written",
       changed(crowd,
               [](HostFacts& f) { f.disk = DiskFacts{.path = "/runs", .error = "read-only file system"}; }),
       Verdict::fail, "read-only", "another output"},
      {"a full disk",
       changed(
           crowd,
           [](HostFacts& f) { f.disk = DiskFacts{.path = "/runs", .filesystem = "xfs", .free_bytes = gib}; }),
       Verdict::warn, "1.0 GiB free", "free some"},
      {"a disk in memory",
       changed(crowd,
               [](HostFacts& f) {
                 f.disk = DiskFacts{.path = "/x", .filesystem = "tmpfs", .free_bytes = 99 * gib};
               }),
       Verdict::warn, "ends with the machine", "elsewhere"},
  };
}

TEST(Doctor, WhatIsWrongIsSaidWithWhatToDo) {
  for (const Sick& sick : sick_machines()) {
    const std::vector<Finding> findings = judge_host(sick.facts);
    const auto it = std::ranges::find_if(findings, [&](const Finding& finding) {
      return finding.verdict == sick.verdict && finding.text.find(sick.says) != std::string::npos;
    });
    ASSERT_NE(it, findings.end()) << sick.what << "\n" << joined(lines(findings, sick.verdict));
    EXPECT_NE(it->fix.find(sick.fix), std::string::npos) << sick.what << ": " << it->fix;
    EXPECT_EQ(to_line(*it).find(name_of(sick.verdict)), 0u);
  }
}

TEST(Doctor, ATrainingSaysAtItsStartWhatItDoesNotJudgeItself) {
  const Finding disk{Verdict::warn, "disk", "", ""}, memory{Verdict::warn, "memory", "", ""};
  const Finding binding{Verdict::warn, "binding", "", ""}, fine{Verdict::ok, "disk", "", ""};
  for (const bool has_gpus : {false, true}) {
    EXPECT_TRUE(is_said_at_start(disk, has_gpus));
    EXPECT_FALSE(is_said_at_start(memory, has_gpus));
    EXPECT_FALSE(is_said_at_start(fine, has_gpus));
    EXPECT_EQ(is_said_at_start(binding, has_gpus), has_gpus);
  }
}

TEST(Doctor, ThePageHasTheseRows) {
  std::vector<PageRow> rows;
  for (const Sick& sick : sick_machines()) {
    const std::vector<Finding> findings = judge_host(sick.facts);
    const auto it = std::ranges::find_if(findings, [&](const Finding& finding) {
      return finding.verdict == sick.verdict && finding.text.find(sick.says) != std::string::npos;
    });
    ASSERT_NE(it, findings.end()) << sick.what;
    rows.push_back({sick.what, std::string(name_of(it->verdict)), it->topic, shown_message({it->text}),
                    it->fix.empty() ? "" : shown_message({it->fix})});
  }
  expect_on_page("doctor", {"what is wrong", "line", "topic", "what is said", "what to do"}, rows);
}

TEST(Doctor, HostsThatDifferAreNamedAndOtherBuildsAreFatal) {
  const HostFacts one = cluster(gpu("NVIDIA A10G", 24, 8, 6));
  HostFacts other = one;
  other.program = "0.2 abc", other.network.set_by_user["NCCL_ALGO"] = "Tree";
  const std::vector<std::string> hosts = {"node-1", "node-2", "node-3", "node-4", "node-5"};
  const std::vector<Likeness> likeness = {likeness_of(one), likeness_of(other), likeness_of(one),
                                          likeness_of(one), likeness_of(one)};
  const std::vector<Finding> findings = judge_likeness(hosts, likeness);
  ASSERT_EQ(findings.size(), 2u);
  EXPECT_EQ(findings[0].text,
            "NCCL_ALGO differs: Tree on node-2; not set on node-1, node-3, node-4 and 1 more");
  EXPECT_EQ(findings[0].verdict, Verdict::warn);
  EXPECT_EQ(findings[1].verdict, Verdict::fail);
  EXPECT_NE(findings[1].text.find("program differs"), std::string::npos);
}

TEST(Doctor, OfTwoBuildsTheDifferenceIsShown) {
  HostFacts one = cluster(gpu("NVIDIA A10G", 24, 8, 6));
  one.program = "0.1 abc, cuda 13.0, mpi Open MPI 4.1.4, compiler gcc 12.2.0";
  HostFacts other = one;
  other.program = "0.1 abd, cuda 13.0, mpi Open MPI 4.1.4, compiler gcc 13.1.0";
  const std::vector<std::string> hosts = {"a", "b"};
  const auto findings = judge_likeness(hosts, std::vector<Likeness>{likeness_of(one), likeness_of(other)});
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].text,
            "program differs: 0.1 abc, compiler gcc 12.2.0 on a; 0.1 abd, compiler gcc 13.1.0 on b");
}

TEST(Doctor, AlikeHostsAreSaidToBe) {
  const std::vector<std::string> hosts = {"a", "b"};
  const std::vector<Likeness> likeness(2, likeness_of(cluster(gpu("NVIDIA A10G", 24, 8, 6))));
  const std::vector<Finding> findings = judge_likeness(hosts, likeness);
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(to_line(findings[0]), "ok    hosts     2 hosts are alike");
}

}  // namespace
}  // namespace ptrain::doctor
