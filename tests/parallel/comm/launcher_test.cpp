// What the environment says of the launcher, and the order of ranks over hosts. No MPI.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "parallel/comm/session.h"

namespace ptrain {
namespace {

Launcher launcher_in(const std::map<std::string, std::string>& variables) {
  return find_launcher([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(Launcher, IsFoundByTheVariablesOfEachKind) {
  struct Case {
    std::map<std::string, std::string> variables;
    Launcher expected;
  };
  const Case cases[] = {
      {{}, {"", 1, 0, true}},
      {{{"OMPI_COMM_WORLD_SIZE", "8"}, {"OMPI_COMM_WORLD_RANK", "3"}}, {"mpirun", 8, 3, true}},
      {{{"PMI_SIZE", "4"}, {"PMI_RANK", "0"}}, {"mpiexec", 4, 0, true}},
      {{{"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_PROCID", "2"}, {"PMIX_RANK", "2"}}, {"srun", 4, 2, true}},
      {{{"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_PROCID", "2"}}, {"srun", 4, 2, false}},
      // A batch script has a job's variables, but no step's: a program in it was started by hand.
      {{{"SLURM_NTASKS", "16"}, {"SLURM_PROCID", "0"}}, {"", 1, 0, true}},
      // mpirun inside a Slurm job: srun starts one helper a node, and their variables are seen too.
      {{{"OMPI_COMM_WORLD_SIZE", "16"},
        {"OMPI_COMM_WORLD_RANK", "9"},
        {"SLURM_STEP_NUM_TASKS", "2"},
        {"SLURM_PROCID", "1"}},
       {"mpirun", 16, 9, true}},
      {{{"OMPI_COMM_WORLD_SIZE", "many"}, {"OMPI_COMM_WORLD_RANK", "0"}}, {"", 1, 0, true}},
      {{{"PMI_SIZE", "0"}, {"PMI_RANK", "0"}}, {"", 1, 0, true}},
  };
  for (const Case& one : cases) {
    const Launcher found = launcher_in(one.variables);
    EXPECT_EQ(found.name, one.expected.name);
    EXPECT_EQ(found.ranks, one.expected.ranks);
    EXPECT_EQ(found.rank, one.expected.rank);
    EXPECT_EQ(found.has_pmix, one.expected.has_pmix);
  }
}

TEST(RanksByHost, PutsTheRanksOfAHostSideBySide) {
  struct Case {
    std::vector<Seat> seats;
    std::vector<int> expected;
  };
  const Case cases[] = {
      {{{0, 0}}, {0}},
      {{{0, 0}, {0, 1}, {2, 0}, {2, 1}}, {0, 1, 2, 3}},
      {{{0, 0}, {1, 0}, {0, 1}, {1, 1}}, {0, 2, 1, 3}},
      {{{0, 0}, {1, 0}, {2, 0}, {0, 1}, {1, 1}, {0, 2}}, {0, 3, 5, 1, 4, 2}},
  };
  for (const Case& one : cases) EXPECT_EQ(ranks_by_host(one.seats), one.expected);
}

TEST(RanksByHost, NumbersEveryRankOnceForWorldsOfAnySize) {
  for (const int hosts : {1, 3, 16, 125}) {
    const int per_host = 8;
    std::vector<Seat> seats;
    for (int rank = 0; rank < hosts * per_host; ++rank) seats.push_back({rank % hosts, rank / hosts});
    const std::vector<int> numbers = ranks_by_host(seats);
    std::vector<int> sorted = numbers;
    std::sort(sorted.begin(), sorted.end());
    for (int rank = 0; rank < hosts * per_host; ++rank) {
      EXPECT_EQ(sorted[static_cast<size_t>(rank)], rank);
      EXPECT_EQ(numbers[static_cast<size_t>(rank)], rank % hosts * per_host + rank / hosts);
    }
  }
}

TEST(Session, AWorldOfOneStartsWithoutMpiAndReturnsTheProgramsCode) {
  Session session{Launcher{}};
  EXPECT_EQ(session.world().size(), 1);
  EXPECT_EQ(session.hosts().size(), 1U);
  EXPECT_EQ(session.local_rank(), 0);
  EXPECT_EQ(session.ranks_on_node(), 1);
  EXPECT_EQ(session.run([] { return 75; }), 75);
  EXPECT_EQ(session.run([]() -> int {
    throw AgreedError(Error(ExitCode::input, "the file is broken", std::source_location::current()), false);
  }),
            3);
}

TEST(Session, AnErrorEndsTheProcessWithItsCodeAndText) {
  const auto run = [] {
    Session session{Launcher{}};
    session.run([]() -> int { fail(ExitCode::resources, "no room for {} bytes", 12); });
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(4), "ptrain: error: no room for 12 bytes\n");
}

TEST(Session, SrunWithoutPmixIsRefusedWithTheRightCommandByItsFirstRankOnly) {
  for (const int rank : {0, 1}) {
    try {
      Session session{Launcher{"srun", 8, rank, false}};
      ADD_FAILURE() << "was accepted";
    } catch (const AgreedError& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      EXPECT_EQ(
          error.what(),
          std::string("srun started 8 ranks, but none found each other: start it with srun --mpi=pmix"));
      EXPECT_EQ(error.is_speaker(), rank == 0);
    }
  }
}

}  // namespace
}  // namespace ptrain
