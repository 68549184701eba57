#include "src/io/storage.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <thread>

#include "kernels/base/error.h"
#include "parallel/comm/agree.h"
#include "parallel/comm/host_objects.h"
#include "src/io/file.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

/// Names by which equal hosts are told from others; numbers in the order of their lowest rank.
std::vector<int> numbered(std::span<const std::string> hosts, int ranks) {
  std::vector<int> numbers(static_cast<size_t>(ranks));
  std::map<std::string_view, int> number_of;
  for (size_t rank = 0; rank < hosts.size(); ++rank)
    numbers[rank] = number_of.emplace(hosts[rank], static_cast<int>(number_of.size())).first->second;
  return numbers;
}

std::string name_of_rank(std::span<const std::string> hosts, size_t rank) {
  return hosts.empty() ? "this host" : hosts[rank];
}

/// One host's side of the look-up.
class Look {
 public:
  Look(const fs::path& directory, std::string token) : directory_(directory), token_(std::move(token)) {}

  fs::path file_of(int host) const { return directory_ / fmt::format(".storage-{}-{}", token_, host); }
  bool sees(int host) const {
    std::error_code error;
    return fs::exists(file_of(host), error);
  }
  /// The lowest host whose file is here: at the latest one's own.
  int lowest_seen(int own) const {
    int host = 0;
    while (host < own && !sees(host)) ++host;
    return host;
  }
  /// Some network file systems show a new name late.
  bool sees_soon(int host) const {
    for (int tries = 0; tries < 20; ++tries) {
      if (sees(host)) return true;
      std::this_thread::sleep_for(100ms);
    }
    return sees(host);
  }

 private:
  fs::path directory_;
  std::string token_;
};

std::string hosts_text(std::span<const std::string> hosts) {
  const std::set<std::string> names(hosts.begin(), hosts.end());
  return fmt::format("the {} hosts", names.size());
}

}  // namespace

int Disks::first_rank(int disk) const {
  return static_cast<int>(std::find(of_rank.begin(), of_rank.end(), disk) - of_rank.begin());
}

std::vector<int> Disks::ranks_of(int disk) const {
  std::vector<int> ranks;
  for (size_t rank = 0; rank < of_rank.size(); ++rank)
    if (of_rank[rank] == disk) ranks.push_back(static_cast<int>(rank));
  return ranks;
}

Disks one_disk(int ranks) {
  return {std::vector<int>(static_cast<size_t>(ranks)), {"this host"}};
}

Disks disk_of_each_host(std::span<const std::string> hosts, int ranks) {
  if (hosts.empty()) return one_disk(ranks);
  Disks disks{numbered(hosts, ranks), {}};
  for (size_t rank = 0; rank < hosts.size(); ++rank)
    if (disks.of_rank[rank] == disks.count()) disks.names.push_back(hosts[rank]);
  return disks;
}

