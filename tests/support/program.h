// Starts a program in a test and keeps what it said. Not for programs that need a terminal or an input.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/fixtures.h"

namespace ptrain {

struct ProgramResult {
  int code = -1;  // exit code; 128 + signal where it was killed
  std::string out;
  std::string err;
  double seconds = 0;  // from start to end
};

/// A program under way; killed where it is left behind.
class RunningProgram {
 public:
  /// Starts words[0] (found along PATH) with an empty stdin. `variables` are added to the test's own
  /// environment, as "NAME=value"; they win.
  explicit RunningProgram(const std::vector<std::string>& words,
                          const std::vector<std::string>& variables = {}) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, file("out").c_str(), O_WRONLY | O_CREAT, 0600);
    posix_spawn_file_actions_addopen(&actions, 2, file("err").c_str(), O_WRONLY | O_CREAT, 0600);

    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    std::vector<char*> environment;
    for (char** entry = environ; *entry != nullptr; ++entry) {
      const std::string_view name = std::string_view(*entry).substr(0, std::string_view(*entry).find('='));
      bool is_replaced = false;
      for (const std::string& other : variables) is_replaced |= other.starts_with(std::string(name) + "=");
      if (!is_replaced) environment.push_back(*entry);
    }
    for (const std::string& other : variables) environment.push_back(const_cast<char*>(other.c_str()));
    environment.push_back(nullptr);

    start_ = std::chrono::steady_clock::now();
    const int error =
        ::posix_spawnp(&process_, arguments[0], &actions, nullptr, arguments.data(), environment.data());
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) throw std::runtime_error("cannot start " + words[0]);
  }
  RunningProgram(const RunningProgram&) = delete;
  RunningProgram& operator=(const RunningProgram&) = delete;
  ~RunningProgram() {
    if (has_ended()) return;
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
  }

  pid_t pid() const { return process_; }

  bool has_ended() {
    if (!is_over_ && ::waitpid(process_, &status_, WNOHANG) == process_) note_end();
    return is_over_;
  }

  /// What it said until now, or in all.
  ProgramResult so_far() const {
    ProgramResult result;
    result.out = text_of("out");
    result.err = text_of("err");
    return result;
  }

  /// Waits for its end.
  ProgramResult wait() {
    if (!is_over_) {
      ::waitpid(process_, &status_, 0);
      note_end();
    }
    ProgramResult result = so_far();
    result.seconds = seconds_;
    result.code = WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
    return result;
  }

 private:
  std::string file(const char* name) const { return directory_.path() / name; }
  std::string text_of(const char* name) const {
    std::stringstream text;
    text << std::ifstream(file(name)).rdbuf();
    return text.str();
  }
  void note_end() {
    is_over_ = true;
    seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

  TemporaryDirectory directory_;
  pid_t process_ = 0;
  std::chrono::steady_clock::time_point start_;
  double seconds_ = 0;
  int status_ = 0;
  bool is_over_ = false;
};

/// Runs a program, see RunningProgram, to its end.
inline ProgramResult run_program(const std::vector<std::string>& words,
                                 const std::vector<std::string>& variables = {}) {
  return RunningProgram(words, variables).wait();
}

}  // namespace ptrain
