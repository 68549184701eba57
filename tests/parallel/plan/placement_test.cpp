// Which GPU, cores and NIC each rank takes; tensor groups and hosts.
#include "parallel/plan/placement.h"

#include <gtest/gtest.h>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

GpuSeat gpu(std::string bus_id, int node, std::string path = "") {
  return {"NVIDIA H100", int64_t{80} << 30, 9, 0, std::move(bus_id), std::move(path), node};
}

RankView host_view(std::string host, std::vector<GpuSeat> gpus) {
  return {.host = std::move(host), .gpus = std::move(gpus), .cpus_of_node = {{0, {0, 1, 2}}, {1, {3, 4, 5}}}};
}

const GpuSeat a = gpu("0000:17:00.0", 0), b = gpu("0000:65:00.0", 0), c = gpu("0000:a1:00.0", 1);

std::vector<int> devices(const std::vector<RankView>& views, ShareDevices share = ShareDevices::refused) {
  std::vector<int> result;
  for (const RankSeat& seat : seats_of_ranks(views, share)) result.push_back(seat.device);
  return result;
}

/// The error's text; empty where there is none.
std::string message_of(ExitCode code, const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  return "";
}

bool holds(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST(Placement, TheDeviceIsTheLocalRankOrZeroWhereEachIsShownItsOwn) {
  const RankView all = host_view("n1", {a, b, c}), other = host_view("n2", {a, b, c});
  const RankView only_a = host_view("n1", {a}), only_b = host_view("n1", {b}), only_c = host_view("n1", {c});
  const struct {
    std::vector<RankView> views;
    std::vector<int> devices;
  } rows[] = {
      {{}, {}},
      {{all}, {0}},
      {{all, all, all}, {0, 1, 2}},
      {{all, all, other, other, other}, {0, 1, 0, 1, 2}},
      {{all, other, all, other}, {0, 0, 1, 1}},
      {{only_a, only_b, only_c}, {0, 0, 0}},
      {{host_view("n1", {a, b}), host_view("n1", {a, b}), only_c}, {0, 1, 0}},
      {{host_view("n1", {c, a}), only_b}, {0, 0}},
  };
  for (const auto& row : rows) EXPECT_EQ(devices(row.views), row.devices);
}

TEST(Placement, MoreRanksThanGpusAreRefusedUnlessTheyMayShare) {
  const RankView two = host_view("n1", {a, b});
  const std::vector<RankView> five(5, two);
  const std::string text = message_of(ExitCode::usage, [&] { seats_of_ranks(five, ShareDevices::refused); });
  EXPECT_TRUE(holds(text, "host n1 has 5 ranks for 2 GPUs (0000:17:00.0, 0000:65:00.0)")) << text;
  EXPECT_TRUE(holds(text, "mpirun --map-by ppr:2:node")) << text;
  EXPECT_TRUE(holds(text, "parallel.share_devices: true")) << text;
  EXPECT_EQ(devices(five, ShareDevices::allowed), (std::vector<int>{0, 1, 0, 1, 0}));
  EXPECT_TRUE(has_shared_device(seats_of_ranks(five, ShareDevices::allowed)));
  EXPECT_FALSE(has_shared_device(seats_of_ranks(std::vector<RankView>(2, two), ShareDevices::allowed)));
}

TEST(Placement, RanksThatWouldMeetOnAGpuAreRefused) {
  const std::vector<RankView> views = {host_view("n1", {a, b}), host_view("n1", {b}),
                                       host_view("n1", {b, c})};
  const std::string text = message_of(ExitCode::usage, [&] { seats_of_ranks(views, ShareDevices::refused); });
  EXPECT_TRUE(holds(text, "ranks 1 and 2 on host n1 would both use GPU 0000:65:00.0")) << text;
  EXPECT_EQ(devices(views, ShareDevices::allowed), (std::vector<int>{0, 0, 0}));
  // The same bus id on another host is another GPU.
  EXPECT_EQ(devices({host_view("n1", {a}), host_view("n2", {a})}), (std::vector<int>{0, 0}));
}

TEST(Placement, ARankWithoutAGpuIsSaidSo) {
  const std::vector<RankView> views = {host_view("n1", {a}), host_view("n2", {})};
  for (const ShareDevices share : {ShareDevices::refused, ShareDevices::allowed}) {
    const std::string text = message_of(ExitCode::resources, [&] { seats_of_ranks(views, share); });
    EXPECT_TRUE(holds(text, "rank 1 on host n2 sees no GPU")) << text;
  }
}

TEST(Placement, CoresAreThoseOfTheGpusNode) {
  RankView view = host_view("n1", {a, c, gpu("0000:b1:00.0", -1), gpu("0000:c1:00.0", 7)});
  const std::vector<RankSeat> seats = seats_of_ranks(std::vector<RankView>(4, view), ShareDevices::refused);
  EXPECT_EQ(seats[0].cpus, (CpuList{0, 1, 2}));
  EXPECT_EQ(seats[0].numa_node, 0);
  EXPECT_EQ(seats[1].cpus, (CpuList{3, 4, 5}));
  EXPECT_EQ(seats[1].numa_node, 1);
  EXPECT_TRUE(seats[2].cpus.empty());
  EXPECT_TRUE(seats[3].cpus.empty());
  EXPECT_EQ(seats[3].local_rank, 3);
  EXPECT_EQ(seats[1].gpu.pci_bus_id, c.pci_bus_id);
}

TEST(Placement, TheNearestNicSharesMostBridgesThenTheNode) {
  const struct {
    const char* what;
    std::vector<GpuSeat> gpus;
    std::vector<NicSeat> nics;
    std::vector<std::string> chosen;  // of ranks 0, 1, …
  } rows[] = {
      {"no NIC", {a}, {}, {""}},
      {"a switch of its own",
       {gpu("g0", 0, "r0/s0/g0"), gpu("g1", 0, "r0/s1/g1")},
       {{"n0", "r0/s1/n0", 0}, {"n1", "r0/s0/n1", 0}},
       {"n1", "n0"}},
      {"equally near ones in turn",
       {gpu("g0", 0, "r0/s0/g0"), gpu("g1", 0, "r0/s0/g1"), gpu("g2", 0, "r0/s0/g2")},
       {{"n0", "r0/s0/n0", 0}, {"n1", "r0/s0/n1", 0}, {"n2", "r1/s0/n2", 1}},
       {"n0", "n1", "n0"}},
      {"only the node is known", {gpu("g0", 1), gpu("g1", 0)}, {{"n0", "", 0}, {"n1", "", 1}}, {"n1", "n0"}},
      {"another root, the same node",
       {gpu("g0", 1, "r0/g0")},
       {{"n0", "r1/n0", 0}, {"n1", "r2/n1", 1}},
       {"n1"}},
      {"nothing is known", {gpu("g0", -1), gpu("g1", -1)}, {{"n0", "", -1}, {"n1", "", -1}}, {"n0", "n1"}},
      {"names that only begin alike",
       {gpu("g0", 0, "r0/s1/g0")},
       {{"n0", "r0/s10/n0", 0}, {"n1", "r0/s1/n1", 0}},
       {"n1"}},
  };
  for (const auto& row : rows) {
    RankView view = host_view("n1", row.gpus);
    view.nics = row.nics;
    const std::vector<RankView> views(row.gpus.size(), view);
    const std::vector<RankSeat> seats = seats_of_ranks(views, ShareDevices::refused);
    for (size_t rank = 0; rank < seats.size(); ++rank) {
      EXPECT_EQ(seats[rank].nic, row.chosen[rank]) << row.what << ", rank " << rank;
    }
  }
}

TEST(Placement, TensorGroupsStayInsideAHost) {
  const std::vector<std::string> hosts = {"n1", "n1", "n1", "n1", "n2", "n2", "n2", "n2"};
  const std::vector<std::string> uneven = {"n1", "n1", "n1", "n2", "n2", "n2"};
  const struct {
    Mesh mesh;
    std::vector<std::string> hosts;
    const char* message;  // null = fits
  } rows[] = {
      {{.pipeline = 1, .data = 8, .tensor = 1}, hosts, nullptr},
      {{.pipeline = 2, .data = 1, .tensor = 4}, hosts, nullptr},
      {{.pipeline = 2, .data = 2, .tensor = 2}, hosts, nullptr},
      {{.pipeline = 1, .data = 1, .tensor = 8},
       hosts,
       "parallel.tensor = 8: the group of ranks 0 to 7 spans the hosts n1 (4 ranks) and n2 (4 ranks)"},
      {{.pipeline = 1, .data = 3, .tensor = 2},
       uneven,
       "the group of ranks 2 to 3 spans the hosts n1 (3 ranks)"},
      {{.pipeline = 2, .data = 1, .tensor = 3}, uneven, nullptr},
  };
  for (const auto& row : rows) {
    const std::string text =
        message_of(ExitCode::usage, [&] { check_tensor_groups(row.mesh, row.hosts, "parallel.tensor"); });
    if (row.message == nullptr) {
      EXPECT_EQ(text, "");
    } else {
      EXPECT_TRUE(holds(text, row.message)) << text;
      EXPECT_TRUE(holds(text, "parallel.allow_tensor_across_nodes: true")) << text;
    }
  }
  EXPECT_THROW(check_tensor_groups({.data = 4}, hosts, "parallel.tensor"), Error);
}

TEST(Placement, CoreListsAreReadAndWrittenAsTheKernelDoes) {
  const struct {
    const char* text;
    CpuList cpus;
  } rows[] = {{"", {}}, {"0", {0}}, {"0-3,8,10-11", {0, 1, 2, 3, 8, 10, 11}}, {"5,7-9", {5, 7, 8, 9}}};
  for (const auto& row : rows) {
    EXPECT_EQ(parse_cpu_list(row.text), row.cpus) << row.text;
    EXPECT_EQ(parse_cpu_list(std::string(row.text) + "\n"), row.cpus) << row.text;
    EXPECT_EQ(to_string(row.cpus), row.text);
  }
  for (const char* wrong :
       {"a", "3-1", "1,", ",1", "1--2", "-1", "2,1", "0-3,3", "0-99999999", "0 1", "4-"}) {
    EXPECT_THROW(parse_cpu_list(wrong), Error) << wrong;
  }
}

TEST(Placement, AViewTravelsAsText) {
  RankView view =
      host_view("host-7", {gpu("0000:17:00.0", 1, "pci0000:15/0000:15:01.0/0000:17:00.0"), gpu("x", -1)});
  view.nics = {{"mlx5_0", "pci0000:15/0000:15:02.0", 0}, {"mlx5_1", "", -1}};
  const RankView back = rank_view_from_text(to_text(view));
  EXPECT_EQ(to_text(back), to_text(view));
  EXPECT_EQ(back.host, view.host);
  ASSERT_EQ(back.gpus.size(), 2u);
  EXPECT_EQ(back.gpus[0].name, "NVIDIA H100");
  EXPECT_EQ(back.gpus[0].total_bytes, int64_t{80} << 30);
  EXPECT_EQ(back.gpus[0].major, 9);
  EXPECT_EQ(back.gpus[0].pci_path, view.gpus[0].pci_path);
  EXPECT_EQ(back.gpus[1].numa_node, -1);
  ASSERT_EQ(back.nics.size(), 2u);
  EXPECT_EQ(back.nics[1].numa_node, -1);
  EXPECT_EQ(back.cpus_of_node, view.cpus_of_node);
  RankView odd = host_view("a\tb\nnode\t9\t1", {});
  EXPECT_EQ(rank_view_from_text(to_text(odd)).host, "a b node 9 1");
  for (const char* wrong : {"host\n", "gpu\t1\n", "nic\ta\tb\tc\n", "seat\t1\n", "node\t1\t3-1\n"})
    EXPECT_THROW(rank_view_from_text(wrong), Error) << wrong;
}

}  // namespace
}  // namespace ptrain
