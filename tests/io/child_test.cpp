// Programs that say something, fail, hang, leave others behind or read what they are fed.
#include "src/io/child.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "kernels/base/error.h"
#include "kernels/base/secrets.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

using namespace std::chrono_literals;
using End = ChildResult::End;

ChildRequest shell(const std::string& script) {
  return {.words = {"/bin/sh", "-c", script}};
}

/// One that nobody has buried yet counts as gone.
bool is_alive(pid_t process) {
  std::ifstream status("/proc/" + std::to_string(process) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("State:")) return line.find('Z') == std::string::npos;
  }
  return false;
}

/// The number that a script wrote into a file, waited for.
pid_t number_in(const std::filesystem::path& path) {
  for (int i = 0; i < 500; ++i) {
    pid_t number = 0;
    if (std::ifstream(path) >> number) return number;
    std::this_thread::sleep_for(20ms);
  }
  return 0;
}

bool is_gone_soon(pid_t process) {
  for (int i = 0; i < 500 && is_alive(process); ++i) std::this_thread::sleep_for(20ms);
  return !is_alive(process);
}

TEST(Child, WhatItSaysAndItsExitCodeComeBack) {
  const ChildResult result = run_child(shell("echo out; echo err >&2; exit 7"));
  EXPECT_EQ(result.code, 7);
  EXPECT_EQ(result.end, End::by_itself);
  EXPECT_FALSE(result.is_good());
  EXPECT_EQ(result.out, "out\n");
  EXPECT_EQ(result.err, "err\n");
  EXPECT_TRUE(run_child({.words = {"/bin/true"}}).is_good());
}

TEST(Child, WordsAreNotReadByAShell) {
  const ChildResult result = run_child({.words = {"/bin/echo", "$HOME; ls *", "a  b", "'"}});
  EXPECT_EQ(result.out, "$HOME; ls * a  b '\n");
}

TEST(Child, LongOutputComesWholeAndOfTheErrorsTheEnd) {
  const ChildResult result =
      run_child(shell("head -c 3000000 /dev/zero | tr '\\0' x; seq 100000 >&2; exit 0"));
  EXPECT_EQ(result.out, std::string(3000000, 'x'));
  EXPECT_LE(result.err.size(), 8192u);
  EXPECT_TRUE(result.err.ends_with("99999\n100000\n"));
}

TEST(Child, OneThatSaysTooMuchIsEnded) {
  ChildRequest request = shell("yes");
  request.output_bytes = 1 << 20;
  EXPECT_EQ(run_child(request).end, End::too_much_output);
}

TEST(Child, AMissingProgramIs127) {
  const ChildResult result = run_child({.words = {"/nowhere/at/all"}});
  EXPECT_EQ(result.code, 127);
  EXPECT_FALSE(result.is_good());
}

TEST(Child, OneThatHangsIsEndedInTimeWithAllThatItStarted) {
  const TemporaryDirectory directory;
  const std::string pid = directory.path() / "pid";
  ChildRequest request = shell("sleep 1000 & echo $! > " + pid + "; wait");
  request.limit_s = 2;
  const ChildResult result = run_child(request);
  EXPECT_EQ(result.end, End::out_of_time);
  EXPECT_LT(result.seconds, 40);
  EXPECT_TRUE(is_gone_soon(number_in(pid)));
}

TEST(Child, OneThatDoesNotWantToGoIsKilled) {
  const TemporaryDirectory directory;
  const std::string pid = directory.path() / "pid";
  std::stop_source stop;
  std::thread later([&] {
    number_in(pid);  // from here on it does not listen
    stop.request_stop();
  });
  const ChildResult result =
      run_child(shell("trap '' TERM; echo $$ > " + pid + "; while :; do sleep 0.05; done"), stop.get_token());
  later.join();
  EXPECT_EQ(result.end, End::stopped);
  EXPECT_EQ(result.code, 128 + SIGKILL);
}

TEST(Child, AStopEndsIt) {
  std::stop_source stop;
  std::thread later([&] {
    std::this_thread::sleep_for(100ms);
    stop.request_stop();
  });
  const ChildResult result = run_child({.words = {"/bin/sleep", "1000"}}, stop.get_token());
  later.join();
  EXPECT_EQ(result.end, End::stopped);
  EXPECT_LT(result.seconds, 20);
}

