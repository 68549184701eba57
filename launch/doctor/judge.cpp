#include <algorithm>
#include <cmath>

#include "kernels/base/error.h"
#include "launch/doctor/facts.h"
#include "src/train/device_check.h"

namespace ptrain::doctor {
namespace {

constexpr int64_t mib = int64_t{1} << 20;
constexpr int64_t gib = int64_t{1} << 30;
constexpr int64_t shared_memory_of_rank = 32 * mib;  // of MPI's and NCCL's segments, roughly
constexpr double most_skew_s = 2;                    // above it times of files and logs of two hosts mislead

std::string size_text(int64_t bytes) {
  if (bytes < 0) return "unlimited";
  if (bytes < mib) return fmt::format("{} KiB", bytes / 1024);
  if (bytes < gib) return fmt::format("{} MiB", bytes / mib);
  return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / static_cast<double>(gib));
}

std::string cuda_version(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

/// Collects lines.
struct Report {
  const HostFacts& facts;
  std::vector<Finding> findings;

  void ok(std::string_view topic, std::string text) {
    findings.push_back({Verdict::ok, std::string(topic), std::move(text), {}});
  }
  void warn(std::string_view topic, std::string text, std::string fix) {
    findings.push_back({Verdict::warn, std::string(topic), std::move(text), std::move(fix)});
  }
  void fail(std::string_view topic, std::string text, std::string fix) {
    findings.push_back({Verdict::fail, std::string(topic), std::move(text), std::move(fix)});
  }
};

void judge_mpi(Report& report) {
  const HostFacts& facts = report.facts;
  if (facts.launcher.empty()) {
    report.ok("mpi", fmt::format("{}, not in use: a world of one; start several ranks with mpirun -np N",
                                 facts.mpi));
  } else {
    report.ok("mpi", fmt::format("{} by {}: {} ranks here, {} host{}", facts.mpi, facts.launcher, facts.ranks,
                                 facts.hosts, facts.hosts == 1 ? "" : "s"));
  }
  const int share = std::max(1, facts.cores / std::max(1, facts.ranks));
  if (facts.allowed_cores < share && facts.ranks > 1 && facts.gpus.empty()) {
    report.warn("binding",
                fmt::format("a rank may use {} of its share of {} cores: the launcher has bound it",
                            facts.allowed_cores, share),
                "start with mpirun --bind-to none, or srun --cpu-bind=none");
  } else if (facts.allowed_cores == 1 && facts.cores > 4 && !facts.gpus.empty()) {
    report.warn("binding",
                "a rank is bound to one core, which its loader, its GPU's queue and NCCL's threads share",
                "start with mpirun --bind-to none, or srun --cpu-bind=none");
  } else {
    report.ok("binding", fmt::format("{} of {} cores for a rank{}", facts.allowed_cores, facts.cores,
                                     facts.has_thread_count ? ", threads as OMP_NUM_THREADS says" : ""));
  }
}

void judge_memory(Report& report) {
  const HostFacts& facts = report.facts;
  report.ok("cpu", fmt::format("{}, {} cores", facts.cpu, facts.cores));
  const std::string text =
      fmt::format("{} of {} are free", size_text(facts.available_bytes), size_text(facts.memory_bytes));
  if (facts.available_bytes * 10 < facts.memory_bytes) {
    report.warn("memory", text + ": something else holds nearly all of it",
                "end what uses it, or raise the container's limit");
  } else {
    report.ok("memory", text);
  }
}

void judge_gpus(Report& report) {
  const HostFacts& facts = report.facts;
  if (facts.gpus.empty()) {
    const std::string why = facts.versions.toolkit == 0  ? "this program was built without CUDA"
                            : facts.versions.driver == 0 ? "no NVIDIA driver answers"
                                                         : "the driver answers, and shows no device";
    return report.ok("gpu", fmt::format("none ({}): runs take the CPU", why));
  }
  const runtime::DeviceInfo& first = facts.gpus.front();
  const std::string objection = objection_to_device(facts.versions, first, Config::Precision::fp32);
  if (!objection.empty()) return report.fail("gpu", objection, "update the driver, or build for this GPU");
  report.ok("gpu",
            fmt::format("{} x {}, {} each, sm_{}{}; the driver serves CUDA {}, built with {}",
                        facts.gpus.size(), first.name, size_text(first.total_bytes), first.major, first.minor,
                        cuda_version(facts.versions.driver), cuda_version(facts.versions.toolkit)));
  for (size_t i = 0; i < facts.gpus.size(); ++i) {
    const runtime::DeviceInfo& gpu = facts.gpus[i];
    if (gpu.name != first.name)
      report.warn(
          "gpu",
          fmt::format("GPU {} is a {}, GPU 0 a {}: the slower one sets the pace", i, gpu.name, first.name),
          "leave it out by CUDA_VISIBLE_DEVICES");
    if (gpu.free_bytes * 10 < gpu.total_bytes * 9)
      report.warn("gpu",
                  fmt::format("{} of {} of GPU {} are in use already",
                              size_text(gpu.total_bytes - gpu.free_bytes), size_text(gpu.total_bytes), i),
                  "nvidia-smi shows by whom; end it, or leave the GPU out by CUDA_VISIBLE_DEVICES");
  }
  if (facts.ranks > std::ssize(facts.gpus)) {
    report.fail(
        "gpu", fmt::format("{} ranks, but {} GPUs on this host", facts.ranks, facts.gpus.size()),
        fmt::format("start {} ranks a host, or set parallel.share_devices for a test", facts.gpus.size()));
  }
  if (facts.gpu_pairs == 0) return;
  if (facts.gpu_pairs_direct == facts.gpu_pairs)
    return report.ok("links", "every GPU reaches the memory of every other one here");
  report.warn("links",
              fmt::format("{} of {} pairs of GPUs reach each other's memory; the others go through the host",
                          facts.gpu_pairs_direct, facts.gpu_pairs),
              "keep tensor groups small here: pipeline or data parallel instead");
}

void judge_network(Report& report) {
  const HostFacts& facts = report.facts;
  if (!facts.gpus.empty()) {
    if (facts.network.nccl.is_known()) {
      report.ok("nccl", to_string(facts.network.nccl));
    } else if (facts.ranks > 1 || facts.hosts > 1) {
      report.warn("nccl", "is not found: tensors go through the host and MPI",
                  "install libnccl2, or add its folder to LD_LIBRARY_PATH");
    }
  }
  int64_t efa = 0;
  for (const RdmaDevice& device : facts.network.rdma) efa += device.kind == NetworkKind::efa;
  if (efa > 0) {
    report.ok("efa",
              fmt::format("{} device{}; libfabric {}, aws-ofi-nccl {}", efa, efa == 1 ? "" : "s",
                          facts.network.has_libfabric ? to_string(facts.network.libfabric) : "not found",
                          facts.network.plugin_path.empty() ? "not found" : to_string(facts.network.plugin)));
  }
  const NetworkDecision decision = decide_network(facts.network, SlowNetwork::refused);
  if (!decision.refusal.empty())
    report.fail("network", decision.refusal, "see above; a run would refuse to start");
  for (const std::string& warning : decision.warnings) report.warn("network", warning, "");
  if (facts.hosts == 1 && decision.refusal.empty()) return report.ok("network", "one host: none is needed");
  if (decision.refusal.empty())
    report.ok("network", fmt::format("between hosts: {}", name_of(decision.expected)));
  for (const EnvironmentSetting& setting : decision.settings)
    report.ok("network", fmt::format("a run sets {}={}: {}", setting.name, setting.value, setting.why));
}

bool is_rdma(const HostFacts& facts) {
  return std::ranges::any_of(facts.network.rdma, [](const RdmaDevice& device) { return device.is_active; });
}

void judge_limits(Report& report) {
  const HostFacts& facts = report.facts;
  const LimitFacts& limits = facts.limits;
  if (limits.locked_bytes >= 0 && is_rdma(facts)) {
    report.warn("memlock",
                fmt::format("{} may be locked: RDMA pins its buffers and fails when that is used up",
                            size_text(limits.locked_bytes)),
                "ulimit -l unlimited; docker run --ulimit memlock=-1; LimitMEMLOCK=infinity for slurmd");
  } else {
    report.ok("memlock", size_text(limits.locked_bytes));
  }
  if (limits.open_files >= 0 && limits.open_files < 1024) {
    report.warn(
        "files",
        fmt::format("{} open files at most: connections of many ranks and files of a checkpoint need more",
                    limits.open_files),
        "ulimit -n 65536");
  } else {
    report.ok("files", limits.open_files < 0 ? std::string("any number may be open")
                                             : fmt::format("{} may be open", limits.open_files));
  }
  if (facts.ranks <= 1) return;
  const int64_t wanted = facts.ranks * shared_memory_of_rank;
  if (limits.shared_memory_bytes < wanted) {
    report.warn(
        "shm",
        fmt::format("/dev/shm has {} left; {} ranks on a host take some {} of it",
                    limits.shared_memory_bytes < 0 ? "nothing" : size_text(limits.shared_memory_bytes),
                    facts.ranks, size_text(wanted)),
        "docker run --ipc=host or --shm-size=8g; mount -o remount,size=50% /dev/shm");
  } else {
    report.ok("shm", fmt::format("{} free in /dev/shm", size_text(limits.shared_memory_bytes)));
  }
}

void judge_disk(Report& report) {
  if (!report.facts.disk) return;
  const DiskFacts& disk = *report.facts.disk;
  if (!disk.error.empty())
    return report.fail("disk", fmt::format("{} cannot be written: {}", disk.path, disk.error),
                       "choose another output directory, or mend its rights");
  std::string text = fmt::format(
      "{} ({}{}): {} free", disk.path, disk.filesystem,
      disk.is_shared ? (*disk.is_shared ? ", shared by all hosts" : ", each host has its own") : "",
      size_text(disk.free_bytes));
  if (disk.write_bytes_per_s > 0)
    text += fmt::format(", writes {:.2f} GB/s with fsync, {:.1f} ms for a small file",
                        1e-9 * disk.write_bytes_per_s, 1e3 * disk.sync_s);
  if (disk.free_bytes < 5 * gib) {
    report.warn("disk", text + ": a checkpoint takes 12 to 16 bytes a parameter, and two are kept",
                "free some, or write the output elsewhere");
  } else if (disk.filesystem == "tmpfs" || disk.filesystem == "overlay") {
    report.warn("disk", text + ": what lies there ends with the machine or its container",
                "write the output elsewhere");
  } else {
    report.ok("disk", text);
  }
}

void judge_names(Report& report) {
  const HostFacts& facts = report.facts;
  const bool is_loopback =
      !facts.addresses.empty() && std::ranges::all_of(facts.addresses, [](const std::string& a) {
        return a.starts_with("127.") || a == "::1";
      });
  const std::string name = facts.host;
  if (facts.addresses.empty()) {
    const std::string text = fmt::format("the host's own name {} stands for no address", name);
    if (facts.hosts == 1) return report.ok("name", text + "; one host needs none");
    return report.warn("name", text, fmt::format("add it to /etc/hosts or to the DNS on every host"));
  }
  if (is_loopback && facts.hosts > 1)
    return report.warn(
        "name",
        fmt::format("{} stands for {} on its own host, which others cannot reach", name,
                    facts.addresses.front()),
        "let /etc/hosts name the address of the network, or set OMPI_MCA_btl_tcp_if_include and "
        "NCCL_SOCKET_IFNAME");
  report.ok("name", fmt::format("{} is {}", name, facts.addresses.front()));
}

void judge_clock(Report& report) {
  const HostFacts& facts = report.facts;
  if (facts.hosts == 1) return;
  const double skew = std::abs(facts.clock_ahead_s);
  const std::string text = fmt::format("{:.3f} s {} the first host's, within {:.3f} s", skew,
                                       facts.clock_ahead_s < 0 ? "behind" : "ahead of", facts.clock_error_s);
  if (skew - facts.clock_error_s > most_skew_s)
    return report.warn("clock",
                       text + ": times in logs and of files do not compare, S3 refuses clocks 15 minutes off",
                       "start chrony or ntpd on every host");
  report.ok("clock", text);
}

/// Of lists "0.1 abc, cuda 13.0, …" what differs: the parts that all have at the same place are left out.
std::vector<std::string> without_common_parts(const std::vector<std::string>& lists) {
  std::vector<std::vector<std::string>> parts;
  for (const std::string& list : lists) {
    std::vector<std::string>& mine = parts.emplace_back();
    for (size_t begin = 0; begin <= list.size();) {
      const size_t end = std::min(list.find(", ", begin), list.size());
      mine.push_back(list.substr(begin, end - begin));
      begin = end + 2;
    }
    if (mine.size() != parts.front().size()) return lists;
  }
  std::vector<std::string> shorter(lists.size());
  for (size_t i = 0; i < parts.front().size(); ++i) {
    if (std::ranges::all_of(parts, [&](const auto& one) { return one[i] == parts.front()[i]; })) continue;
    for (size_t list = 0; list < lists.size(); ++list)
      shorter[list] += (shorter[list].empty() ? "" : ", ") + parts[list][i];
  }
  return shorter;
}

/// "host-a, host-b and 6 more"
std::string some_of(const std::vector<std::string>& hosts) {
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(hosts.size(), 3); ++i) text += (i == 0 ? "" : ", ") + hosts[i];
  return hosts.size() > 3 ? fmt::format("{} and {} more", text, hosts.size() - 3) : text;
}

}  // namespace

