#include "launch/doctor/collect.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "launch/build_info.h"
#include "launch/revision.h"
#include "launch/threads.h"
#include "parallel/comm/clock.h"
#include "parallel/comm/host_objects.h"
#include "parallel/comm/nccl_door.h"
#include "parallel/comm/network_probe.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "src/io/storage.h"
#include "src/train/device_check.h"
#include "src/train/peak.h"

namespace ptrain::doctor {
namespace {

namespace fs = std::filesystem;

std::string program_text() {
  std::string text = fmt::format("{} {}", build_info::version, build_info::revision);
  for (const auto& [name, version] : build_info::parts) text += fmt::format(", {} {}", name, version);
  return text;
}

/// A line of /proc/meminfo in bytes; 0 where there is none.
int64_t meminfo(std::string_view name) {
  std::ifstream file("/proc/meminfo");
  for (std::string word; file >> word;) {
    int64_t kib = 0;
    if (word == name && file >> kib) return kib << 10;
  }
  return 0;
}

int64_t limit_of(int resource) {
  rlimit limit{};
  if (getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
    return -1;
  return static_cast<int64_t>(limit.rlim_cur);
}

LimitFacts limits_here() {
  LimitFacts limits{.locked_bytes = limit_of(RLIMIT_MEMLOCK), .open_files = limit_of(RLIMIT_NOFILE)};
  struct statvfs shared {};
  if (::statvfs("/dev/shm", &shared) == 0)
    limits.shared_memory_bytes = static_cast<int64_t>(shared.f_bavail * shared.f_frsize);
  return limits;
}

std::vector<std::string> addresses_of(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  std::vector<std::string> addresses;
  if (getaddrinfo(host.c_str(), nullptr, &hints, &list) != 0) return addresses;
  for (const addrinfo* one = list; one != nullptr; one = one->ai_next) {
    char text[NI_MAXHOST] = {};
    if (getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0)
      addresses.emplace_back(text);
  }
  freeaddrinfo(list);
  return addresses;
}

/// By the kernel's magic numbers, statfs(2).
std::string filesystem_name(const fs::path& path) {
  struct statfs found {};
  if (::statfs(path.c_str(), &found) != 0) return "unknown";
  switch (static_cast<uint64_t>(found.f_type) & 0xffffffffU) {
    case 0xEF53:
      return "ext4";
    case 0x58465342:
      return "xfs";
    case 0x9123683E:
      return "btrfs";
    case 0x6969:
      return "nfs";
    case 0x0BD00BD0:
      return "lustre";
    case 0x01021994:
      return "tmpfs";
    case 0x794C7630:
      return "overlay";
    case 0x65735546:
      return "fuse";
    case 0x47504653:
      return "gpfs";
    case 0x2FC12FC1:
      return "zfs";
    default:
      return fmt::format("type {:#x}", static_cast<uint64_t>(found.f_type));
  }
}

/// Writes, syncs and removes; what goes wrong is an answer, not an error.
DiskFacts disk_here(const DiskQuestion& question) {
  DiskFacts disk{.path = question.directory.string()};
  const fs::path file = question.directory / fmt::format(".ptrain-doctor-{}", ::getpid());
  try {
    make_directories(question.directory);
    struct statvfs space {};
    if (::statvfs(question.directory.c_str(), &space) == 0)
      disk.free_bytes = static_cast<int64_t>(space.f_bavail * space.f_frsize);
    disk.filesystem = filesystem_name(question.directory);
    const std::vector<char> piece(size_t{4} << 20, 'p');
    const auto bytes = static_cast<int64_t>(piece.size());
    double begin_s = now_s();
    File out = File::create(file, 4096);
    out.write_at(0, piece.data(), 4096);
    out.sync();
    disk.sync_s = now_s() - begin_s;
    begin_s = now_s();
    int64_t written = 0;
    for (; written + bytes <= std::min(question.bytes, disk.free_bytes / 2); written += bytes)
      out.write_at(written, piece.data(), bytes);
    out.sync();
    out.close();
    if (written > 0) disk.write_bytes_per_s = static_cast<double>(written) / (now_s() - begin_s);
  } catch (const Error& error) {
    disk.error = error.what();
  }
  std::error_code ignored;
  fs::remove(file, ignored);
  return disk;
}

/// Nothing where there is one host, or the directory cannot be written: that is said by its own line.
std::optional<bool> is_shared(const Session& session, Communicator& world, const fs::path& directory) {
  if (session.number_of_hosts() == 1) return std::nullopt;
  try {
    return find_disks(world, session.hosts(), directory).count() == 1;
  } catch (const AgreedError&) {
    return std::nullopt;
  }
}

void look_at_gpus(HostFacts& facts) {
  facts.versions = runtime::versions();
  const int count = runtime::device_count();
  for (int index = 0; index < count; ++index) facts.gpus.push_back(runtime::device_info(index));
  for (int a = 0; a < count; ++a) {
    for (int b = a + 1; b < count; ++b) {
      ++facts.gpu_pairs;
      facts.gpu_pairs_direct += runtime::has_peer_access(a, b) && runtime::has_peer_access(b, a);
    }
  }
}

/// What is the same for all ranks of a host, and what takes a while.
void look_at_host(const Arguments& arguments, HostFacts& facts) {
  look_at_gpus(facts);
  const auto nccl = facts.gpus.empty() ? nullptr : make_nccl();
  facts.network = probe_network({.environment = [&](const char* name) { return arguments.variable(name); },
                                 .nccl_version = nccl ? nccl->version() : 0,
                                 .hosts = facts.hosts});
  facts.limits = limits_here();
  facts.addresses = addresses_of(facts.host);
}

std::string to_text(const std::vector<Finding>& findings, const Likeness& likeness) {
  Json lines = Json::array();
  for (const Finding& finding : findings)
    lines.push_back({static_cast<int>(finding.verdict), finding.topic, finding.text, finding.fix});
  return Json{{"findings", lines}, {"likeness", likeness}}.dump();
}

}  // namespace

HostFacts collect(Session& session, const Arguments& arguments, const std::optional<DiskQuestion>& disk) {
  Communicator& world = session.world();
  const std::vector<std::string>& hosts = session.hosts();
  HostFacts facts;
  facts.host = hosts[static_cast<size_t>(world.rank())];
  facts.hosts = session.number_of_hosts();
  facts.ranks = session.ranks_on_node();
  facts.launcher = find_launcher([&](const char* name) { return arguments.variable(name); }).name;
  facts.mpi = mpi_library();
  facts.program = program_text();
  facts.cpu = cpu_model();
  facts.cores = machine_cores();
  facts.has_thread_count = arguments.variable("OMP_NUM_THREADS") != nullptr;
  facts.memory_bytes = meminfo("MemTotal:");
  facts.available_bytes = std::min(meminfo("MemAvailable:"), host_memory_bytes());
  if (session.local_rank() == 0) look_at_host(arguments, facts);  // it speaks for its host
  facts.allowed_cores = allowed_cores();
  for (const std::string& text :
       all_gather_text(world, fmt::format("{} {}", facts.allowed_cores, facts.host))) {
    const size_t blank = text.find(' ');
    if (text.substr(blank + 1) == facts.host)
      facts.allowed_cores = std::min(facts.allowed_cores, std::stoi(text));
  }
  const RankClock wall{.name = facts.host, .now_s = unix_time};
  const ClockOffset offset = clock_offset(world, wall, 8);
  facts.clock_ahead_s = -offset.offset_s;
  facts.clock_error_s = offset.error_s;
  if (!disk) return facts;
  if (session.local_rank() == 0) facts.disk = disk_here(*disk);
  const std::optional<bool> shared = is_shared(session, world, disk->directory);
  if (facts.disk) facts.disk->is_shared = shared;
  return facts;
}

JobFindings gather_findings(Session& session, const HostFacts& facts) {
  const bool speaks = session.local_rank() == 0;
  const std::vector<std::string> texts = all_gather_text(
      session.world(), speaks ? to_text(judge_host(facts), likeness_of(facts)) : std::string());
  JobFindings job;
  std::vector<Likeness> likeness;
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    if (texts[rank].empty()) continue;
    const Json one = parse_json(texts[rank], fmt::format("what rank {} found", rank));
    job.hosts.push_back(session.hosts()[rank]);
    std::vector<Finding>& findings = job.of_host.emplace_back();
    for (const Json& line : one["findings"]) {
      findings.push_back({static_cast<Verdict>(line.at(0).get<int>()), line.at(1).get<std::string>(),
                          line.at(2).get<std::string>(), line.at(3).get<std::string>()});
    }
    likeness.push_back(one["likeness"].get<Likeness>());
  }
  job.between = judge_likeness(job.hosts, likeness);
  return job;
}

void check_machine(Session& session, const Arguments& arguments) {
  const HostFacts facts = collect(session, arguments, std::nullopt);
  const JobFindings job = gather_findings(session, facts);
  agreed(session.world(), [&] {
    for (const Finding& finding : job.between)
      check(finding.verdict != Verdict::fail, ExitCode::usage, "{}. {}", finding.text, finding.fix);
  });
  if (session.world().rank() != 0) return;
  for (const Finding& finding : job.between)
    if (finding.verdict == Verdict::warn) log::warn("{}: {}. {}", finding.topic, finding.text, finding.fix);
  for (size_t host = 0; host < job.hosts.size(); ++host) {
    for (const Finding& finding : job.of_host[host]) {
      if (is_said_at_start(finding, !facts.gpus.empty()))
        log::warn("{}: {}: {}. {}", job.hosts[host], finding.topic, finding.text, finding.fix);
    }
  }
}

}  // namespace ptrain::doctor
