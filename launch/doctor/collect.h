// Looks at the machine for facts.h. Every call is a collective; the facts are those of the caller's host.
#pragma once

#include <filesystem>
#include <optional>

#include "launch/cli.h"
#include "launch/doctor/facts.h"
#include "parallel/comm/session.h"

namespace ptrain::doctor {

/// Where a run would write; null = the disk is not looked at.
struct DiskQuestion {
  std::filesystem::path directory;
  int64_t bytes = int64_t{64} << 20;  // that are written and synced on each host, to see how fast it is
};

/// What cannot be read stays as facts.h has it. `disk`: the same on every rank.
HostFacts collect(Session& session, const Arguments& arguments, const std::optional<DiskQuestion>& disk);

/// The lines of all hosts, on every rank: `lines[i]` of host i, in the order of their first ranks; then what
/// differs between hosts. A collective.
struct JobFindings {
  std::vector<std::string> hosts;
  std::vector<std::vector<Finding>> of_host;
  std::vector<Finding> between;
};
JobFindings gather_findings(Session& session, const HostFacts& facts);

/// The short form that every training begins with: what is wrong, as warnings of rank 0. A collective.
/// Errors (usage), agreed on: hosts that run different builds or MPI libraries.
void check_machine(Session& session, const Arguments& arguments);

}  // namespace ptrain::doctor
