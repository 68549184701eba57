// Memory nodes from /sys, what binding comes to, and the binding of this very process.
#include "parallel/comm/numa.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "kernels/base/error.h"
#include "tests/support/made_up_tree.h"

namespace ptrain {
namespace {

TEST(Numa, NodesAreReadWithTheirCores) {
  const MadeUpTree tree;
  EXPECT_TRUE(read_numa_nodes(tree.root()).empty());
  tree.file("sys/devices/system/node/node0/cpulist", "0-2,6\n");
  tree.file("sys/devices/system/node/node1/cpulist", "3-5\n");
  tree.file("sys/devices/system/node/node2/cpulist", "\n");  // memory without cores
  tree.file("sys/devices/system/node/node10/cpulist", "7\n");
  tree.file("sys/devices/system/node/online", "0-2\n");
  tree.folder("sys/devices/system/node/nodes");
  const std::map<int, CpuList> expected = {{0, {0, 1, 2, 6}}, {1, {3, 4, 5}}, {10, {7}}};
  EXPECT_EQ(read_numa_nodes(tree.root()), expected);
}

TEST(Numa, ThePartOfAPathThatIsPciIsCutOut) {
  const struct {
    const char* path;
    const char* part;
  } rows[] = {
      {"/sys/devices/pci0000:15/0000:15:01.0/0000:17:00.0", "pci0000:15/0000:15:01.0/0000:17:00.0"},
      {"/sys/devices/pci0000:15/0000:17:00.0/infiniband/mlx5_0", "pci0000:15/0000:17:00.0"},
      {"/sys/devices/virtual/net/lo", ""},
      {"", ""},
  };
  for (const auto& row : rows) EXPECT_EQ(pci_part_of(row.path), row.part);
}

TEST(Numa, BindingLeavesAloneWhatIsAlreadyNarrow) {
  using Kind = Binding::Kind;
  const struct {
    CpuList node, allowed;
    Kind kind;
    CpuList cpus;
  } rows[] = {
      {{0, 1, 2, 3}, {0, 1, 2, 3, 4, 5, 6, 7}, Kind::bound, {0, 1, 2, 3}},
      {{4, 5, 6, 7}, {0, 1, 2, 3, 4, 5}, Kind::bound, {4, 5}},
      {{0, 1, 2, 3}, {2}, Kind::kept_narrower, {2}},
      {{0, 1, 2, 3}, {0, 1, 2, 3}, Kind::kept_narrower, {0, 1, 2, 3}},
      {{0, 1, 2, 3}, {4, 5}, Kind::kept_elsewhere, {4, 5}},
      {{0, 1, 2, 3}, {3, 4}, Kind::kept_elsewhere, {3, 4}},
      {{0, 1}, {4, 5, 6, 7}, Kind::kept_elsewhere, {4, 5, 6, 7}},
      {{}, {0, 1}, Kind::kept_unknown, {0, 1}},
  };
  for (const auto& row : rows) {
    const Binding binding = binding_to(row.node, row.allowed);
    EXPECT_EQ(binding.kind, row.kind) << to_string(row.allowed) << " to " << to_string(row.node);
    EXPECT_EQ(binding.cpus, row.cpus) << to_string(row.allowed) << " to " << to_string(row.node);
  }
}

/// Runs in a process of its own, since a binding cannot be taken back in every container; its exit code.
int in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

TEST(Numa, EveryThreadOfTheProcessIsBoundAndSoAreLaterOnes) {
  const CpuList before = allowed_cpus();
  ASSERT_FALSE(before.empty());
  if (before.size() < 2) GTEST_SKIP() << "one core: there is nothing narrower to bind to";
  const CpuList node = {before.back()};
  const int code = in_child([&] {
    std::atomic<bool> is_bound{false}, is_right{false};
    std::thread older([&] {
      while (!is_bound) std::this_thread::yield();
      is_right = allowed_cpus() == node;
    });
    const Binding binding = bind_process(node);
    is_bound = true;
    older.join();
    bool is_later_right = false;
    std::thread([&] { is_later_right = allowed_cpus() == node; }).join();
    if (binding.kind != Binding::Kind::bound || binding.cpus != node) return 1;
    if (allowed_cpus() != node) return 2;
    if (!is_right) return 3;
    if (!is_later_right) return 4;
    // Bound by now: asking for another node changes nothing.
    if (bind_process({before.front()}).kind != Binding::Kind::kept_elsewhere) return 5;
    return allowed_cpus() == node ? 0 : 6;
  });
  EXPECT_EQ(code, 0);
  EXPECT_EQ(allowed_cpus(), before);
}

TEST(Numa, ANodeThatHoldsAllOurCoresChangesNothing) {
  const CpuList before = allowed_cpus();
  EXPECT_EQ(bind_process(before).kind, Binding::Kind::kept_narrower);
  EXPECT_EQ(bind_process({}).kind, Binding::Kind::kept_unknown);
  EXPECT_EQ(allowed_cpus(), before);
}

}  // namespace
}  // namespace ptrain