Disks find_disks(Communicator& world, std::span<const std::string> hosts, const fs::path& directory) {
  const Disks by_host = disk_of_each_host(hosts, world.size());
  const int host = by_host.of_rank[static_cast<size_t>(world.rank())];
  const bool is_looking = by_host.first_rank(host) == world.rank();
  const auto now = std::chrono::system_clock::now().time_since_epoch().count();
  const Look look(directory, broadcast_text(world, fmt::format("{:x}-{:x}", ::getpid(), now), 0));

  // 1. Every host writes its file, then looks for those of the hosts before it.
  agreed(world, [&] {
    if (!is_looking) return;
    make_directories(directory);
    File::create(look.file_of(host), 0).close();
  });
  int64_t seen = is_looking ? look.lowest_seen(host) : 0;
  std::vector<int64_t> seen_by(static_cast<size_t>(world.size()));
  world.all_gather(Tensor(&seen, Shape{1}, DType::i64),
                   Tensor(seen_by.data(), Shape{world.size()}, DType::i64));

  // 2. The lowest host of each disk looks for those that found it.
  int64_t unseen = by_host.count();
  for (int other = 0; is_looking && other < by_host.count(); ++other) {
    const bool shares = seen_by[static_cast<size_t>(by_host.first_rank(other))] == host;
    if (shares && !look.sees_soon(other)) unseen = std::min<int64_t>(unseen, other);
  }
  world.all_reduce(Tensor(&unseen, Shape{1}, DType::i64), Reduce::min);
  std::error_code ignored;
  if (is_looking) fs::remove(look.file_of(host), ignored);
  agreed(world, [&] {
    if (unseen == by_host.count()) return;
    const int64_t lowest = seen_by[static_cast<size_t>(by_host.first_rank(static_cast<int>(unseen)))];
    fail(ExitCode::usage,
         "{}: {} sees what {} writes there, but not the other way round: mount the same file system on both, "
         "or give each a disk of its own",
         directory.string(), by_host.names[static_cast<size_t>(unseen)],
         by_host.names[static_cast<size_t>(lowest)]);
  });

  // 3. Hosts that saw the same lowest one share its disk.
  Disks disks{std::vector<int>(static_cast<size_t>(world.size())), {}};
  std::map<int64_t, int> disk_of;
  for (size_t rank = 0; rank < disks.of_rank.size(); ++rank) {
    const int64_t lowest = seen_by[static_cast<size_t>(by_host.first_rank(by_host.of_rank[rank]))];
    disks.of_rank[rank] = disk_of.emplace(lowest, disks.count()).first->second;
    if (disks.of_rank[rank] == disks.count()) disks.names.push_back(name_of_rank(hosts, rank));
  }
  return disks;
}

StorageChoice choose_storage(StorageWish wish, std::span<const std::string> hosts, const Disks& disks,
                             std::string_view key, const fs::path& directory) {
  const int num_hosts = disk_of_each_host(hosts, static_cast<int>(disks.of_rank.size())).count();
  if (num_hosts == 1) {
    if (wish == StorageWish::per_node) return {StorageKind::per_node, "as asked for, on one host"};
    return {StorageKind::shared, "all ranks are on one host"};
  }
  const std::string where = directory.string();
  if (disks.count() == 1) {
    check(
        wish != StorageWish::per_node, ExitCode::usage,
        "{} is per_node, but {} see the same directory {}; set it to auto or shared, or give an output on a "
        "disk of each host's own",
        key, hosts_text(hosts), where);
    return {StorageKind::shared, fmt::format("{} see the same {}", hosts_text(hosts), where)};
  }
  check(wish != StorageWish::shared, ExitCode::usage,
        "{} is shared, but {} does not see what {} writes into {}; set it to auto or per_node, or give an "
        "output on a file system that all hosts see",
        key, disks.names[1], disks.names[0], where);
  return {StorageKind::per_node,
          fmt::format("{} does not see what {} writes into {}: {} disks for {}", disks.names[1],
                      disks.names[0], where, disks.count(), hosts_text(hosts))};
}

Storage::Storage(Communicator& world) : world_(&world), disks_(one_disk(world.size())) {}

Storage::Storage(Communicator& world, StorageKind kind, Disks disks)
    : world_(&world), kind_(kind), disks_(std::move(disks)) {
  if (disks_.count() == 1) return;
  group_ = world.split(disk(), world.rank());
  firsts_ = world.split(is_first_of_disk() ? 0 : -1, world.rank());
}

FoundStorage find_storage(Communicator& world, std::span<const std::string> hosts, StorageWish wish,
                          std::string_view key, const fs::path& directory) {
  const bool is_one_host = disk_of_each_host(hosts, world.size()).count() == 1;
  Disks disks = one_disk(world.size());
  if (is_one_host && !hosts.empty()) disks.names = {hosts[0]};
  if (!is_one_host) disks = find_disks(world, hosts, directory);
  StorageChoice choice;
  agreed(world, [&] { choice = choose_storage(wish, hosts, disks, key, directory); });
  return {.storage = Storage(world, choice.kind, std::move(disks)),
          .is_one_host = is_one_host,
          .why = std::move(choice.why)};
}

}  // namespace ptrain
