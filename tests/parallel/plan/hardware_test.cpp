#include "parallel/plan/hardware.h"

#include <gtest/gtest.h>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

TEST(Hardware, IsFoundByNameOrByMemory) {
  for (const char* name : {"h200", "h100", "a100-80", "a100-40", "a10g", "l4", "cpu:16", "cpu:0.5"}) {
    const Hardware hardware = hardware_of(name);
    EXPECT_EQ(hardware.name, name);
    EXPECT_GT(hardware.peak_flops, 0);
    EXPECT_TRUE(hardware.reachable > 0 && hardware.reachable <= 1);
    EXPECT_TRUE(hardware.links_reach > 0 && hardware.links_reach <= 1);
    EXPECT_TRUE(hardware.network_reaches > 0 && hardware.network_reaches <= 1);
    EXPECT_GT(hardware.memory_bytes, hardware.reserved_bytes);
    EXPECT_FALSE(hardware.source.empty());
  }
  EXPECT_EQ(hardware_of("cpu:16").memory_bytes, int64_t{16} << 30);
  for (const char* name : {"h300", "", "cpu:", "cpu:-1", "cpu:x", "cpu:8GiB", "cpu:nan", "cpu:inf"}) {
    try {
      hardware_of(name);
      ADD_FAILURE() << name << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
    }
  }
}

TEST(Hardware, EveryInstanceKindHasRanksANetworkAndAShareOfItsHost) {
  for (const InstanceKind& kind : instance_kinds()) {
    const Hardware hardware = hardware_of(kind);
    EXPECT_EQ(hardware.name, kind.hardware);
    EXPECT_EQ(hardware.ranks_per_node, kind.gpus);
    EXPECT_DOUBLE_EQ(hardware.network_bytes_per_s * kind.gpus, kind.network_bytes_per_s);
    EXPECT_EQ(hardware.host_memory_bytes * kind.gpus, kind.memory_bytes);
    EXPECT_NE(hardware.source.find(kind.name), std::string::npos);
  }
  // 400 Gb/s are 50 GB/s of a node of eight.
  EXPECT_DOUBLE_EQ(hardware_of("a100-40").network_bytes_per_s, 6.25e9);
}

TEST(Hardware, AnInstanceIsFoundUnderBothOfItsNames) {
  EXPECT_EQ(instance_kind_of("p4d.24xlarge").hardware, "a100-40");
  EXPECT_EQ(instance_kind_of("ml.p4d.24xlarge").name, "p4d.24xlarge");
  try {
    instance_kind_of("p9.huge");
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_NE(std::string(error.what()).find("p9.huge is not known; known are p5en.48xlarge, "),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace ptrain
