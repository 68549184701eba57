#include "parallel/comm/mpi_interfaces.h"

#include <gtest/gtest.h>

namespace ptrain {
namespace {

const std::vector<HostInterface> host = {
    {"lo", true, {0x7F000001}}, {"eth0", false, {0x0A4D0001}}, {"docker0", false, {0xAC110001}}};

TEST(MpiInterfaces, WhatReachesOtherHostsIsNotObjectedTo) {
  for (const char* include : {"eth0", "eth7,eth0", "lo,eth0", "10.77.0.0/24", "10.0.0.0/8", "10.77.0.1/32",
                              "0.0.0.0/0", "eth7,10.77.0.0/16", "fd00::/8", "10.77.0.0/x", ""})
    EXPECT_EQ(objection_to_interfaces(include, host), "") << include;
  EXPECT_EQ(objection_to_interfaces("eth0", {}), "") << "nothing is known of this host";
}

TEST(MpiInterfaces, WhatReachesNoneIsNamedWithWhatIsThere) {
  for (const char* include :
       {"eth7", "eth", "eth00", "10.78.0.0/16", "10.77.0.2/32", "eth7,192.168.0.0/16"}) {
    const std::string objection = objection_to_interfaces(include, host);
    EXPECT_TRUE(objection.starts_with(std::string("OMPI_MCA_btl_tcp_if_include=") + include +
                                      " names no interface of this host"))
        << include << ": " << objection;
    EXPECT_NE(objection.find("(this one has eth0, docker0)"), std::string::npos) << objection;
  }
  for (const char* include : {"lo", "127.0.0.0/8", "lo,eth7"})
    EXPECT_NE(objection_to_interfaces(include, host).find("names the loopback alone"), std::string::npos)
        << include;
}

TEST(MpiInterfaces, ThisHostHasALoopback) {
  for (const HostInterface& interface : host_interfaces()) {
    if (!interface.is_loopback) continue;
    EXPECT_EQ(objection_to_interfaces(interface.name, std::vector{interface}).empty(), false);
    return;
  }
  GTEST_SKIP() << "no loopback is up here";
}

}  // namespace
}  // namespace ptrain