std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::ok:
      return "ok";
    case Verdict::warn:
      return "warn";
    case Verdict::fail:
      return "fail";
  }
  return "?";
}

std::string to_line(const Finding& finding) {
  return fmt::format("{:<4}  {:<8}  {}{}{}", name_of(finding.verdict), finding.topic, finding.text,
                     finding.fix.empty() ? "" : ". Do: ", finding.fix);
}

bool is_said_at_start(const Finding& finding, bool has_gpus) {
  if (finding.verdict == Verdict::ok) return false;
  if (finding.topic == "binding") return has_gpus;
  constexpr std::string_view judged_by_run[] = {"gpu", "network", "nccl", "memory"};
  return std::ranges::find(judged_by_run, finding.topic) == std::end(judged_by_run);
}

std::vector<Finding> judge_host(const HostFacts& facts) {
  Report report{facts, {}};
  judge_mpi(report);
  judge_memory(report);
  judge_gpus(report);
  judge_network(report);
  judge_disk(report);
  judge_limits(report);
  judge_names(report);
  judge_clock(report);
  return std::move(report.findings);
}

Likeness likeness_of(const HostFacts& facts) {
  Likeness likeness = {{"program", facts.program}, {"mpi", facts.mpi}, {"cpu", facts.cpu}};
  likeness["memory"] = size_text(facts.memory_bytes / gib * gib);
  likeness["gpus"] = facts.gpus.empty() ? std::string("none")
                                        : fmt::format("{} x {}", facts.gpus.size(), facts.gpus.front().name);
  if (!facts.gpus.empty()) {
    likeness["driver"] = cuda_version(facts.versions.driver);
    likeness["nccl"] = to_string(facts.network.nccl);
    likeness["aws-ofi-nccl"] = to_string(facts.network.plugin);
    likeness["libfabric"] = to_string(facts.network.libfabric);
  }
  for (const auto& [name, value] : facts.network.set_by_user) likeness[name] = value;
  return likeness;
}

