// Starts a program in a test and keeps what it said. Not for programs that need a terminal or an input.
#pragma once

#include <fcntl.h>
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

/// Runs words[0] (found along PATH) with an empty stdin and this environment, and waits for its end.
/// `variables` are added to the test's own environment, as "NAME=value"; they win.
inline ProgramResult run_program(const std::vector<std::string>& words,
                                 const std::vector<std::string>& variables = {}) {
  const TemporaryDirectory directory;
  const std::string out = directory.path() / "out";
  const std::string err = directory.path() / "err";
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), O_WRONLY | O_CREAT, 0600);
  posix_spawn_file_actions_addopen(&actions, 2, err.c_str(), O_WRONLY | O_CREAT, 0600);

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

  const auto start = std::chrono::steady_clock::now();
  pid_t process = 0;
  const int error =
      ::posix_spawnp(&process, arguments[0], &actions, nullptr, arguments.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw std::runtime_error("cannot start " + words[0]);
  int status = 0;
  ::waitpid(process, &status, 0);

  ProgramResult result;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  const auto text_of = [](const std::string& path) {
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  };
  result.out = text_of(out);
  result.err = text_of(err);
  return result;
}

}  // namespace ptrain
