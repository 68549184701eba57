// What `ptrain doctor` and the start of a run find out of a machine, and what they say of it. The facts are
// plain values and the judgement is pure, so that machines that nobody has at hand are tested as tables.
// collect.cpp looks.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/runtime.h"
#include "parallel/plan/network.h"

namespace ptrain::doctor {

enum class Verdict : uint8_t { ok, warn, fail };
std::string_view name_of(Verdict verdict);

/// A line of the report.
struct Finding {
  Verdict verdict = Verdict::ok;
  std::string topic;  // "mpi", "binding", "gpu", …
  std::string text;   // what was found and what it means
  std::string fix;    // what to do; empty where nothing is wrong
};
std::string to_line(const Finding& finding);
/// Whether a training says it when it starts: what is wrong, but for what the run judges itself, in its own
/// words. How ranks are bound is such on CPUs alone.
bool is_said_at_start(const Finding& finding, bool has_gpus);

struct DiskFacts {
  std::string path;
  std::string filesystem;  // "ext4", "nfs", "lustre", "tmpfs", …
  int64_t free_bytes = 0;
  std::string error;                // why nothing can be written there; empty = it can
  double write_bytes_per_s = 0;     // with fsync; 0 = not measured
  double sync_s = 0;                // of a small file
  std::optional<bool> is_shared{};  // all hosts see it; empty with one host
};

struct LimitFacts {
  int64_t locked_bytes = -1;  // here and below: -1 = unlimited
  int64_t open_files = -1;
  int64_t shared_memory_bytes = -1;  // free in /dev/shm; -1 = there is none
};

/// Of one host and the ranks on it.
struct HostFacts {
  std::string host;
  int hosts = 1;         // of the job
  int ranks = 1;         // of the job on this host
  std::string launcher;  // "mpirun", "srun"; empty: started by hand
  std::string mpi;       // as the library names itself: "Open MPI v4.1.4"
  std::string program;   // version, revision and what is built in
  std::string cpu;
  int cores = 1;
  int allowed_cores = 1;          // the fewest that one of the ranks may use
  bool has_thread_count = false;  // OMP_NUM_THREADS is set
  int64_t memory_bytes = 0;
  int64_t available_bytes = 0;  // the host's, or what its container may still take where that is less
  runtime::RuntimeVersions versions;
  std::vector<runtime::DeviceInfo> gpus;
  int gpu_pairs = 0;         // of GPUs on this host,
  int gpu_pairs_direct = 0;  // and those that reach each other's memory
  NetworkReport network;     // with NCCL's version
  LimitFacts limits;
  std::optional<DiskFacts> disk{};
  std::vector<std::string> addresses;  // that the host's own name stands for; empty = it is not known
  double clock_ahead_s = 0;            // of the first host's clock, and how exact that is
  double clock_error_s = 0;
};

/// All that can be said of a host by itself.
std::vector<Finding> judge_host(const HostFacts& facts);

/// What must be the same on all hosts: name -> value.
using Likeness = std::map<std::string, std::string>;
Likeness likeness_of(const HostFacts& facts);
/// One finding for each value that differs, with the hosts of each. `fail` where ranks could not work
/// together.
std::vector<Finding> judge_likeness(std::span<const std::string> hosts, std::span<const Likeness> likeness);

}  // namespace ptrain::doctor