std::vector<Finding> judge_likeness(std::span<const std::string> hosts, std::span<const Likeness> likeness) {
  std::map<std::string, std::map<std::string, std::vector<std::string>>> hosts_of;  // name, value
  for (const Likeness& one : likeness)
    for (const auto& [name, value] : one) hosts_of[name];
  for (auto& [name, values] : hosts_of) {
    for (size_t i = 0; i < likeness.size(); ++i) {
      const auto it = likeness[i].find(name);
      values[it == likeness[i].end() ? "not set" : it->second].push_back(hosts[i]);
    }
  }
  std::vector<Finding> findings;
  for (const auto& [name, values] : hosts_of) {
    if (values.size() == 1) continue;
    std::vector<std::string> shown;
    for (const auto& [value, where] : values) shown.push_back(value);
    if (name == "program") shown = without_common_parts(shown);
    std::string text = fmt::format("{} differs:", name);
    auto value = shown.begin();
    for (const auto& [whole, where] : values) text += fmt::format(" {} on {};", *value++, some_of(where));
    text.pop_back();
    const bool is_fatal = name == "program" || name == "mpi" || name == "nccl" || name == "gpus";
    findings.push_back({is_fatal ? Verdict::fail : Verdict::warn, "hosts", text,
                        name == "program" ? "install the same build on every host"
                                          : "make the hosts alike: the slowest or oldest one decides"});
  }
  if (findings.empty() && hosts.size() > 1)
    findings.push_back({Verdict::ok, "hosts", fmt::format("{} hosts are alike", hosts.size()), {}});
  return findings;
}

}  // namespace ptrain::doctor
