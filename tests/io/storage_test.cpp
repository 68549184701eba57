#include "src/io/storage.h"

#include <gtest/gtest.h>

#include <fstream>

#include "kernels/base/error.h"
#include "parallel/comm/agree.h"
#include "tests/support/fixtures.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

/// Six ranks on three hosts, uneven; each host sees the directory that its number stands at.
const std::vector<std::string> hosts = {"host-a", "host-a", "host-a", "host-b", "host-c", "host-c"};

Disks disks_where(const std::vector<int>& directory_of_rank, const fs::path& root) {
  Disks found;
  run_ranks(6, [&](Communicator& world) {
    const auto rank = static_cast<size_t>(world.rank());
    const Disks disks = find_disks(world, hosts, root / std::to_string(directory_of_rank[rank]));
    if (rank == 4) found = disks;
  });
  return found;
}

TEST(Storage, WhoSeesTheSameDirectoryIsFoundOutAndNothingIsLeftThere) {
  struct Case {
    std::vector<int> directories;
    std::vector<int> disks;
    std::vector<std::string> names;
  };
  const Case cases[] = {
      {{0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0}, {"host-a"}},
      {{0, 0, 0, 1, 2, 2}, {0, 0, 0, 1, 2, 2}, {"host-a", "host-b", "host-c"}},
      {{0, 0, 0, 1, 0, 0}, {0, 0, 0, 1, 0, 0}, {"host-a", "host-b"}},
      {{0, 0, 0, 1, 1, 1}, {0, 0, 0, 1, 1, 1}, {"host-a", "host-b"}},
  };
  for (const Case& c : cases) {
    TemporaryDirectory root;
    const Disks found = disks_where(c.directories, root.path());
    EXPECT_EQ(found.of_rank, c.disks);
    EXPECT_EQ(found.names, c.names);
    for (const auto& entry : fs::recursive_directory_iterator(root.path()))
      EXPECT_TRUE(entry.is_directory()) << entry.path();
  }
}

TEST(Storage, ADirectoryThatCannotBeWrittenIsToldToAll) {
  TemporaryDirectory root;
  std::ofstream(root.path() / "file") << "not a directory";
  run_ranks(6, [&](Communicator& world) {
    const bool is_bad = hosts[static_cast<size_t>(world.rank())] == "host-b";
    try {
      find_disks(world, hosts, root.path() / (is_bad ? "file" : "fine"));
      ADD_FAILURE();
    } catch (const AgreedError& error) {
      EXPECT_EQ(error.code(), ExitCode::resources) << error.what();
    }
  });
}

TEST(Storage, GroupsAreTheRanksOfADiskAndTheirFirstOnes) {
  run_ranks(6, [&](Communicator& world) {
    const Storage storage(world, StorageKind::per_node, disk_of_each_host(hosts, 6));
    const int sizes[] = {3, 3, 3, 1, 2, 2};
    EXPECT_EQ(storage.group().size(), sizes[world.rank()]);
    EXPECT_EQ(storage.disk(), storage.disks().of_rank[static_cast<size_t>(world.rank())]);
    const bool is_first = world.rank() == 0 || world.rank() == 3 || world.rank() == 4;
    EXPECT_EQ(storage.is_first_of_disk(), is_first);
    ASSERT_EQ(storage.firsts() != nullptr, is_first);
    if (is_first) {
      EXPECT_EQ(storage.firsts()->rank(), storage.disk());
    }
    const Storage alone(world);
    EXPECT_EQ(&alone.group(), &world);
    EXPECT_EQ(alone.kind(), StorageKind::shared);
  });
}

TEST(Storage, AWishComesToThisOrIsRefusedWithTheReason) {
  const Disks same{{0, 0, 0, 0, 0, 0}, {"host-a"}};
  const Disks apart = disk_of_each_host(hosts, 6);
  const std::vector<std::string> one_host(6, "host-a");
  struct Case {
    StorageWish wish;
    std::vector<std::string> hosts;
    Disks disks;
    std::string expected;  // kind and reason, or the refusal
  };
  const Case cases[] = {
      {StorageWish::automatic, one_host, same, "shared: all ranks are on one host"},
      {StorageWish::automatic, {}, one_disk(6), "shared: all ranks are on one host"},
      {StorageWish::shared, one_host, same, "shared: all ranks are on one host"},
      {StorageWish::per_node, one_host, same, "per_node: as asked for, on one host"},
      {StorageWish::automatic, hosts, same, "shared: the 3 hosts see the same /out"},
      {StorageWish::shared, hosts, same, "shared: the 3 hosts see the same /out"},
      {StorageWish::per_node, hosts, same,
       "c.yaml:3: checkpoint.storage is per_node, but the 3 hosts see the same"},
      {StorageWish::automatic, hosts, apart,
       "per_node: host-b does not see what host-a writes into /out: 3 disks for the 3 hosts"},
      {StorageWish::per_node, hosts, apart, "per_node: host-b does not see what host-a writes into /out"},
      {StorageWish::shared, hosts, apart,
       "is shared, but host-b does not see what host-a writes into /out; set it to"},
  };
  for (const Case& c : cases) {
    std::string text;
    try {
      const StorageChoice choice =
          choose_storage(c.wish, c.hosts, c.disks, "c.yaml:3: checkpoint.storage", "/out");
      text = fmt::format("{}: {}", choice.kind == StorageKind::shared ? "shared" : "per_node", choice.why);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      text = error.what();
    }
    EXPECT_NE(text.find(c.expected), std::string::npos) << text << "\n  expected: " << c.expected;
  }
}

}  // namespace
}  // namespace ptrain
