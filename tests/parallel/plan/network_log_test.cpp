// Versions as text, and the network in NCCL's log.
#include <gtest/gtest.h>

#include "parallel/plan/network.h"

namespace ptrain {
namespace {

TEST(NetworkLog, VersionsAreReadAsPackagesWriteThem) {
  const struct {
    const char* text;
    Version version;
  } rows[] = {
      {"1.16.0~amzn3.0_amd64", {1, 16, 0}},
      {"2.1amzn3.0", {2, 1, 0}},
      {"1.14.0-1.el8", {1, 14, 0}},
      {"6.1.0-18-amd64", {6, 1, 0}},
      {"5.10.210", {5, 10, 210}},
      {"3", {3, 0, 0}},
      {"", {}},
      {"GitHub-dev", {}},
      {"1.", {1, 0, 0}},
      {"1.7.3-aws", {1, 7, 3}},
      {"99999999999.1", {0, 0, 0}},
      {"-1.2", {}},
  };
  for (const auto& row : rows) EXPECT_EQ(parse_version(row.text), row.version) << row.text;
  EXPECT_EQ(nccl_version_of(22809), (Version{2, 28, 9}));
  EXPECT_EQ(nccl_version_of(21005), (Version{2, 10, 5}));
  EXPECT_FALSE(nccl_version_of(0).is_known());
  EXPECT_EQ(to_string(Version{1, 7, 2}), "1.7.2");
  EXPECT_EQ(to_string(Version{}), "unknown");
  EXPECT_LT((Version{1, 9, 9}), (Version{1, 10, 0}));
}

TEST(NetworkLog, TheNetworkIsReadFromWhatNcclWrites) {
  const struct {
    const char* log;
    ChosenNetwork chosen;
  } rows[] = {
      {"", {}},
      {"NCCL version 2.28.9+cuda13.0\n", {}},
      {"h1:52:64 [0] NCCL INFO NET/OFI Selected Provider is efa (found 4 nics)\n"
       "h1:52:64 [0] NCCL INFO Using network AWS Libfabric\n",
       {NetworkKind::efa, "EFA by AWS Libfabric, 4 devices"}},
      {"h1:52:64 [0] NCCL INFO NET/OFI Selected provider is efa, fabric is efa-direct (found 16 nics)\r\n"
       "h1:52:64 [0] NCCL INFO Using network Libfabric\r\n"
       "h1:52:70 [0] NCCL INFO Channel 00/0 : 0[0] -> 8[0] [send] via NET/Libfabric/0/GDRDMA\r\n",
       {NetworkKind::efa, "EFA by Libfabric, 16 devices", true}},
      {"[0] NCCL INFO NET/OFI Selected Provider is efa\n", {NetworkKind::efa, "EFA by Libfabric"}},
      {"NCCL INFO NET/OFI Selected provider is tcp;ofi_rxm (found 1 nics)\nNCCL INFO Using network "
       "Libfabric\n",
       {NetworkKind::tcp, "Libfabric, provider tcp;ofi_rxm"}},
      {"NCCL INFO NET/OFI Selected provider is cxi (found 4 nics)\nNCCL INFO Using network AWS Libfabric\n",
       {NetworkKind::unknown, "AWS Libfabric, provider cxi"}},
      {"a:1:2 [0] NCCL INFO NET/IB : Using [0]mlx5_0:1/IB [1]mlx5_1:1/IB [RO]; OOB ib0:10.0.0.1<0>\n"
       "a:1:2 [0] NCCL INFO Using network IB\n"
       "a:1:2 [0] NCCL INFO Channel 00/0 : 0[0] -> 8[0] [send] via NET/IB/0(1)/GDRDMA\n",
       {NetworkKind::infiniband, "InfiniBand, mlx5_0 mlx5_1", true}},
      {"NCCL INFO NET/IB : Using [0]mlx5_10:1/RoCE [RO]; OOB enp2s0:11.1.1.1<0>\nNCCL INFO Using network "
       "IB\n",
       {NetworkKind::roce, "RoCE, mlx5_10"}},
      {"NCCL INFO Using network IBext_v8\n", {NetworkKind::infiniband, "InfiniBand"}},
      {"NCCL INFO NET/IB : Using [0]mlx5_0:1/IB ; OOB eth0:<0>\n",
       {NetworkKind::infiniband, "InfiniBand, mlx5_0"}},
      {"NCCL INFO NET/IB : No device found.\n"
       "NCCL INFO NET/IB : Using [RO]; OOB eth0:10.10.1.2<0>\n"
       "NCCL INFO NET/Socket : Using [0]eth0:10.10.1.2<0> [1]eth1:10.10.2.2<0>\n"
       "NCCL INFO Using network Socket\n"
       "NCCL INFO Channel 00/0 : 0[0] -> 1[0] [send] via NET/Socket/0\n",
       {NetworkKind::tcp, "TCP, eth0 eth1"}},
      {"NCCL INFO NET/Socket : Using [0]ens3:172.31.4.37<0>\n", {NetworkKind::tcp, "TCP, ens3"}},
      {"NCCL INFO Using network Socket", {NetworkKind::tcp, "TCP"}},
      // Tried, then left: the last word counts.
      {"NCCL INFO NET/OFI Selected provider is efa (found 4 nics)\n"
       "NCCL INFO NET/Socket : Using [0]eth0:10.0.0.1<0>\nNCCL INFO Using network Socket\n",
       {NetworkKind::tcp, "TCP, eth0"}},
      {"NCCL INFO Using network FasTrak\n", {NetworkKind::unknown, "FasTrak"}},
      {"NCCL INFO Using network \n", {}},
  };
  for (const auto& row : rows) {
    const ChosenNetwork found = network_in_nccl_log(row.log);
    EXPECT_EQ(found.kind, row.chosen.kind) << row.log;
    EXPECT_EQ(found.text, row.chosen.text) << row.log;
    EXPECT_EQ(found.is_gpudirect, row.chosen.is_gpudirect) << row.log;
  }
}

TEST(NetworkLog, ARunWhoseNcclFellBackToTcpIsObjectedTo) {
  const ChosenNetwork tcp{NetworkKind::tcp, "TCP, eth0"}, efa{NetworkKind::efa, "EFA by Libfabric"}, silent{};
  const NetworkDecision fast{.expected = NetworkKind::efa, .has_fast_network = true};
  const NetworkDecision slow{.expected = NetworkKind::tcp};
  const NetworkDecision alone{.expected = NetworkKind::none};
  const NetworkDecision accepted{.expected = NetworkKind::tcp, .has_fast_network = true};
  const struct {
    ChosenNetwork chosen;
    NetworkDecision decision;
    SlowNetwork slow;
    const char* text;  // null = no objection
  } rows[] = {
      {tcp, fast, SlowNetwork::refused, "NCCL took TCP, eth0 although EFA is there"},
      {tcp, fast, SlowNetwork::allowed, nullptr},
      {tcp, accepted, SlowNetwork::refused, "a faster network is there"},
      {tcp, slow, SlowNetwork::refused, nullptr},
      {tcp, alone, SlowNetwork::refused, nullptr},
      {efa, fast, SlowNetwork::refused, nullptr},
      {silent, fast, SlowNetwork::refused, nullptr},
  };
  for (const auto& row : rows) {
    const std::string text = objection_to(row.chosen, row.decision, row.slow);
    if (row.text == nullptr) {
      EXPECT_EQ(text, "");
    } else {
      EXPECT_NE(text.find(row.text), std::string::npos) << text;
      EXPECT_NE(text.find("parallel.allow_slow_network: true"), std::string::npos) << text;
    }
  }
}

}  // namespace
}  // namespace ptrain
