// Threads of a rank from the environment, the binding and the ranks on the node.
#include "launch/threads.h"

#include <gtest/gtest.h>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

TEST(Threads, ARankTakesItsShareOfTheNodesCores) {
  const struct {
    const char* omp_num_threads;
    int allowed, cores, ranks;
    int threads;
    bool is_warned;
  } rows[] = {
      {nullptr, 8, 8, 1, 8, false}, {nullptr, 8, 8, 2, 4, false}, {nullptr, 8, 8, 3, 2, false},
      {nullptr, 2, 2, 8, 1, false}, {nullptr, 1, 8, 2, 1, true},  {nullptr, 4, 8, 2, 4, false},
      {nullptr, 1, 2, 2, 1, false}, {nullptr, 3, 64, 1, 3, true}, {nullptr, 192, 192, 8, 24, false},
      {"3", 8, 8, 2, 3, false},     {"16", 1, 8, 2, 16, false},   {"4,2", 8, 8, 1, 4, false},
      {"", 8, 8, 2, 4, false},
  };
  for (const auto& row : rows) {
    const ThreadChoice choice = threads_of_rank(row.omp_num_threads, row.allowed, row.cores, row.ranks);
    EXPECT_EQ(choice.threads, row.threads) << row.allowed << " of " << row.cores << " for " << row.ranks;
    EXPECT_EQ(choice.warning.find("--bind-to none") != std::string::npos, row.is_warned) << choice.warning;
    EXPECT_EQ(!choice.warning.empty(), row.is_warned);
  }
}

TEST(Threads, AWrongOmpNumThreadsIsRefusedWithItsValue) {
  for (const char* text : {"0", "-1", "two", "4x", " 4", "99999999999"}) {
    try {
      threads_of_rank(text, 8, 8, 1);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
    }
  }
}

TEST(Threads, TheMachineHasAtLeastTheCoresThatAreAllowed) {
  EXPECT_GE(allowed_cores(), 1);
  EXPECT_GE(machine_cores(), 1);
}

}  // namespace
}  // namespace ptrain
