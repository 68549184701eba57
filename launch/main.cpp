// The program: finds the verb, runs it, and prints what went wrong once.
// Not for work: verbs are in launch/verbs, their table in launch/verbs.cpp.
#include <fcntl.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/base/host_name.h"
#include "kernels/base/secrets.h"
#include "launch/sagemaker.h"
#include "launch/secrets.h"
#include "launch/verbs.h"

extern char** environ;

namespace ptrain {
namespace {

Environment read_environment() {
  Environment variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    if (equals != std::string_view::npos) variables.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return variables;
}

/// Every rank of a job finds the same error in its command line before there is a session to agree in: the
/// first rank alone speaks.
bool is_first_rank(const Environment& environment) {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}) {
    const auto it = environment.find(name);
    if (it != environment.end()) return it->second == "0";
  }
  return true;
}

int run(const std::vector<std::string>& words, const Environment& environment) {
  const Request request = find_request(verbs(), words);
  switch (request.kind) {
    case Request::Kind::help:
      std::fputs(help_text(verbs()).c_str(), words.empty() ? stderr : stdout);
      return static_cast<int>(words.empty() ? ExitCode::usage : ExitCode::done);
    case Request::Kind::verb_help:
      std::fputs(help_text(*request.verb).c_str(), stdout);
      return 0;
    case Request::Kind::version:
      return run_version({});
    case Request::Kind::verb:
      break;
  }
  return request.verb->run(parse_arguments(*request.verb, request.words, environment));
}

bool is_first_of_host(const Environment& environment) {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"}) {
    const auto it = environment.find(name);
    if (it != environment.end()) return it->second == "0";
  }
  return true;
}

int report(ExitCode code, const std::string& message, const Environment& environment) {
  const std::string shown = without_secrets(message);
  std::string place;
  if (code == ExitCode::usage && !is_first_rank(environment)) {
    // A launcher ends the job with the first rank that leaves: that must be the one that speaks. Whoever is
    // still there then has an error of its own host: a file that is missing or different there.
    std::this_thread::sleep_for(std::chrono::seconds(5));
    if (!is_first_of_host(environment)) return static_cast<int>(code);
    place = fmt::format(" (on host {})", host_name());
  }
  std::fprintf(stderr, "ptrain: error: %s%s\n", shown.c_str(), place.c_str());
  sagemaker::note_failure(environment, shown);
  return static_cast<int>(code);
}

/// A stream that was closed before we came would be the next file that is opened: a lock or a checkpoint,
/// with our own lines in it.
void open_standard_streams() {
  for (const int fd : {0, 1, 2})
    if (::fcntl(fd, F_GETFD) == -1) ::open("/dev/null", O_RDWR);  // gets the lowest free number: fd
}

}  // namespace
}  // namespace ptrain

int main(int count, char** values) {
  using namespace ptrain;
  open_standard_streams();
  std::signal(SIGXFSZ, SIG_IGN);  // above `ulimit -f` a write fails, and says so
  const Environment environment = read_environment();
  hide_secrets(secrets_of(environment));
  try {
    const int code = run(std::vector<std::string>(values + 1, values + count), environment);
    // A product that did not reach its file or pipe is not done.
    if ((std::fflush(stdout) != 0 || std::ferror(stdout) != 0) && code == 0) {
      return report(ExitCode::resources, "stdout cannot be written", environment);
    }
    return code;
  } catch (const Error& error) {
    std::string message = error.what();
    if (error.code() == ExitCode::defect) {
      message += fmt::format(" (a defect of ptrain, found at {}:{})", error.where().file_name(),
                             error.where().line());
    }
    return report(error.code(), message, environment);
  } catch (const std::system_error& error) {  // of the machine: a full disk, a closed pipe, no more threads
    return report(ExitCode::resources, error.what(), environment);
  } catch (const std::bad_alloc&) {
    return report(ExitCode::resources, "out of memory on the host", environment);
  } catch (const std::exception& error) {
    return report(ExitCode::defect, fmt::format("{} (a defect of ptrain)", error.what()), environment);
  }
}