TEST(Child, WhatItLeavesRunningGoesWithIt) {
  const TemporaryDirectory directory;
  const std::string pid = directory.path() / "pid";
  const ChildResult result = run_child(shell("sleep 1000 & echo $! > " + pid));
  EXPECT_TRUE(result.is_good());
  EXPECT_LT(result.seconds, 20);
  EXPECT_TRUE(is_gone_soon(number_in(pid)));
}

TEST(Child, ItDiesWithAProcessThatIsKilled) {
  const TemporaryDirectory directory;
  const std::string pid = directory.path() / "pid";
  const pid_t process = ::fork();
  if (process == 0) {
    run_child(shell("echo $$ > " + pid + "; exec sleep 1000"));
    ::_exit(0);
  }
  const pid_t child = number_in(pid);
  ASSERT_GT(child, 0);
  ::kill(process, SIGKILL);
  ::waitpid(process, nullptr, 0);
  EXPECT_TRUE(is_gone_soon(child));
}

TEST(Child, ItHasNoneOfOurFilesAndSignals) {
  const int leaked = ::open("/dev/null", O_RDONLY);  // as a library would, without O_CLOEXEC
  ::signal(SIGUSR1, SIG_IGN);
  const ChildResult result = run_child(shell("ls /proc/self/fd | wc -l; grep SigIgn /proc/self/status; cat"));
  ::signal(SIGUSR1, SIG_DFL);
  ::close(leaked);
  EXPECT_EQ(result.out, "4\nSigIgn:\t0000000000000000\n") << "0, 1, 2 and that of ls itself";
}

TEST(Child, AFileIsFedToIt) {
  const TemporaryDirectory directory;
  std::string text;
  for (int i = 0; i < 300000; ++i) text += std::to_string(i);
  write_text(directory.path() / "in", text);
  ChildRequest request{.words = {"/bin/cat"}, .input = directory.path() / "in"};
  const ChildResult result = run_child(request);
  EXPECT_TRUE(result.is_good());
  EXPECT_TRUE(result.out == text);
  write_text(directory.path() / "in", "");
  EXPECT_EQ(run_child(request).out, "");
  request.words = {"/bin/true"};  // and one that does not read it
  write_text(directory.path() / "in", text);
  EXPECT_TRUE(run_child(request).is_good());
}

TEST(Child, AFileIsFedNoFasterThanAsked) {
  const TemporaryDirectory directory;
  write_text(directory.path() / "in", std::string(1 << 20, 'x'));
  ChildRequest request{.words = {"/usr/bin/wc", "-c"}, .input = directory.path() / "in"};
  request.input_bytes_per_s = 2 << 20;
  const ChildResult result = run_child(request);
  EXPECT_EQ(result.out, "1048576\n");
  EXPECT_GT(result.seconds, 0.3);  // (1 MiB - a piece) / 2 MiB a second = 0.375 s
}

TEST(Child, SecretsInItsErrorsAreMasked) {
  hide_secrets({"wJalrXUtnFEMI/K7MDENG"});
  const ChildResult result = run_child(shell("echo key wJalrXUtnFEMI/K7MDENG refused >&2"));
  hide_secrets({});
  EXPECT_EQ(result.err, "key *** refused\n");
}

TEST(Child, ProgramsAreFoundInDirectoriesThatAreNamedWhole) {
  const TemporaryDirectory directory;
  const std::string here = directory.path();
  write_text(directory.path() / "tool", "#!/bin/sh\n");
  EXPECT_FALSE(find_program("tool", here)) << "not executable";
  std::filesystem::permissions(directory.path() / "tool", std::filesystem::perms::owner_all);
  EXPECT_EQ(find_program("tool", "/nowhere::" + here + ":/bin"), here + "/tool");
  EXPECT_FALSE(find_program("tool", "/nowhere"));
  EXPECT_FALSE(find_program("tool", ""));
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(directory.path());
  EXPECT_FALSE(find_program("tool", ".:")) << "never out of the working directory";
  std::filesystem::current_path(before);
}

}  // namespace
}  // namespace ptrain
