// The lines of the start banner.
#include "src/train/banner.h"

#include <gtest/gtest.h>

namespace ptrain {
namespace {

RankSeat seat(std::string host, int device, std::string nic, std::string gpu = "NVIDIA H100") {
  return {
      .host = std::move(host),
      .local_rank = device,
      .device = device,
      .gpu = {.name = std::move(gpu), .total_bytes = int64_t{80} << 30, .pci_bus_id = std::to_string(device)},
      .numa_node = device / 4,
      .nic = std::move(nic)};
}

std::vector<RankSeat> cluster(int hosts, int gpus) {
  std::vector<RankSeat> seats;
  for (int rank = 0; rank < hosts * gpus; ++rank)
    seats.push_back(
        seat("node" + std::to_string(rank / gpus), rank % gpus, "mlx5_" + std::to_string(rank % gpus)));
  return seats;
}

TEST(Banner, ATableHasOneLineARank) {
  std::vector<RankSeat> seats = {seat("node-a", 0, "mlx5_0"), seat("b", 5, "")};
  seats[1].gpu = {.name = "NVIDIA A10G", .pci_bus_id = "x"};
  seats[1].numa_node = -1;
  const std::vector<std::string> expected = {
      "2 ranks on 2 hosts, 1 x NVIDIA A10G; 1 x NVIDIA H100, 80.0 GiB",
      "rank  host    GPU                      NUMA  NIC",
      "   0  node-a  0 NVIDIA H100, 80.0 GiB  0     mlx5_0",
      "   1  b       5 NVIDIA A10G            -     -",
  };
  EXPECT_EQ(seat_lines(seats), expected);
  EXPECT_TRUE(seat_lines({}).empty());
  EXPECT_EQ(seat_lines(cluster(1, 1))[0], "1 rank on 1 host, 1 x NVIDIA H100, 80.0 GiB");
  EXPECT_EQ(seat_lines(cluster(2, 8)).size(), 18u);
}

TEST(Banner, SharedGpusAreCountedOnce) {
  const std::vector<RankSeat> seats(3, seat("n", 0, ""));
  EXPECT_EQ(seat_lines(seats)[0], "3 ranks on 1 host, 1 x NVIDIA H100, 80.0 GiB");
}

TEST(Banner, ManyRanksAreCutButNoOddOneIsHidden) {
  std::vector<RankSeat> seats = cluster(8, 8);
  std::vector<std::string> lines = seat_lines(seats);
  ASSERT_EQ(lines.size(), 2u + 8 + 1 + 4);
  EXPECT_EQ(lines[10], " ...  ranks 8 to 59 alike");
  EXPECT_EQ(lines[11].substr(0, 11), "  60  node7");
  seats[30].nic = "";
  seats[41].gpu.name = "NVIDIA A100";
  lines = seat_lines(seats);
  ASSERT_EQ(lines.size(), 2u + 8 + 1 + 1 + 1 + 1 + 1 + 4);
  EXPECT_EQ(lines[10], " ...  ranks 8 to 29 alike");
  EXPECT_EQ(lines[11].substr(0, 4), "  30");
  EXPECT_EQ(lines[12], " ...  ranks 31 to 40 alike");
  EXPECT_NE(lines[13].find("NVIDIA A100"), std::string::npos);
  EXPECT_EQ(lines[14], " ...  ranks 42 to 59 alike");
}

TEST(Banner, ManyOddRanksAreCutToo) {
  std::vector<RankSeat> seats = cluster(125, 8);
  for (size_t rank = 1; rank < seats.size(); ++rank) seats[rank].nic = "";
  const std::vector<std::string> lines = seat_lines(seats);
  EXPECT_EQ(lines.size(), 2u + 8 + 16 + 1 + 4);
  EXPECT_EQ(lines[26], " ...  ranks 24 to 995 shown no more");
}

TEST(Banner, TheDecisionNamesTheNetworkAndEachVariableWithItsReason) {
  EXPECT_EQ(decision_lines({}), (std::vector<std::string>{"network: none needed, one host"}));
  NetworkDecision decision{.expected = NetworkKind::efa};
  decision.settings = {{"NCCL_BUFFSIZE", "8388608", "AWS's own setting for EFA"}};
  EXPECT_EQ(decision_lines(decision),
            (std::vector<std::string>{"network: EFA expected between hosts",
                                      "  set NCCL_BUFFSIZE=8388608: AWS's own setting for EFA"}));
}

TEST(Banner, TheNetworkThatNcclTookStandsBesideTheExpectedOne) {
  const NetworkDecision efa{.expected = NetworkKind::efa}, alone{.expected = NetworkKind::none};
  const struct {
    ChosenNetwork chosen;
    NetworkDecision decision;
    const char* line;
  } rows[] = {
      {{NetworkKind::efa, "EFA by Libfabric, 4 devices", true},
       efa,
       "NCCL took EFA by Libfabric, 4 devices, straight to and from GPU memory"},
      {{NetworkKind::tcp, "TCP, eth0"}, efa, "NCCL took TCP, eth0, not EFA as expected"},
      {{NetworkKind::tcp, "TCP, eth0"}, alone, "NCCL took TCP, eth0"},
      {{NetworkKind::unknown, "FasTrak"}, efa, "NCCL took FasTrak"},
      {{},
       efa,
       "NCCL did not say which network it took; NCCL_DEBUG=INFO and NCCL_DEBUG_SUBSYS=INIT,NET make it"},
  };
  for (const auto& row : rows) EXPECT_EQ(chosen_line(row.chosen, row.decision), row.line);
}

}  // namespace
}  // namespace ptrain
