// The fault suite in its short form, on ranks that mpirun starts; in full: benchmarks/faults.
#include <gtest/gtest.h>

#include <iostream>

#include "tests/faults/parts.h"

namespace ptrain::faults {
namespace {

/// Prints what a part counted and judges it.
void expect_good(const Tally& tally) {
  std::cout << to_text(tally) << std::endl;
  if (!tally.skipped.empty()) GTEST_SKIP() << tally.skipped;
  EXPECT_TRUE(tally.is_good()) << to_text(tally);
}

TEST(Faults, ARankKilledAtARandomTimeCostsAtMostOneInterval) {
  expect_good(kill_at_random_times(20));
}

TEST(Faults, ARankKilledAtAnyMomentOfASaveLeavesAWholeCheckpoint) {
  expect_good(kill_at_commit_points(1));
}

TEST(Faults, ARankStoppedAtARandomTimeIsNamed) {
  expect_good(stop_at_random_times(3));
}

TEST(Faults, NoDamageToAnyFileIsAccepted) {
  expect_good(damaged_files(200, 40));
}

TEST(Faults, NothingIsShownOrDeletedBeforeItIsOnTheDisk) {
  expect_good(order_on_disk(4));
}

TEST(Faults, ASaveThatFailsIsAllThatIsLost) {
  expect_good(failing_disk(1));
}

TEST(Faults, ARunOnAFullDiskGoesOnAndSavesOnceThereIsRoom) {
  expect_good(full_disk());
}

TEST(Faults, ALongRunNeitherGrowsNorChanges) {
  expect_good(soak(600, 60, 3));
}

}  // namespace
}  // namespace ptrain::faults
