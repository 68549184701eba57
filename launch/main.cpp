// The program: finds the verb, runs it, and prints what went wrong once.
// Not for work: verbs are in launch/verbs, their table in launch/verbs.cpp.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "kernels/base/error.h"
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

int report(ExitCode code, const std::string& message, const Environment& environment) {
  if (code == ExitCode::usage && !is_first_rank(environment)) {
    // A launcher ends the job with the first rank that leaves: that must be the one that speaks.
    std::this_thread::sleep_for(std::chrono::seconds(5));
  } else {
    const std::string shown = without_secrets(message);
    std::fprintf(stderr, "ptrain: error: %s\n", shown.c_str());
    sagemaker::note_failure(environment, shown);
  }
  return static_cast<int>(code);
}

}  // namespace
}  // namespace ptrain

int main(int count, char** values) {
  using namespace ptrain;
  const Environment environment = read_environment();
  hide_secrets(secrets_of(environment));
  try {
    const int code = run(std::vector<std::string>(values + 1, values + count), environment);
    // A product that did not reach its file or pipe is not done.
    if (std::fflush(stdout) != 0 && code == 0) {
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
