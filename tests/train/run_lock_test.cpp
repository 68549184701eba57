// One run on an output: another process is refused, a dead owner's lock is taken, and an owner on another
// host, whose lock may not be seen here, is told by its signs of life.
#include "src/train/run_lock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "kernels/base/error.h"
#include "kernels/base/host_name.h"
#include "tests/support/files.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

using std::chrono::milliseconds;

constexpr LockPatience quick{.beat = milliseconds(30), .beats = 5, .ending = milliseconds(100)};

/// What a second run is told; empty where it gets the output.
std::string refusal(const std::filesystem::path& output) {
  try {
    const RunLock lock(output, "", quick);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    return error.what();
  }
}

TEST(RunLock, IsHeldByOneAndFreeAgainWhenThatOneIsGone) {
  const TemporaryDirectory output;
  {
    const RunLock mine(output.path(), "4711", quick);
    const std::string text = refusal(output.path());
    for (const std::string& part : {std::to_string(getpid()), std::string("4711"), host_name()})
      EXPECT_NE(text.find(part), std::string::npos) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << "its owner, not its beat";
  }
  EXPECT_EQ(bytes_of(output.path() / ".lock"), "") << "signed off";
  EXPECT_EQ(refusal(output.path()), "");
}

TEST(RunLock, OfAKilledProcessIsTakenAtOnce) {
  const TemporaryDirectory output;
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    try {
      const RunLock lock(output.path(), "9", {});
      if (write(ready[1], "x", 1) == 1) pause();
    } catch (const std::exception&) {
    }
    _exit(1);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_NE(refusal(output.path()).find(fmt::format("pid {}, job 9", child)), std::string::npos);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_NE(bytes_of(output.path() / ".lock"), "") << "it could not sign off";
  // With its usual patience: on one host the kernel's word is enough.
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_NO_THROW(RunLock(output.path(), ""));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, LockPatience{}.beat);
  close(ready[0]), close(ready[1]);
}

TEST(RunLock, OfAProcessThatIsEndingOnAnotherHostIsWaitedFor) {
  const TemporaryDirectory output;
  const auto path = output.path() / ".lock";
  put(path, "host elsewhere, pid 17, job 4\n000000000003\n");
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  struct flock whole_file {};
  whole_file.l_type = F_WRLCK;
  ASSERT_EQ(::fcntl(fd, F_OFD_SETLK, &whole_file), 0);
  EXPECT_NE(refusal(output.path()).find("still going (host elsewhere, pid 17"), std::string::npos);
  std::thread owner([&] {
    std::this_thread::sleep_for(milliseconds(200));
    ::close(fd);
  });
  LockPatience patient = quick;
  patient.ending = milliseconds(60'000);
  EXPECT_NO_THROW(RunLock(output.path(), "9", patient));
  owner.join();
}

TEST(RunLock, OfAnotherHostIsTakenWhenThatShowsNoLife) {
  const TemporaryDirectory output;
  put(output.path() / ".lock", "host elsewhere, pid 17, job 4\n000000000003\n");
  EXPECT_EQ(refusal(output.path()), "");
}

TEST(RunLock, OfAnotherHostThatShowsLifeIsLeftAlone) {
  const TemporaryDirectory output;
  const auto path = output.path() / ".lock";
  put(path, "host elsewhere, pid 17, job 4\n000000000003\n");
  // The kernel's lock is free, as where clients of a network file system keep locks to themselves.
  std::thread owner([&] {
    std::this_thread::sleep_for(quick.beat * 2);
    // In place, as an owner does: an empty file would have been signed off.
    std::fstream(path, std::ios::in | std::ios::out) << "host elsewhere, pid 17, job 4\n000000000004\n";
  });
  const std::string text = refusal(output.path());
  owner.join();
  EXPECT_NE(text.find("still going (host elsewhere, pid 17, job 4)"), std::string::npos) << text;
  EXPECT_EQ(bytes_of(path), "host elsewhere, pid 17, job 4\n000000000004\n") << "nothing of it is touched";
}

TEST(RunLock, ShowsLifeAndMoves) {
  const TemporaryDirectory output;
  const auto path = output.path() / ".lock";
  RunLock mine;
  mine = RunLock(output.path(), "", quick);
  const std::string first = bytes_of(path);
  std::string later = first;
  for (int i = 0; i < 1000 && later == first; ++i) {
    std::this_thread::sleep_for(quick.beat);
    later = bytes_of(path);
  }
  EXPECT_NE(later, first);
  EXPECT_EQ(later.size(), first.size());
  EXPECT_EQ(later.substr(0, later.find('\n')), first.substr(0, first.find('\n')));
}

TEST(RunLock, AnOutputThatCannotBeWrittenIsSaid) {
  try {
    const RunLock lock("/proc/nowhere", "");
    FAIL() << "was locked";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::resources);
  }
}

}  // namespace
}  // namespace ptrain
