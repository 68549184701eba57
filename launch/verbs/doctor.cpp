// ptrain doctor: what this machine has, what is wrong with it for training, and what to do. Under mpirun: all
// hosts.
#include "launch/doctor/collect.h"
#include "launch/runtime.h"
#include "launch/verbs.h"

namespace ptrain {

int run_doctor(const Arguments& arguments) {
  using namespace doctor;
  Session session(find_launcher([&](const char* name) { return arguments.variable(name); }));
  return session.run([&] {
    const DiskQuestion disk{.directory = arguments.value("dir", ".")};
    const JobFindings job = gather_findings(session, collect(session, arguments, disk));
    int failed = 0;
    const auto print = [&](const std::string& host, const std::vector<Finding>& findings) {
      for (const Finding& finding : findings) {
        failed += finding.verdict == Verdict::fail;
        if (session.world().rank() != 0) continue;
        fmt::print("{}{}\n", host.empty() ? "" : host + "  ", to_line(finding));
      }
    };
    for (size_t i = 0; i < job.hosts.size(); ++i)
      print(job.hosts.size() > 1 ? job.hosts[i] : "", job.of_host[i]);
    print("", job.between);
    return failed == 0 ? 0 : 1;
  });
}

}  // namespace ptrain
