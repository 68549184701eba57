// How jobs end: starts session_helper under mpirun and looks at its exit code, its words and the time it
// took.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <string>

namespace ptrain {
namespace {

struct Ending {
  int code = -1;
  std::string output;  // of all ranks, stdout and stderr
  double seconds = 0;
};

Ending run_job(int ranks, const std::string& name) {
  const std::string command = std::string(PTRAIN_MPIRUN) + " --oversubscribe --bind-to none -np " +
                              std::to_string(ranks) + " " + PTRAIN_SESSION_HELPER + " " + name + " 2>&1";
  const auto begin = std::chrono::steady_clock::now();
  Ending ending;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return ending;
  std::array<char, 4096> block;
  while (const size_t count = fread(block.data(), 1, block.size(), pipe)) {
    ending.output.append(block.data(), count);
  }
  const int status = pclose(pipe);
  ending.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  ending.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return ending;
}

int times_in(const std::string& text, const std::string& whole) {
  int times = 0;
  for (size_t at = whole.find(text); at != std::string::npos; at = whole.find(text, at + 1)) ++times;
  return times;
}

struct Case {
  std::string name;
  int ranks;
  int code;
  std::string text;  // must appear exactly once
};

// The goal is 3 s; a crowded machine gets ten times that.
constexpr double most_seconds = 30;

TEST(SessionUnderMpirun, AnErrorOfOneRankEndsTheJobWithItsCodeAndItsWordsOnce) {
  const Case cases[] = {
      {"error-while-others-wait", 3, 4, "ptrain: rank 2: error: no room for 12345 bytes (on host "},
      {"error-while-others-wait", 8, 4, "ptrain: rank 7: error: no room for 12345 bytes (on host "},
      {"error-while-others-compute", 4, 64, "ptrain: rank 3: error: the loss is not finite (on host "},
      {"foreign-exception", 2, 1, "ptrain: rank 1: error: no such key (on host "},
      {"lengths-differ", 2, 1, "rank 0 sent more bytes to rank 1 than the 16 that it expected"},
  };
  for (const Case& one : cases) {
    const Ending ending = run_job(one.ranks, one.name);
    EXPECT_EQ(ending.code, one.code) << one.name << "\n" << ending.output;
    EXPECT_EQ(times_in(one.text, ending.output), 1) << one.name << "\n" << ending.output;
    EXPECT_LT(ending.seconds, most_seconds) << one.name;
  }
}

TEST(SessionUnderMpirun, AnErrorThatAllAgreeOnEndsTheJobWithoutAnAbort) {
  const Case cases[] = {
      {"all-find-the-same", 4, 2, "error: unknown key 'lernrate'"},
      {"one-finds-it", 3, 3, "error: shard 3 is missing"},
      {"fewer-than-launched", 2, 2, "error: mpirun started 5 ranks, but only 2 found each other"},
  };
  for (const Case& one : cases) {
    const Ending ending = run_job(one.ranks, one.name);
    EXPECT_EQ(ending.code, one.code) << one.name << "\n" << ending.output;
    EXPECT_EQ(times_in(one.text, ending.output), 1) << one.name << "\n" << ending.output;
    EXPECT_EQ(times_in("MPI_ABORT", ending.output), 0) << one.name << "\n" << ending.output;
    EXPECT_LT(ending.seconds, most_seconds) << one.name;
  }
}

TEST(SessionUnderMpirun, TheProgramsCodeIsTheJobsCode) {
  EXPECT_EQ(run_job(3, "saved-on-signal").code, 75);
}

TEST(SessionUnderMpirun, MessagesLongerThanMpiCanCountTravelInPieces) {
  const Ending ending = run_job(3, "pieces");
  EXPECT_EQ(ending.code, 0) << ending.output;
}

TEST(SessionUnderMpirun, RanksKnowTheirHost) {
  const Ending ending = run_job(3, "hosts");
  EXPECT_EQ(ending.code, 0);
  EXPECT_EQ(times_in("ranks 3 on-node 3 hosts 3 first-local 0\n", ending.output), 1) << ending.output;
}

}  // namespace
}  // namespace ptrain
